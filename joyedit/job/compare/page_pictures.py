"""Small copies of pictures for the page of a comparison: of the input, A, B, and their difference.

A copy is named after the content that its record tells, so one that is there already is not made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from joyedit.errors import ItemError, OutputError
from joyedit.job.compare.measure import difference_of, pixels_of
from joyedit.job.compare.pairs import Folders, Found, Pair
from joyedit.job.containers.pictures import contained_at
from joyedit.job.data_picture import is_in_a_line
from joyedit.job.page import loose
from joyedit.job.pictures.decode import Picture, load_picture
from joyedit.job.results.all_records import FinalRecord
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import packed_in

SMALL, VIEW = 288, 1280
"""The longer side of copies in pixels: in the list, and to look at."""
UNSHOWN = (".tif", ".tiff", ".heic", ".heif")
"""Endings of pictures that browsers do not show: these have a copy to look at."""
_QUALITY = 85
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """The names of the copies of a pair, below the folder of the page; "" where there cannot be one."""

    input: str
    a: str
    b: str
    difference: str
    view_a: str
    view_b: str
    view_difference: str


class PairPictures:
    """Makes the copies; `look` may be called in several threads. `error` is what stopped the making."""

    def __init__(self, folders: Folders, folder: OutputFolder, files: str) -> None:
        self.error: OutputError | None = None
        self._folders = folders
        self._folder = folder
        self._files = files

    def look(self, pair: Pair, found: Found, one: Picture | None, other: Picture | None) -> None:
        """Make what is missing of this pair's copies."""
        names = self.names_of(pair)
        for picture, small, view in ((one, names.a, names.view_a), (other, names.b, names.view_b)):
            if picture is not None:
                self._copy(picture.image, view, VIEW)
                self._copy(picture.image, small, SMALL)
        is_made = self.has(names.difference) and self.has(names.view_difference)
        if found.state == "different" and one is not None and other is not None and not is_made:
            made = difference_of(*pixels_of(one, other))
            self._copy(made, names.view_difference, VIEW)
            self._copy(made, names.difference, SMALL)
        if names.input and not self.has(names.input):
            path = input_of(pair)
            with contextlib.suppress(ItemError):
                self._copy(load_picture(contained_at(path) or path, _NO_LIMIT).image, names.input, SMALL)

    def names_of(self, pair: Pair) -> Names:
        """The names of the copies of a pair, whether they are there or not."""
        keys = [
            "" if record is None or record.output is None else self._key(side, record)
            for side, record in (("a", pair.a), ("b", pair.b))
        ]
        views = [
            f"v-{key}.jpg" if key and record is not None and _needs_view(record) else ""
            for key, record in zip(keys, (pair.a, pair.b), strict=True)
        ]
        both = _short("\0".join(keys)) if all(keys) else ""
        shown = input_of(pair)
        return Names(
            input=f"s-{_input_key(pair, shown)}.jpg" if shown else "",
            a=f"s-{keys[0]}.jpg" if keys[0] else "",
            b=f"s-{keys[1]}.jpg" if keys[1] else "",
            difference=f"s-{both}.jpg" if both else "",
            view_a=views[0],
            view_b=views[1],
            view_difference=f"v-{both}.jpg" if both else "",
        )

    def has(self, name: str) -> bool:
        """Whether this copy is there. One without content comes from a power cut."""
        try:
            return bool(name) and os.stat(self._path(name), follow_symlinks=False).st_size > 0
        except OSError:
            return False

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.path, self._files, "pictures", name)

    def _key(self, side: str, record: FinalRecord) -> str:
        sha256 = record.record.get("output_sha256")
        path = self._folders.path("a" if side == "a" else "b", record) or ""
        try:
            status = os.stat(path)
        except OSError:
            return _short(f"{path}\0{sha256}")
        if isinstance(sha256, str) and status.st_size == record.record.get("output_bytes"):
            return _short(sha256)
        return _short(f"{path}\0{status.st_size}\0{status.st_mtime_ns}")

    def _copy(self, image: Image.Image, name: str, side: int) -> None:
        if not name or self.error is not None or self.has(name):
            return
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=_QUALITY)
        try:
            self._folder.write_bytes(f"{self._files}/pictures/{name}", file.getvalue(), flush=False)
        except (OutputError, ItemError) as error:
            self.error = error if isinstance(error, OutputError) else OutputError(str(error))


def input_of(pair: Pair) -> str:
    """The path or address of the last picture that the item was made of; "" if it has none that can be read again."""
    for record in (pair.a, pair.b):
        given: list[Any] = [] if record is None else loose.entries(record.record.get("inputs"))
        paths = [one for one in given if isinstance(one, str) and not is_in_a_line(one)]
        if paths:
            return paths[-1]
    return ""


def _input_key(pair: Pair, path: str) -> str:
    record = pair.a or pair.b
    seen = loose.entries(None if record is None else record.record.get("inputs_seen"))
    last = loose.entries(seen[-1]) if seen else []
    return _short(last[0] if last and isinstance(last[0], str) else path)


def _needs_view(record: FinalRecord) -> bool:
    """Whether no browser shows the picture of a record: its format is none of the web, or it lies in a shard."""
    return packed_in(record.record) is not None or (record.output or "").lower().endswith(UNSHOWN)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
