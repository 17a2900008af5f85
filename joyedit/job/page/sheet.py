"""A contact sheet: before and after of many items on one PNG, each with its id and the beginning of its instruction."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from joyedit.errors import ItemError, OutputError, UsageError
from joyedit.job.containers.pictures import contained_at
from joyedit.job.data_picture import is_in_a_line
from joyedit.job.own_files import RESULTS
from joyedit.job.page import loose
from joyedit.job.page.private import Private
from joyedit.job.pictures.decode import load_picture
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import error_code, final_records, output_of
from joyedit.job.results.report import joyedit_version
from joyedit.job.results.verify import require_journal
from joyedit.printable import brief

MOST_ITEMS = 200
_COLUMNS = 4
_SIDE = 190
_GAP = 24
_TEXT = 46
_NO_LIMIT = 1 << 62
_WORKERS = 4
_MARK = "joyedit contact sheet"
_PAPER, _INK, _SOFT, _FAIL, _SUNK = "#faf9f7", "#1f2124", "#6c6f74", "#ad3f36", "#f0eeea"

Only = Literal["all", "done", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One item on the sheet. `before` and `after` are at most `_SIDE` pixels; None where there is no picture."""

    name: str
    text: str
    is_failed: bool
    before: Image.Image | None
    after: Image.Image | None


def write_sheet(out: Path, path: Path, only: Only = "all") -> tuple[int, int]:
    """Write the sheet of the output folder `out` to `path`; gives how many items are on it, and how many there are.

    Raises `UsageError` if `out` is no output folder, has no such item, or if another file is at `path`; `OutputError`.
    """
    require_journal(out)
    if path.suffix.lower() != ".png":
        raise UsageError(f"--sheet {path}: a contact sheet is a PNG (give a name that ends with .png)")
    if os.path.lexists(path) and not _is_sheet(path):
        raise UsageError(f"{path} is there already and is no contact sheet (give another name, or move it away)")
    count = [0]
    entries = list(_entries(out, only, count))
    if not entries:
        raise UsageError(f"{out}: no item is {only}" if only != "all" else f"{out}: there are no items")
    sheet = _draw(entries)

    def fill(file: BinaryIO) -> None:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Comment", _MARK)
        chunks.add_text("Software", f"joyedit {joyedit_version()}")
        sheet.save(file, "PNG", pnginfo=chunks)

    folder = OutputFolder(path.parent)
    folder.prepare()
    try:
        folder.write(path.name, fill, may_replace=lambda: _is_sheet(path))
    except ItemError as error:
        raise OutputError(str(error)) from error
    finally:
        folder.close()
    return len(entries), count[0]


def _entries(out: Path, only: Only, count: list[int]) -> Iterator[_Entry]:
    """The items that are asked for, read in threads; counts all of them, and gives the first ones."""
    waiting: deque[Future[_Entry]] = deque()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="joyedit-sheet") as pool:
        for record in final_records(out / RESULTS):
            if only not in ("all", "failed" if error_code(record) else "done"):
                continue
            count[0] += 1
            if count[0] <= MOST_ITEMS:
                waiting.append(pool.submit(_entry, out, record))
        while waiting:
            yield waiting.popleft().result()


def _entry(out: Path, record: dict[str, Any]) -> _Entry:
    inputs = [one for one in loose.entries(record.get("inputs")) if isinstance(one, str) and not is_in_a_line(one)]
    output = output_of(record)
    relative = PurePosixPath(output or "")
    is_inside = output is not None and not relative.is_absolute() and ".." not in relative.parts and "\0" not in output
    why = Private(os.path.abspath(out)).text(loose.text(loose.table(record.get("error")).get("message")), inputs)
    code = error_code(record)
    return _Entry(
        name=brief(record["id"], 60),
        text=brief(loose.text(record.get("instruction")) if code is None else f"{code}: {why}", 110),
        is_failed=code is not None,
        before=_small(inputs[-1]) if inputs else None,
        after=_small(os.path.join(out, *relative.parts)) if is_inside else None,
    )


def _small(path: str) -> Image.Image | None:
    with contextlib.suppress(ItemError):
        image = load_picture(contained_at(path) or path, _NO_LIMIT).image
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        return image
    return None


def _draw(entries: list[_Entry]) -> Image.Image:
    columns = min(_COLUMNS, len(entries))
    wide, tall = 2 * _SIDE + 6, _SIDE + 6 + _TEXT
    rows = -(-len(entries) // columns)
    sheet = Image.new("RGB", (_GAP + columns * (wide + _GAP), _GAP + rows * (tall + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    fonts = ImageFont.load_default(14), ImageFont.load_default(12)
    for number, entry in enumerate(entries):
        left = _GAP + number % columns * (wide + _GAP)
        top = _GAP + number // columns * (tall + _GAP)
        for place, image in enumerate((entry.before, entry.after)):
            x = left + place * (_SIDE + 6)
            draw.rectangle((x, top, x + _SIDE - 1, top + _SIDE - 1), fill=_SUNK)
            if image is not None:
                sheet.paste(image, (x + (_SIDE - image.width) // 2, top + (_SIDE - image.height) // 2))
        colour = _FAIL if entry.is_failed else _SOFT
        draw.text((left, top + _SIDE + 8), _fitting(draw, entry.name, fonts[0], wide), fill=_INK, font=fonts[0])
        draw.text((left, top + _SIDE + 28), _fitting(draw, entry.text, fonts[1], wide), fill=colour, font=fonts[1])
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """The beginning of the text that fits into so many pixels."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}...", font=font) > width:
        text = text[:-1]
    return f"{text}..."


def _is_sheet(path: Path) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return _MARK.encode() in file.read(1 << 12)
    except OSError:
        return False
