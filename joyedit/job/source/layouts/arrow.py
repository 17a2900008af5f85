"""Datasets that `save_to_disk` of Hugging Face wrote: Arrow files, whose rows are read where they lie."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from joyedit.errors import Problem, os_reason
from joyedit.job.contained import ROW, ContainedPicture, Slice
from joyedit.job.containers.arrow_rows import ArrowBatches, BrokenArrowError
from joyedit.job.containers.files import absolute, joined, stamp_of
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader, Row, Rows
from joyedit.job.spec import Stamp

_REMEDY = "copy or write the dataset again, or leave this file out with --exclude"
_LET_GO = 64 << 20


class ArrowReader(Reader):
    """Arrow files of one schema."""

    format = "Arrow"

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        for name in self.files:
            path = joined(self.root, name)
            try:
                yield from _rows_of(name, path, stamp_of(path), wanted)
            except BrokenArrowError as error:
                raise BrokenDatasetError(Problem(f"this Arrow file: {error}", _REMEDY).at(path)) from error
            except OSError as error:
                raise BrokenDatasetError(Problem(f"cannot read this file: {os_reason(error)}").at(path)) from error

    def columns(self) -> list[str]:
        return [] if not self.files else list(self._schema().names)

    def picture_columns(self) -> frozenset[str]:
        return frozenset() if not self.files else frozenset(picture_columns_of(self._schema()))

    def _schema(self) -> Any:
        path = joined(self.root, self.files[0])
        try:
            return ArrowBatches(path).schema
        except (BrokenArrowError, OSError) as error:
            raise BrokenDatasetError(Problem(f"this Arrow file: {error}", _REMEDY).at(path)) from error


def _rows_of(name: str, path: str, stamp: Stamp, wanted: Collection[str] | None) -> Rows:
    opened = ArrowBatches(path)
    pictures = picture_columns_of(opened.schema)
    texts = [one for one in opened.schema.names if one not in pictures and (wanted is None or one in wanted)]
    stem, first, read = os.path.splitext(name)[0], 0, 0
    for batch in opened.batches():
        columns = {one: batch.column(one).to_pylist() for one in texts}
        places = {one: opened.slices(batch.column(one)) for one in pictures}
        names = {one: _paths(batch.column(one)) for one in pictures}
        for number in range(batch.num_rows):
            row = first + number
            values: dict[str, Any] = {one: column[number] for one, column in columns.items()}
            for one in pictures:
                values[one] = _picture(path, f"{ROW}{row}.{one}", places[one][number], names[one][number], stamp)
            yield Row(f"{path}#{ROW}{row}", f"{stem}-{row:06d}", values, base=os.path.dirname(name))
        first += batch.num_rows
        read += batch.nbytes
        if read > _LET_GO:
            opened.let_go()
            read = 0


def picture_columns_of(schema: Any) -> list[str]:
    """The columns that hold pictures: bytes, structs with bytes, or lists of these."""
    import pyarrow as pa

    found = []
    for field in schema:
        kind = field.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            found.append(field.name)
    return found


def _paths(array: Any) -> list[Any]:
    """What each row says of the names of its pictures."""
    import pyarrow as pa

    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        inner, counts, at = _paths(array.flatten()), array.value_lengths().to_pylist(), 0
        made: list[Any] = []
        for count in counts:
            made.append(inner[at : at + (count or 0)])
            at += count or 0
        return made
    if pa.types.is_struct(array.type) and array.type.get_field_index("path") >= 0:
        found: list[Any] = array.field("path").to_pylist()
        return found
    return [None] * len(array)


def _picture(path: str, inner: str, at: Any, name: Any, stamp: Stamp) -> Any:
    if isinstance(at, list):
        names = name if isinstance(name, list) and len(name) == len(at) else [None] * len(at)
        return [
            _picture(path, f"{inner}.{number}", one, told, stamp)
            for number, (one, told) in enumerate(zip(at, names, strict=True))
        ]
    if not isinstance(at, Slice):
        return name
    ending = os.path.splitext(name)[1].lower() if isinstance(name, str) else ""
    return ContainedPicture(absolute(path), inner, at, stamp, ending if len(ending) < 8 else "")
