"""Compares the record of a finished item with its picture: a file, a part of a shard, or an object on a store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from joyedit.errors import ItemError, OutputError, os_reason
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.hashing import sha256_of
from joyedit.job.pictures.decode import load_picture
from joyedit.job.results.objects.pictures import ObjectPictures
from joyedit.job.results.output_folder import parts_of
from joyedit.job.results.records import beside_of, output_of, packed_in
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.spec import Beside

_NO_LIMIT = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Mismatch:
    """One thing that does not match. `kind` is a stable word; `id` and `file` are None if it has none."""

    kind: str
    message: str
    id: str | None = None
    file: str | None = None


def check_record(folder: Path, record: dict[str, Any]) -> Mismatch | None:
    """Compares the record of a finished item with its file; None if they match."""
    name, output = record["id"], record.get("output")
    relative = PurePosixPath(output) if isinstance(output, str) and "\0" not in output else None
    if relative is None or relative.is_absolute() or ".." in relative.parts or not relative.parts:
        return Mismatch(kind="bad_record", message=f"its output {output!r} lies outside the folder", id=name)

    def mismatch(kind: str, message: str) -> Mismatch:
        return Mismatch(kind=kind, message=message, id=name, file=str(relative))

    path = folder.joinpath(*relative.parts)
    try:
        if packed_in(record) is not None:
            return _check_packed(os.path.join(folder, relative), record, mismatch)
        beside = next((one for one in beside_of(record) if not _is_as_recorded(folder, one)), None)
        if beside is not None:
            return mismatch("missing_file", f"{beside.file}, which belongs to it, is gone or another one")
        if path.is_symlink():
            return mismatch("no_picture", "a link stands in the place of the picture")
        with open(open_to_read(path), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.get("output_bytes"):
                return mismatch(
                    "wrong_size", f"the file has {size} bytes, the record says {record.get('output_bytes')}"
                )
            if sha256_of(file) != record.get("output_sha256"):
                return mismatch("wrong_content", "the sha256 of the file differs from the recorded one")
        load_picture(path, _NO_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return mismatch("missing_file", "no such file")
    except (ItemError, OutputError) as error:
        return mismatch("no_picture", str(error))
    except OSError as error:
        return mismatch("unreadable_file", os_reason(error))
    return None


def _check_packed(address: str, record: dict[str, Any], mismatch: Callable[[str, str], Mismatch]) -> Mismatch | None:
    """The same for a picture in a shard. Raises OSError, ItemError."""
    found = contained_at(address)
    if found is None:
        return mismatch("missing_file", "its shard is gone, or holds no such picture")
    data = read_contained(found)
    if len(data) != record.get("output_bytes"):
        return mismatch("wrong_size", f"it has {len(data)} bytes, the record says {record.get('output_bytes')}")
    if hashlib.sha256(data).hexdigest() != record.get("output_sha256"):
        return mismatch("wrong_content", "the sha256 of the picture differs from the recorded one")
    load_picture(found, _NO_LIMIT)
    return None


def _is_as_recorded(folder: Path, beside: Beside) -> bool:
    """Whether a file that belongs to a picture is there with the recorded content. Raises OSError."""
    try:
        parts_of(beside.file)
        with open(open_to_read(folder / beside.file), "rb", buffering=0) as file:
            return os.fstat(file.fileno()).st_size == beside.bytes and sha256_of(file) == beside.sha256
    except (FileNotFoundError, NotADirectoryError, ItemError):
        return False


def check_object(folder: Path, objects: ObjectPictures, record: dict[str, Any]) -> Mismatch | None:
    """As `check_record`, of a picture on an object store: it is fetched, looked at, and goes again."""
    output = output_of(record)
    if output is None:
        return check_record(folder, record)
    try:
        objects.file(output)
        return check_record(folder, record)
    finally:
        objects.forget(output)
