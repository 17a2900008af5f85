"""The page of a comparison: input, A, B and their difference of every item, the worst first.

It has the form of a run's page (`job.page`): one HTML file, and a folder beside it with scripts, data and small copies.
"""

from __future__ import annotations

import contextlib
import html
import math
import os
import re
import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager
from importlib.resources import files as resources
from pathlib import Path
from typing import Any, Literal

from joyedit.errors import ItemError, OutputError, UsageError
from joyedit.job.clock import utc_now
from joyedit.job.compare.compare import Comparison, pair_of
from joyedit.job.compare.page_pictures import PairPictures, input_of
from joyedit.job.compare.pairs import Folders, Found, Pair
from joyedit.job.compare.summary import differences
from joyedit.job.number_table import NumberTable
from joyedit.job.own_files import RESULTS, is_page_folder, is_temporary
from joyedit.job.page import loose
from joyedit.job.page.data_files import DataFiles
from joyedit.job.page.entries import link_to, text_of
from joyedit.job.page.place import PAGE_BEGIN, PagePlace, is_own_page
from joyedit.job.results.all_records import FinalRecord
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import packed_in
from joyedit.printable import brief

_MARK = b"joyedit-compare"
_HEAD = 4096
_AT_ONCE = 4
_OWN = re.compile(r"(?:items|more|run)-[0-9a-f]{12}-\d+\.js|pairs-[0-9a-f]{12}\.(?:js|css)|[sv]-[0-9a-f]{24}\.jpg")
_SHARED = ("data.js", "compare.js"), ("page.css", "viewer.css")


class ComparePage:
    """A page that is being made: `pictures` takes the pairs, then `build` writes the rest. Use `open_page`."""

    def __init__(self, folder: OutputFolder, place: PagePlace, folders: Folders) -> None:
        self.pictures = PairPictures(folders, folder, place.files)
        self.path = folder.path / place.name
        self._folder = folder
        self._place = place
        self._root = os.path.abspath(folder.path)
        self._mark = secrets.token_hex(6)
        self._kept = NumberTable()  # the names of copies that the page shows; the numbers mean nothing

    def build(self, found: Comparison) -> Path:
        """Write data, scripts and the HTML file; gives its path. Raises OutputError."""
        data = DataFiles(self._folder, self._place.files, self._mark)
        for number in found.results.worst_first():
            pair = pair_of(found, number)
            if pair.a is not None or pair.b is not None:
                shown = pair.a or pair.b
                assert shown is not None
                data.add(self._row(pair, found.results.found(number), found.folders), text_of(shown.record), {})
        data.end_file()
        summary = found.summary
        run = data.run(
            {
                "a": brief(str(found.folders.a.out), 200),
                "b": brief(str(found.folders.b.out), 200),
                "built": utc_now(),
                "files": link_to(self._place.files),
                "mark": self._mark,
                "counts": data.counts,
                "states": dict(summary.states),
                "spreads": {name: one.as_json() for name, one in summary.all.spreads().items()},
                "settings": [[name, summary.setting_text(name)] for name in summary.settings],
            }
        )
        parts = {kind: self._write_parts(kind) for kind in ("css", "js")}
        self._write_html(run, parts, [name for name in data.names if name.startswith("items-")][:_AT_ONCE], found)
        self._prune({*parts.values(), *data.names})
        return self.path

    def _row(self, pair: Pair, found: Found, folders: Folders) -> dict[str, Any]:
        """The row of an item: only the keys that it has a value for."""
        names = self.pictures.names_of(pair)
        there = {
            key: f"pictures/{name}"
            for key, name in (
                *(("si", names.input), ("sa", names.a), ("sb", names.b), ("sd", names.difference)),
                *(("va", names.view_a), ("vb", names.view_b), ("vd", names.view_difference)),
            )
            if self.pictures.has(name)
        }
        for name in there.values():
            self._kept[os.path.basename(name)] = 1
        record = pair.a or pair.b
        assert record is not None
        row = {
            "id": brief(pair.id, 300),
            "state": found.state,
            "psnr": None if found.psnr is None or math.isinf(found.psnr) else round(found.psnr, 2),
            "ssim": None if found.ssim is None else round(found.ssim, 4),
            "lpips": None if found.lpips is None else round(found.lpips, 4),
            "a": self._link(_file(folders, "a", pair.a)),
            "b": self._link(_file(folders, "b", pair.b)),
            "in": self._link(input_of(pair)),
            "name": brief(os.path.basename(input_of(pair)), 120),
            "size": _size(record),
            "differ": "; ".join(f"{name}: {a} / {b}" for name, (a, b) in list(differences(pair).items())[:6]),
            "why": brief(_why(pair), 200),
            **there,
        }
        return {key: value for key, value in row.items() if value not in (None, "")}

    def _link(self, path: str | None) -> str:
        """A link from the page to a file that a browser can open."""
        return link_to(os.path.relpath(path, self._root)) if path and path.startswith("/") and len(path) < 1000 else ""

    def _write_parts(self, kind: str) -> str:
        shared = _SHARED[0] if kind == "js" else _SHARED[1]
        parts = [(resources("joyedit.job.page") / "parts" / name).read_bytes() for name in shared]
        own = ("pairs.css",) if kind == "css" else ("pairs.js", "pairs_viewer.js")
        parts += [_part(name) for name in own]
        name = f"pairs-{self._mark}.{kind}"
        self._folder.write_bytes(f"{self._place.files}/{name}", b"\n".join(parts))
        return name

    def _write_html(self, run: str, parts: dict[str, str], first: list[str], found: Comparison) -> None:
        files = link_to(self._place.files)
        tags = "\n".join(f'<script src="{files}/{name}" defer></script>' for name in (parts["js"], run, *first))
        title = f"{found.folders.a.out.name} and {found.folders.b.out.name}"
        values = {
            "{{title}}": html.escape(brief(title, 200)),
            "{{style}}": f"{files}/{parts['css']}",
            "{{scripts}}": tags,
        }
        text = re.sub("|".join(map(re.escape, values)), lambda one: values[one[0]], _part("pairs.html").decode())
        data = PAGE_BEGIN + text.encode("utf-8", "backslashreplace")
        path = self.path
        self._folder.write_bytes(self._place.name, data, may_replace=lambda: _is_comparison(path))

    def _prune(self, kept: Container[str]) -> None:
        """Remove what an older page and killed builders left. Files of other names stay."""
        root = os.path.join(self._root, self._place.files)
        for folder, names in ((root, kept), (os.path.join(root, "pictures"), self._kept)):
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    if is_temporary(name) or (_OWN.fullmatch(name) and name not in names):
                        self._folder.remove(os.path.relpath(os.path.join(folder, name), self._root))


def _file(folders: Folders, side: Literal["a", "b"], record: FinalRecord | None) -> str | None:
    """The file of a picture; None for one in a shard, which no browser opens: the page has a copy of it."""
    return None if record is None or packed_in(record.record) is not None else folders.path(side, record)


def refuse_page(path: Path) -> tuple[Path, PagePlace]:
    """The folder of the page, and its place there: `path` is an HTML file, or a folder.

    Raises UsageError where something else stands there.
    """
    is_file = path.suffix.lower() == ".html" and not path.is_dir()
    folder = path.parent if is_file else path
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--page {path}: {folder} is no folder (give a folder, or a name that ends with .html)")
    place = PagePlace.named(path.name if is_file else "index.html")
    page = folder / place.name
    is_page_of_run = (folder / RESULTS).exists() and place == PagePlace()
    if is_page_of_run or (os.path.lexists(page) and not _is_comparison(page)):
        raise UsageError(f"--page {path}: {page} is another page, and stays (give another name, such as compare.html)")
    files = folder / place.files
    if os.path.lexists(files) and not is_page_folder(files):
        raise UsageError(f"--page {path}: {files} is not from joyedit, and stays (give another name)")
    return folder, place


@contextmanager
def open_page(path: Path, folders: Folders) -> Iterator[ComparePage]:
    """The page at `path`, which nobody else makes meanwhile. Raises UsageError and OutputError."""
    root, place = refuse_page(path)
    folder = OutputFolder(root)
    folder.prepare()
    try:
        with place.locked(folder):
            yield ComparePage(folder, place, folders)
    except ItemError as error:
        raise OutputError(f"cannot make the page: {error}") from error
    finally:
        folder.close()


def _is_comparison(path: Path) -> bool:
    try:
        return is_own_page(path) and _MARK in path.read_bytes()[:_HEAD]
    except OSError:
        return False


def _part(name: str) -> bytes:
    return (resources("joyedit.job.compare") / "parts" / name).read_bytes()


def _size(record: FinalRecord) -> list[int] | None:
    size = loose.entries(record.record.get("size")) or loose.entries(record.record.get("bucket"))
    sides = [loose.whole(side) for side in size]
    return [sides[1], sides[0]] if len(sides) == 2 and all(sides) else None  # type: ignore[list-item]


def _why(pair: Pair) -> str:
    """What failed, in A or in B."""
    told = []
    for side, record in (("A", pair.a), ("B", pair.b)):
        error = {} if record is None else loose.table(record.record.get("error"))
        if error:
            told.append(f"{side}: {loose.text(error.get('code'))}")
    return ", ".join(told)
