"""One result of a run: its record, and its picture when somebody asks for it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from joyedit.api.folder import ResultFolder
from joyedit.api.html import figure
from joyedit.errors import ItemError, OutputError, os_reason
from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.pictures import read_contained
from joyedit.job.pictures import heif
from joyedit.job.pictures.headers import HEAD
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.records import error_code, packed_in
from joyedit.job.source.python.rows import NAME

_INDEX = re.compile(rf"{NAME}(?:\['.*'\])?(?:\.iloc)?\[(\d+)\]", re.DOTALL)
"""How records name a row of a source in memory; a folder may have brackets in its name, too."""
_SHOWN_SIDE = 512
_HEIC = (".heic", ".heif")


class Result:
    """The final state of one item. Every field of its record in results.jsonl is an attribute.

    `record` is the whole record as a dict. `was_done`: an earlier run finished the item. In a notebook the result shows
    its picture.
    """

    def __init__(self, record: Mapping[str, Any], folder: ResultFolder, *, was_done: bool, file: Path | None) -> None:
        """`file` is the picture where it does not lie in the folder under the name of the record."""
        self.record = dict(record)
        self.was_done = was_done
        self._folder = folder
        self._file = file

    @property
    def id(self) -> str:
        """The id of the item."""
        return str(self.record["id"])

    @property
    def status(self) -> str:
        """`ok` or `failed`."""
        return str(self.record["status"])

    @property
    def ok(self) -> bool:
        """Whether there is a picture."""
        return self.status == "ok"

    @property
    def instruction(self) -> str:
        """The text as it went to the model."""
        return str(self.record.get("instruction") or "")

    @property
    def error(self) -> dict[str, str] | None:
        """`code` and `message` of a failed item; None for a finished one."""
        error: dict[str, str] | None = self.record.get("error")
        return error

    @property
    def error_code(self) -> str | None:
        """The code of the error alone."""
        return error_code(self.record)

    @property
    def settings(self) -> dict[str, Any]:
        """Steps, seed and the other settings that were in force."""
        return dict(self.record.get("settings") or {})

    @property
    def seconds(self) -> float:
        """The item's share of the time of all stages."""
        return float(sum((self.record.get("seconds") or {}).values()))

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a dataset that the record carries, or those that `keep_columns` names."""
        return dict(self.record.get("columns") or {})

    @property
    def index(self) -> int | None:
        """The index of the row that the item comes from; None where the source has no rows in memory."""
        source = self.record.get("source")
        found = _INDEX.fullmatch(str(source.get("file"))) if isinstance(source, dict) else None
        return int(found[1]) if found else None

    @property
    def path(self) -> Path | None:
        """The file of the picture, or its address in a shard; None for a failed item."""
        output = self.record.get("output")
        if not self.ok or not isinstance(output, str):
            return None
        return self._file or (self._folder.path / output)

    @property
    def image(self) -> Image.Image | None:
        """The picture, read from its file at each access; None for a failed item. Raises OutputError if it is gone."""
        path = self.path
        if path is None:
            return None
        try:
            image: Image.Image = self._opened(path)
            with image:
                image.load()
            return image
        except ItemError as error:
            raise OutputError(f"{path}: cannot read this picture: {error}") from error
        except OSError as error:
            raise OutputError(f"{path}: cannot read this picture: {os_reason(error)}") from error

    def _opened(self, path: Path) -> Image.Image:
        """The picture of which `path` is the file, or the address. Raises JoyeditError, and what Pillow raises."""
        try:
            return _image_in(path)
        except FileNotFoundError:
            found = self._elsewhere()
            if found is None:
                raise
        return _image_in(io.BytesIO(read_contained(found)) if isinstance(found, ContainedPicture) else found)

    def _elsewhere(self) -> ContainedPicture | Path | None:
        """Where the picture lies if not in a file of that name: in a shard, or on an object store. None if nowhere.

        It may have come into the shard since its record was given out.
        """
        place = pictures_of(self._folder.path)
        found = None if packed_in(self.record) is None else place.at(self.record)
        if not isinstance(found, ContainedPicture):
            latest = self._folder.latest.get(self.id)
            found = None if latest is None else place.at(latest)
        return found if isinstance(found, (ContainedPicture, Path)) else None

    def row(self) -> dict[str, Any]:
        """The row of the table of an outcome."""
        settings, size = self.settings, self.record.get("size") or (None, None)
        error = self.error or {}
        made = {
            "id": self.id,
            "status": self.status,
            "instruction": self.instruction,
            "inputs": list(self.record.get("inputs") or ()),
            "output": None if self.path is None else str(self.path),
            "height": size[0],
            "width": size[1],
            "steps": settings.get("steps"),
            "guidance_scale": settings.get("guidance_scale"),
            "seed": settings.get("seed"),
            "seconds": self.seconds,
            "error_code": self.error_code,
            "error": error.get("message"),
            "index": self.index,
            "was_done": self.was_done,
        }
        return made | {name: value for name, value in self.columns.items() if name not in made}

    def __getattr__(self, name: str) -> Any:
        record = self.__dict__.get("record", {})
        if name in record:
            return record[name]
        raise AttributeError(f"a result has no field {name!r} (there are: {', '.join(record)})")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.record})

    def __repr__(self) -> str:
        told = str(self.path) if self.ok else f"failed: {self.error_code}"
        return f"Result({self.id!r}, {told})"

    def _repr_html_(self) -> str:
        message = str((self.error or {}).get("message", ""))
        return figure(self._shown(), self.id, self.instruction, message)

    def _repr_png_(self) -> bytes | None:
        image = self._shown()
        if image is None:
            return None
        held = io.BytesIO()
        image.save(held, "PNG")
        return held.getvalue()

    def _shown(self) -> Image.Image | None:
        """The picture in the size in which notebooks show it; None if there is none, or it cannot be read."""
        try:
            image = self.image
        except OutputError:
            return None
        if image is None:
            return None
        image = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
        image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        return image


def _image_in(file: Path | io.BytesIO) -> Image.Image:
    """The picture of a file, also in HEIC, which Pillow does not read by itself."""
    if isinstance(file, Path):
        if file.suffix.lower() not in _HEIC:
            return Image.open(file)
        file = io.BytesIO(file.read_bytes())
    if heif.kind_of(file.getvalue()[:HEAD]) == "HEIC":
        return heif.open_heif(file, "the picture", "HEIC")
    return Image.open(file)
