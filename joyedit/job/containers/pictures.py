"""The bytes of contained pictures, and the pictures that addresses name."""

from __future__ import annotations

import os
import re

from joyedit.errors import ItemError, JoyeditError, os_reason, system_limit
from joyedit.job.contained import ROW, Cell, ContainedPicture, Slice, is_url
from joyedit.job.containers.arrow_rows import BrokenArrowError, shared_rows
from joyedit.job.containers.files import is_file, open_file, stamp_of
from joyedit.job.containers.parquet_cells import open_parquet, shared_cells
from joyedit.job.containers.tar_members import shared_index
from joyedit.job.spec import Stamp

MOST_BYTES = 1 << 30
"""A picture of more bytes than these is not read into memory."""
TARS = (".tar",)
PARQUET = (".parquet", ".pq")
ARROW = (".arrow",)
_ADDRESS = re.compile(r"(.+?\.(?:tar|parquet|pq|arrow))#(.+)", re.DOTALL | re.IGNORECASE)
_ROW = re.compile(rf"{ROW}([0-9]{{1,15}})\.(.+?)(?:\.([0-9]{{1,6}}))?", re.DOTALL)


def read_contained(picture: ContainedPicture) -> bytes:
    """The bytes of a picture. Raises ItemError, also where its file is another one than at the check; and OSError."""
    stamp = stamp_of(picture.file)
    if picture.stamp is not None and tuple(stamp) != picture.stamp:
        raise ItemError("picture_changed", f"{picture}: the file that holds it has changed since it was listed")
    if isinstance(picture.at, Cell):
        data = _of_cell(picture, picture.at)
    else:
        at = picture.at or Slice(0, stamp.size)
        if at.length > MOST_BYTES:
            raise ItemError("picture_too_large", f"{picture}: {at.length >> 20} MiB are more than joyedit reads")
        with open_file(picture.file) as file:
            file.seek(at.offset)
            data = file.read(at.length)
        if len(data) < at.length:
            raise ItemError("truncated_picture", f"{picture}: the file ends after {len(data)} of {at.length} bytes")
    if not data:
        raise ItemError("empty_picture", f"{picture}: there are no bytes")
    return data


def _of_cell(picture: ContainedPicture, cell: Cell) -> bytes | None:
    try:
        return shared_cells.read(picture.file, cell)
    except (JoyeditError, MemoryError):
        raise
    except Exception as error:  # pyarrow raises OSError, ValueError and classes of its own for a broken file
        limit = system_limit(error)
        if limit is not None:
            raise limit from error
        reason = os_reason(error) if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ItemError("unreadable_picture", f"{picture}: the table cannot be read here: {reason[:300]}") from error


def stamp_of_contained(picture: ContainedPicture) -> Stamp:
    """The stamp of the file that holds the picture. Raises OSError."""
    return stamp_of(picture.file)


def contained_at(address: str) -> ContainedPicture | None:
    """The picture that an address names; None for what is no address of a file that is there, or names nothing in it.

    A file that really has such a name is no address.
    """
    told = _ADDRESS.fullmatch(address) if "#" in address else None
    if told is None:
        return ContainedPicture(address, "", None) if is_url(address) else None
    file, inner = told.groups()
    try:
        if (not is_url(file) and os.path.lexists(address)) or not is_file(file):
            return None
        file = file if is_url(file) else os.path.abspath(file)
        at = _place(file, inner, os.path.splitext(file)[1].lower())
        return None if at is None else ContainedPicture(file, inner, at, tuple(stamp_of(file)))
    except (OSError, ValueError, JoyeditError, BrokenArrowError):
        return None


def _place(file: str, inner: str, ending: str) -> Slice | Cell | None:
    if ending in TARS:
        return shared_index.find(file, inner)
    told = _ROW.fullmatch(inner)
    if told is None:
        return None
    row, column, index = int(told[1]), told[2], None if told[3] is None else int(told[3])
    if ending in ARROW:
        return shared_rows.find(file, row, column, index)
    with open_file(file) as handle:
        parquet = open_parquet(handle)
    metadata, names = parquet.metadata, parquet.schema_arrow.names
    if column not in names and index is not None:  # the name of the column ends like a place in a list
        column, index = f"{column}.{told[3]}", None
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < first + rows:
            return Cell(group, row - first, column, index) if column in names else None
        first += rows
    return None
