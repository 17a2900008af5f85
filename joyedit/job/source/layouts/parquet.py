"""Parquet files: rows in small batches, with the pictures left in the file.

A column of pictures is a struct `{bytes, path}` (as Hugging Face writes them), plain bytes, or a list of these. Of such
a column only the path is read here, and whether there is a picture at all; `containers/parquet_cells.py` reads the
bytes when they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from joyedit.errors import JoyeditError, Problem, os_reason
from joyedit.job.contained import ROW, Cell, ContainedPicture
from joyedit.job.containers.files import absolute, joined, open_file, stamp_of
from joyedit.job.containers.parquet_cells import batch_rows, columns_of_leaves, open_parquet
from joyedit.job.source.layouts.rows import BrokenDatasetError, Reader, Row, Rows
from joyedit.job.spec import Stamp

_REMEDY = "download or write this file again, or leave it out with --exclude"


class _Column:
    """A column of pictures: its leaf columns of bytes and paths, by their numbers (-1: there is none)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes = self.path = -1
        self.is_list = False


class ParquetReader(Reader):
    """Parquet files of one schema."""

    format = "Parquet"

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        for name in self.files:
            path = joined(self.root, name)
            with _broken(path), open_file(path) as file:
                yield from self._of_file(name, path, open_parquet(file), stamp_of(path), wanted)

    def columns(self) -> list[str]:
        found: dict[str, None] = {}
        for name in self.files:
            with _broken(path := joined(self.root, name)), open_file(path) as file:
                found |= dict.fromkeys(open_parquet(file).schema_arrow.names)
        return list(found)

    def picture_columns(self) -> frozenset[str]:
        found: set[str] = set()
        for name in self.files[:1]:
            with _broken(path := joined(self.root, name)), open_file(path) as file:
                found |= picture_columns(open_parquet(file)).keys()
        return frozenset(found)

    def count(self) -> int:
        total = 0
        for name in self.files:
            with _broken(path := joined(self.root, name)), open_file(path) as file:
                total += int(open_parquet(file).metadata.num_rows)
        return total

    def _of_file(self, name: str, path: str, parquet: Any, stamp: Stamp, wanted: Collection[str] | None) -> Rows:
        pictures = picture_columns(parquet)
        texts = [one for one in parquet.schema_arrow.names if one not in pictures and (wanted is None or one in wanted)]
        first, stem = 0, os.path.splitext(name)[0]
        for group in range(parquet.metadata.num_row_groups):
            row = 0
            for batch in _batches(parquet, group, texts, list(pictures.values())):
                plain = {one: batch[one] for one in texts}
                for number in range(batch["\0rows"]):
                    values = {one: column[number] for one, column in plain.items()}
                    at = first + row
                    for column in pictures.values():
                        held = batch[column.name][number]
                        values[column.name] = _picture(path, at, Cell(group, row, column.name), held, stamp)
                    yield Row(f"{path}#{ROW}{at}", f"{stem}-{at:06d}", values, base=os.path.dirname(name))
                    row += 1
            first += row


def picture_columns(parquet: Any) -> dict[str, _Column]:
    """The columns that hold pictures, by name."""
    import pyarrow as pa

    found: dict[str, _Column] = {}
    for field in parquet.schema_arrow:
        kind, column = field.type, _Column(field.name)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind, column.is_list = kind.value_type, True
        if _is_bytes(kind) or (
            pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
        ):
            found[field.name] = column
    schema = parquet.metadata.schema
    for number, top in enumerate(columns_of_leaves(parquet)):
        if top in found:
            rest = schema.column(number).path[len(top) + 1 :].split(".")
            if rest[-1] == "path":
                found[top].path = number
            elif rest[-1] in ("", "bytes", "element", "item"):
                found[top].bytes = number
    return found


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _batches(parquet: Any, group: int, texts: list[str], pictures: list[_Column]) -> Iterator[dict[str, Any]]:
    """The batches of a row group as lists by column, and the number of their rows.

    Of pictures only what `_held` needs is read.
    """
    schema = parquet.metadata.schema
    leaves = [number for number, top in enumerate(columns_of_leaves(parquet)) if top in texts]
    held = {column.name: _leaves(parquet, group, column) for column in pictures}
    read = sorted({*leaves, *(n for needed in held.values() for n in needed)})
    if not read:  # pictures alone, all of them there
        for _ in range(parquet.metadata.row_group(group).num_rows):
            yield {column.name: [True] for column in pictures} | {"\0rows": 1}
        return
    rows = max(1, min(1024, 4 * batch_rows(parquet, group, read)))
    names = [schema.column(n).path for n in read]
    for batch in parquet.iter_batches(batch_size=rows, row_groups=[group], columns=names, use_threads=False):
        made: dict[str, Any] = {one: batch.column(one).to_pylist() for one in texts}
        for column in pictures:
            needed = held[column.name]
            if not needed:
                made[column.name] = [True] * batch.num_rows
            else:
                made[column.name] = _held(batch.column(column.name), has_bytes=column.bytes in needed)
        yield made | {"\0rows": batch.num_rows}


def _leaves(parquet: Any, group: int, column: _Column) -> set[int]:
    """The leaf columns to read for the paths of pictures, and for whether they are there."""
    told = parquet.metadata.row_group(group)
    statistics = told.column(column.bytes).statistics
    nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
    needs_bytes = nulls != 0 or (column.is_list and column.path < 0)  # only they tell how many there are
    return ({column.bytes} if needs_bytes else set()) | ({column.path} if column.path >= 0 else set())


def _held(array: Any, *, has_bytes: bool) -> list[Any]:
    """For each row: True for bytes without a name, their name, a tuple with a path for a picture in a file, None for
    no picture; or a list of these. Without `has_bytes` all rows have bytes.
    """
    import pyarrow as pa

    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        inner = _held(array.flatten(), has_bytes=has_bytes)
        counts = array.value_lengths().to_pylist()
        made, at = [], 0
        for count in counts:
            made.append(None if count is None else inner[at : at + count])
            at += count or 0
        return made
    if not pa.types.is_struct(array.type):
        return array.is_valid().to_pylist() if has_bytes else [True] * len(array)
    names = [None] * len(array)
    if array.type.get_field_index("path") >= 0:
        names = array.field("path").to_pylist()
    there = [True] * len(array)
    if has_bytes:
        there = array.field("bytes").is_valid().to_pylist()
    valid = array.is_valid().to_pylist()
    return [
        None if not valid[n] else (names[n] or True) if there[n] else (names[n],) if names[n] else None
        for n in range(len(array))
    ]


def _picture(path: str, row: int, cell: Cell, held: Any, stamp: Stamp) -> Any:
    """The value of a picture's column: a picture, the path of a file, None, or a list of these."""
    if isinstance(held, list):
        return [_picture(path, row, cell._replace(nth=number), one, stamp) for number, one in enumerate(held)]
    if not held:
        return None
    if isinstance(held, tuple):
        return held[0]
    inner = f"{ROW}{row}.{cell.column}" + ("" if cell.nth is None else f".{cell.nth}")
    ending = os.path.splitext(held)[1].lower() if isinstance(held, str) else ""
    return ContainedPicture(absolute(path), inner, cell, stamp, ending if len(ending) < 8 else "")


class _broken:  # noqa: N801 (a context manager)
    """Turns what pyarrow raises for a damaged file into one error that names it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (JoyeditError, MemoryError, BrokenDatasetError)):
            return
        if not isinstance(error, Exception):
            return
        reason = os_reason(error) if isinstance(error, OSError) else " ".join(str(error).split())
        problem = Problem(f"this Parquet file cannot be read: {reason[:300]}", _REMEDY)
        raise BrokenDatasetError(problem.at(self._name)) from error
