"""The Markdown pages for users and contributors, taken apart: code blocks, links and tables.

Conventions of the pages. A comment on the line in front of a code block says what the tests make of it:

    <!-- file: edits.jsonl -->     the block is written to this file, for the blocks below it
    <!-- not run: needs a GPU -->  the block cannot run here; its flags must exist all the same
    <!-- exit code 3 -->           the last command of the block ends with this code

Blocks of the kind `sh` are commands, `python` is run too, `text` is what joyedit prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!-- (.*?) -->\n\Z")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    """The page as messages and test ids name it."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True, kw_only=True)
class Block:
    """A code block: where it begins, its kind, its text, and the comment in front of it ("" if none)."""

    page: Path
    line: int
    kind: str
    text: str
    comment: str

    @property
    def where(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.comment.startswith("not run:")

    @property
    def file(self) -> str | None:
        """The file that the block is, if it is one."""
        return self.comment.removeprefix("file: ") if self.comment.startswith("file: ") else None

    @property
    def exit_code(self) -> int:
        return int(self.comment.removeprefix("exit code ")) if self.comment.startswith("exit code ") else 0


def blocks(page: Path) -> list[Block]:
    """All code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        comment = _COMMENT.search(before)
        found.append(
            Block(
                page=page,
                line=before.count("\n") + 1,
                kind=match[1],
                text=match[2],
                comment="" if comment is None else comment[1],
            )
        )
    return found


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of all links and pictures."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`: the headings, spelled as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(page: Path) -> list[list[list[str]]]:
    """The tables: rows of cells, the head first and without the line below it."""
    found: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*prose(page).splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                rows.append(cells)
        elif rows:
            found.append(rows)
            rows = []
    return found


def coded(cell: str) -> list[str]:
    """The words in `backticks` of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def table_words(page: Path, head: str) -> Iterator[str]:
    """The words in backticks of the first column of every table whose first column is headed `head`."""
    for rows in tables(page):
        if rows[0][0] == head:
            for row in rows[1:]:
                yield from coded(row[0])
