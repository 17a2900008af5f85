"""Samples -> an archive of WebDataset: the files of one key are one sample.

`KEY.edited_image.png`, `KEY.original_image.jpg`, `KEY.txt` (the instruction), `KEY.json` (all fields of the row, and
under `joyedit` how the picture was made), and one file for each other picture of the row. The same samples make the
same bytes.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Sequence
from typing import BinaryIO

from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES
from joyedit.job.writing.samples import ABOUT, EDITED, MASK, Columns, Sample, about_in, sample_keys

_NO_PART = re.compile(r"[^\w.-]+|^\.+|\.+$|\.(?=\.)")


def write_tar(file: BinaryIO, samples: Sequence[Sample]) -> list[str]:
    """Write the archive; gives the name of each edited picture in it. Raises ItemError, OSError."""
    columns, inner = Columns.of(samples), []
    parts = _parts_of(columns)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for key, sample in zip(sample_keys(samples), samples, strict=True):
            names: set[str] = set()
            for column, pictures in columns.pictures_of(sample):
                for number, picture in enumerate(pictures):
                    name = f"{key}.{_name_of(parts[column], number, picture.ending, names)}"
                    _add(archive, name, picture.data)
                    if column == columns.own[EDITED]:
                        inner.append(name)
            _add(archive, f"{key}.txt", sample.instruction.encode("utf-8", "backslashreplace"))
            values = {**columns.values_of(sample), columns.own[ABOUT]: sample.about()}
            _add(archive, f"{key}.json", json.dumps(values).encode())
    return inner


def _parts_of(columns: Columns) -> dict[str, str]:
    """How each column of pictures is called in a name. One that can stand there as it is, does.

    Readers take names without regard to upper and lower case, so no two are the same in this way.
    """
    own = [columns.own[EDITED], columns.own[MASK], *map(columns.original, range(columns.originals))]
    made: dict[str, str] = {}
    taken: set[str] = set()
    for column in sorted((*own, *columns.rows), key=lambda name: _NO_PART.search(name) is not None):
        made[column] = _free(_NO_PART.sub("_", column) or "_", taken)
    return made


def _name_of(part: str, number: int, ending: str, taken: set[str]) -> str:
    """What stands behind the key: `mask.png`, and `jpg` for the column of a picture that was `KEY.jpg` itself.

    No name of the sample that is `taken`.
    """
    part = _free(part + ("" if not number else f"_{number + 1}"), taken)
    return part if f".{part.lower()}" in SUPPORTED_SUFFIXES else part + ending


def _free(wish: str, taken: set[str]) -> str:
    """The name, or one with a number behind it if that is taken; it is taken then."""
    made, number = wish, 2
    while made.lower() in taken:
        made, number = f"{wish}-{number}", number + 1
    taken.add(made.lower())
    return made


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def ids_in_tar(path: str) -> list[str]:
    """The ids of the items of such an archive, in order. Raises OSError, tarfile.TarError, ValueError."""
    found = []
    with tarfile.open(path, mode="r:") as archive:
        for member in archive:
            if member.name.endswith(".json") and member.isreg():
                file = archive.extractfile(member)
                told = json.loads(file.read()) if file is not None else {}
                about = told.get(about_in(told)) if isinstance(told, dict) else None
                if isinstance(about, dict) and isinstance(about.get("id"), str):
                    found.append(about["id"])
    return found
