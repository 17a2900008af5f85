"""The bytes of a picture, from its file, from a larger file, or from its line.

This says what may be opened, and what goes wrong on the way. Every exception of a decoder becomes an ItemError here.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias

from PIL import Image

from joyedit.errors import ItemError, JoyeditError, system_limit
from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.pictures import read_contained, stamp_of_contained
from joyedit.job.data_picture import DataPicture
from joyedit.job.pictures import heif
from joyedit.job.pictures.budget import NobodyWaits
from joyedit.job.spec import Stamp

Given: TypeAlias = "str | os.PathLike[str] | DataPicture | ContainedPicture"
"""The path of a file, a picture that stood in a line, or one in a larger file."""
Opened: TypeAlias = "str | DataPicture | ContainedPicture"
"""The same, where a path is text."""

_PILLOW_REFUSES = "not identified by this driver"
_TORN = re.compile("truncated|unexpected end|not enough image data", re.IGNORECASE)


def open_picture(picture: Opened) -> BinaryIO:
    """The bytes of a picture as an open file. Raises OSError; and ItemError for one in a larger file."""
    if isinstance(picture, ContainedPicture):
        return io.BytesIO(read_contained(picture))
    return io.BytesIO(picture.data) if isinstance(picture, DataPicture) else open(picture, "rb")


def opened(picture: Given) -> Opened:
    """The picture as `open_picture` takes it."""
    return picture if isinstance(picture, (DataPicture, ContainedPicture)) else os.fspath(picture)


def refuse_special_file(name: str) -> os.stat_result:
    """The file's status. Raises ItemError for a pipe or a device: opening one could wait for ever."""
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ItemError("missing_picture", f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        raise ItemError("unreadable_picture", f"{name}: {_reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ItemError("unreadable_picture", f"{name}: not a file")
    if status.st_size == 0:
        raise ItemError("empty_picture", f"{name}: the file is empty")
    return status


@contextmanager
def unchanged(picture: Opened, file: BinaryIO) -> Iterator[Stamp]:
    """Gives the stamp of the open file. Raises ItemError if it is another one at the end."""
    if isinstance(picture, DataPicture):
        yield Stamp(len(picture.data), 0, 0)
        return
    if isinstance(picture, ContainedPicture):  # its bytes are in memory, and its file was the listed one
        yield stamp_of_contained(picture)
        return
    before = Stamp.of(os.fstat(file.fileno()))
    reading_error: Exception | None = None
    try:
        yield before
    except Exception as error:  # if somebody writes the file at this moment, that is the true reason
        reading_error = error
    after = Stamp.of(os.fstat(file.fileno()))
    if (before.size, before.mtime_ns) != (after.size, after.mtime_ns):
        raise ItemError("picture_changed", f"{picture}: the file changed while it was read") from reading_error
    if reading_error is not None:
        raise reading_error


@contextmanager
def read_errors(name: Opened) -> Iterator[None]:
    """Turns every exception of Pillow into an ItemError."""
    try:
        yield
    except (JoyeditError, NobodyWaits):
        raise
    except FileNotFoundError as error:
        raise ItemError("missing_picture", f"{name}: no such file") from error
    except Image.DecompressionBombError as error:
        raise ItemError("picture_too_large", f"{name}: {error}") from error
    except MemoryError as error:
        raise ItemError(
            "picture_too_large", f"{name}: not enough memory to decode it (ulimit -v may limit it)"
        ) from error
    except Exception as error:  # Pillow's readers raise nearly every kind: struct.error, KeyError, SyntaxError...
        limit = system_limit(error)
        if limit is not None:
            raise limit from error
        reason = _cut_file(name) or _reason(error)
        code = "truncated_picture" if _TORN.search(reason) else "unreadable_picture"
        raise ItemError(code, f"{name}: {reason}") from error


def _cut_file(name: Opened) -> str | None:
    """The reason if a WebP, AVIF or HEIC file is shorter than it says: their readers give no reason of their own."""
    try:
        with open_picture(name) as file:
            head, size = file.read(12), file.seek(0, os.SEEK_END)
            wanted = heif.stated_length(file) if head[4:8] == b"ftyp" else 8 + int.from_bytes(head[4:8], "little")
    except (OSError, ItemError):
        return None
    is_known = head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:] == b"WEBP")
    return f"the file is truncated: {size} of {wanted} bytes" if is_known and size < wanted else None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    if text == _PILLOW_REFUSES:
        return "its header is damaged or cut off"
    return " ".join(text.split()) if text else type(error).__name__  # on one line
