"""The files that lie beside a finished picture, as those who read the folder want them: its original, for example."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from joyedit.errors import ItemError, os_reason, system_limit
from joyedit.job.data_picture import Reference, address_of
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.given import open_picture, opened
from joyedit.job.spec import MAX_PIXELS, EditItem, Seen
from joyedit.job.writing.picture_endings import ending_of

ORIGINALS = "originals"
"""The folder of the originals of an image folder. Second pictures of items are in `originals_2`: their own names may be
those of other items there."""
MASKS, ROW_PICTURES = "masks", "columns"
"""The folders of its masks, and of other pictures of its rows."""


class BesideFile(NamedTuple):
    """A file to be written: its place below the output folder, without an ending where its bytes tell that.

    `of` is what it holds, `number` the place of that among all pictures that the item reads (None: it is none of them).
    `column` is what an image folder calls it.
    """

    name: str
    of: Reference
    number: int | None = None
    as_png: bool = False
    column: str = ""
    is_picture: bool = True

    def content(self, seen: Sequence[Seen]) -> tuple[str, bytes]:
        """The whole name, and the bytes. `seen` are the pictures of the item as they were read.

        Raises ItemError where the file is not there, or another one than was edited.
        """
        data = _bytes_of(self.of)
        if self.number is not None and self.number < len(seen):
            _refuse_changed(self.of, data, seen[self.number])
        if self.as_png:
            return self.name, data if ending_of(data) == ".png" else _as_png(self.of)
        return (self.name + ending_of(data, str(self.of)) if self.is_picture else self.name), data


Layout = Callable[[EditItem], Iterator[BesideFile]]


def gedit(item: EditItem) -> Iterator[BesideFile]:
    """`{key}_SRCIMG.png`: GEdit-Bench's scorer passes over a picture without its source."""
    root = str(PurePosixPath(item.output).with_suffix(""))
    if item.images:
        last = len(item.images) - 1
        yield BesideFile(f"{root}_SRCIMG.png", item.images[last], last, as_png=True)


def spatialedit(item: EditItem) -> Iterator[BesideFile]:
    """For camera: the `{stem}.json` of the source, and its `{stem}_gt.jpg` as `{edit_id}_gt.png`."""
    told = {**(item.row.values if item.row is not None else {}), **(item.columns or {})}
    if told.get("type") != "camera" or not item.images:
        return
    source = item.images[-1]
    if not isinstance(source, Path):
        raise ItemError("missing_file", f"{source}: the files beside this picture are not read from here (download it)")
    stem, root = os.path.splitext(os.fspath(source))[0], PurePosixPath(item.output).with_suffix("")
    folder, name = root.parent, os.path.basename(stem)
    yield BesideFile(str(folder / f"{name}.json"), Path(f"{stem}.json"), is_picture=False)
    yield BesideFile(f"{root}_gt.png", Path(f"{stem}_gt.jpg"), as_png=True)


def image_folder(item: EditItem) -> Iterator[BesideFile]:
    """The originals, the mask, and the other pictures of the row."""
    root = str(PurePosixPath(item.output).with_suffix(""))
    for number, image in enumerate(item.images):
        more = "" if not number else f"_{number + 1}"
        yield BesideFile(f"{ORIGINALS}{more}/{root}", image, number, column=f"original_image{more}")
    if item.mask is not None:
        yield BesideFile(f"{MASKS}/{root}", item.mask, len(item.images), column="mask")
    known = {address_of(one) for one in item.inputs}
    for column, held in (item.row.pictures if item.row is not None else {}).items():
        for number, one in enumerate(held if isinstance(held, tuple) else (held,)):
            if address_of(one) not in known:
                more = "" if not number else f"_{number + 1}"
                yield BesideFile(f"{ROW_PICTURES}/{column}/{root}{more}", one, column=f"{column}{more}")


LAYOUTS: Mapping[str, Layout] = {"gedit": gedit, "spatialedit": spatialedit, "imagefolder": image_folder}
"""By the value of `--write`: what lies beside a picture there."""


def refuse_missing(files: Iterator[BesideFile]) -> None:
    """Raises ItemError where a file is not there that is none of the pictures to edit: better before the edit."""
    for one in files:
        if one.number is None and isinstance(one.of, Path) and not one.of.is_file():
            raise ItemError("missing_file", f"{one.of}: no such file, and {one.name} is to be a copy of it")


def _bytes_of(reference: Reference) -> bytes:
    try:
        with open_picture(opened(reference)) as file:
            return file.read()
    except (OSError, ValueError) as error:
        limit = system_limit(error)
        if limit is not None:
            raise limit from error
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise ItemError("missing_file", f"{reference}: {reason}") from error


def _refuse_changed(reference: Reference, data: bytes, seen: Seen) -> None:
    if hashlib.sha256(data).hexdigest() != seen.sha256:
        raise ItemError("picture_changed", f"{reference}: the file changed while its edit was made")


def _as_png(reference: Reference) -> bytes:
    """The picture as PNG, upright and of the colours that the model saw."""
    made = io.BytesIO()
    load_picture(reference, MAX_PIXELS, HashCache()).image.save(made, "PNG")
    return made.getvalue()
