"""Cells of Parquet files by their place, without a whole row group in memory.

A column can only be read from the beginning of its row group. Items come nearly in the order of the rows, so a few
places in columns stay open (`_Cursor`), and the last pictures that were passed stay in memory, within `MOST_KEPT`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

from joyedit.errors import UsageError
from joyedit.job.contained import Cell
from joyedit.job.containers.files import open_file, stamp_of
from joyedit.job.spec import Stamp

NEEDS = 'Parquet needs an extra: pip install "joyedit[parquet]"'

MOST_KEPT = 64 << 20
"""Bytes of pictures that are kept of all files, with what each takes beside its own bytes."""
_ENTRY = 512
"""Bytes of a kept picture's key and place: for small pictures that is most of it."""
_MOST_OPEN = 96 << 20
"""Bytes that all open places of one file may take; one may be open in any case."""
_CURSORS = 4
_FILES = 4
_BUFFER = 1 << 20
_BATCH = 4 << 20
_ROWS = 256


def parquet_module() -> Any:
    """`pyarrow.parquet`. Raises UsageError that names the extra."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(NEEDS) from error
    return pyarrow.parquet


def open_parquet(file: BinaryIO) -> Any:
    """A Parquet file whose column chunks are read piece by piece. Raises an exception of pyarrow for a broken one."""
    return parquet_module().ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def batch_rows(parquet: Any, group: int, places: list[int]) -> int:
    """How many rows to read at once, so that these leaf columns of a row group take about `_BATCH` bytes."""
    told = parquet.metadata.row_group(group)
    total = sum(int(told.column(place).total_uncompressed_size) for place in places)
    return max(1, min(_ROWS, _BATCH * max(int(told.num_rows), 1) // max(total, 1)))


def leaves_of(parquet: Any, column: str) -> list[int]:
    """The numbers of the leaf columns of a column."""
    return [number for number, name in enumerate(columns_of_leaves(parquet)) if name == column]


def columns_of_leaves(parquet: Any) -> list[str]:
    """The column of each leaf column. Paths of leaves do not tell it: the name of a column may have dots itself."""
    return [field.name for field in parquet.schema_arrow for _ in range(_leaves_in(field.type))]


def _leaves_in(kind: Any) -> int:
    import pyarrow as pa

    if pa.types.is_map(kind):
        return _leaves_in(kind.key_type) + _leaves_in(kind.item_type)
    if pa.types.is_struct(kind):
        return sum(_leaves_in(field.type) for field in kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return _leaves_in(kind.value_type) if is_list else 1


def _pictures_in(value: object) -> list[tuple[int | None, bytes]]:
    """The pictures of a cell, each with its place in the list if the cell holds one: bytes, or structs with `bytes`."""
    if isinstance(value, list):
        return [(number, data) for number, one in enumerate(value) for _, data in _pictures_in(one)]
    if isinstance(value, dict):
        value = value.get("bytes")
    return [(None, value)] if isinstance(value, bytes) else []


class _Cursor:
    """An open place in a column of a row group. `next` is the row that comes next, `cost` its bytes in memory."""

    def __init__(self, parquet: Any, group: int, column: str) -> None:
        self.group, self.column = group, column
        self.next = 0
        leaves = leaves_of(parquet, column)
        told = parquet.metadata.row_group(group)
        self.cost = sum(told.column(place).total_uncompressed_size for place in leaves)
        rows = batch_rows(parquet, group, leaves)
        paths = [parquet.metadata.schema.column(place).path for place in leaves]
        self._batches: Iterator[Any] = parquet.iter_batches(
            batch_size=rows, row_groups=[group], columns=paths, use_threads=False
        )

    def batch(self) -> list[tuple[Cell, bytes]]:
        """The pictures of the next few rows; `next` stays where it is at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return []
        values = batch.column(self.column).to_pylist()  # beside `a` there may be a column `a.b`
        first, self.next = self.next, self.next + len(values)
        return [
            (Cell(self.group, number, self.column, index), data)
            for number, value in enumerate(values, first)
            for index, data in _pictures_in(value)
        ]


class _File:
    """One open Parquet file. Its lock holds one reader at a time."""

    def __init__(self, path: str, stamp: Stamp) -> None:
        self.stamp = stamp
        self.lock = threading.Lock()
        self.handle = open_file(path)
        try:
            self.parquet = open_parquet(self.handle)
        except BaseException:
            self.handle.close()
            raise
        self.cursors: list[_Cursor] = []  # the one that was used last is the last one

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.handle.close()

    def cursor(self, cell: Cell) -> _Cursor:
        """The open place that is nearest before a cell, or a new one."""
        fitting = [
            one for one in self.cursors if (one.group, one.column) == (cell.group, cell.column) and one.next <= cell.row
        ]
        if fitting:
            found = max(fitting, key=lambda one: one.next)
            self.cursors.remove(found)
        else:
            found = _Cursor(self.parquet, cell.group, cell.column)
            while self.cursors and (
                len(self.cursors) >= _CURSORS or found.cost + sum(one.cost for one in self.cursors) > _MOST_OPEN
            ):
                self.cursors.pop(0)
        self.cursors.append(found)
        return found


_Key = tuple[str, Stamp, Cell]


class ParquetCells:
    """The pictures of Parquet files by file and cell. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._held = 0

    def read(self, path: str, cell: Cell) -> bytes | None:
        """The bytes of a cell; None if it holds none. Raises OSError, UsageError without pyarrow, or nearly anything
        for a broken file.
        """
        stamp = stamp_of(path)
        key = path, stamp, cell
        found = self._known(key)
        if found is not None:
            return found
        file = self._file(path, stamp)
        with file.lock:
            found = self._known(key)  # another thread may have passed it meanwhile
            if found is not None:
                return found
            cursor = file.cursor(cell)
            while cursor.next <= cell.row:
                first = cursor.next
                batch = cursor.batch()
                if cursor.next == first:
                    file.cursors.remove(cursor)
                    return None
                for passed, data in batch:
                    self._keep((path, stamp, passed), data)
            return dict(batch).get(cell)

    def _known(self, key: _Key) -> bytes | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _keep(self, key: _Key, data: bytes) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = data
            self._held += _ENTRY + len(data)
            while self._held > MOST_KEPT and len(self._kept) > 1:
                self._held -= _ENTRY + len(self._kept.popitem(last=False)[1])

    def _file(self, path: str, stamp: Stamp) -> _File:
        with self._lock:
            known = self._files.get(path)
            if known is not None and known.stamp == stamp:
                self._files.move_to_end(path)
                return known
        opened = _File(path, stamp)
        with self._lock:  # a file that is pushed out is closed when its last reader is done
            known = self._files.get(path)
            if known is not None and known.stamp == stamp:
                return known
            self._files[path] = opened
            while len(self._files) > _FILES:
                self._files.popitem(last=False)
            return opened


shared_cells = ParquetCells()
"""Those of the whole process: the check of an item and its reading are not far apart."""
