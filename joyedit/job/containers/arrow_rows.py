"""Rows of Arrow files (`save_to_disk` of Hugging Face datasets): the batches, and where the bytes of pictures are.

An Arrow file holds its values as they are, so the bytes of a picture are one slice of the file. The file is mapped
into memory to find it, and read like any other after that.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.contained import Slice, is_url
from joyedit.job.containers.files import open_file, stamp_of
from joyedit.job.spec import Stamp

NEEDS = 'Arrow files need an extra: pip install "joyedit[datasets]"'
_KEPT = 2
_FILE_MARK = b"ARROW1"


class BrokenArrowError(Exception):
    """The file is no whole Arrow file. The text says what is wrong, without the name of the file."""


class ArrowBatches:
    """The record batches of one file. `schema` is theirs. Raises UsageError, OSError, BrokenArrowError."""

    def __init__(self, path: str) -> None:
        try:
            import pyarrow as pa
        except ImportError as error:
            raise UsageError(NEEDS) from error
        if is_url(path):
            raise BrokenArrowError("a remote Arrow file is not read (download the dataset, or take its Parquet files)")
        with open_file(path) as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise BrokenArrowError("it is empty") from error
        self._whole = pa.py_buffer(self._map)
        self._pa = pa
        is_file = self._map[: len(_FILE_MARK)] == _FILE_MARK
        try:
            source = pa.BufferReader(self._whole)
            self._reader: Any = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            self.schema: Any = self._reader.schema
        except (pa.ArrowException, OSError) as error:
            raise BrokenArrowError(_reason(error)) from error
        self._is_file = is_file

    def batches(self) -> Iterator[Any]:
        """Each batch once; its values stay in the file. Raises BrokenArrowError where the file ends too early."""
        number = 0
        try:
            while True:
                if self._is_file:
                    if number >= self._reader.num_record_batches:
                        return
                    yield self._reader.get_batch(number)
                else:
                    yield self._reader.read_next_batch()
                number += 1
        except StopIteration:
            if self._map[-8:].count(0) < 4:
                raise BrokenArrowError("it ends too early: its end mark is missing") from None
        except (self._pa.ArrowException, OSError) as error:
            raise BrokenArrowError(_reason(error)) from error

    def slices(self, array: Any) -> list[Any]:
        """Where each picture of a column lies in the file: a Slice, None for none, or a list of these.

        Raises BrokenArrowError.
        """
        pa = self._pa
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            inner = self.slices(array.values)
            ends = self._ends(array, pa.types.is_large_list(array.type))
            nulls = array.is_null().to_pylist()
            return [None if nulls[n] else inner[ends[n] : ends[n + 1]] for n in range(len(array))]
        array = array.field("bytes") if pa.types.is_struct(array.type) else array
        data = array.buffers()[2]
        if data is None:
            return [None] * len(array)
        base = data.address - self._whole.address
        if not 0 <= base <= self._whole.size - data.size:
            raise BrokenArrowError("it is compressed (save it without compression)")
        ends = self._ends(array, pa.types.is_large_binary(array.type))
        nulls = array.is_null().to_pylist()
        return [None if nulls[n] else Slice(base + ends[n], ends[n + 1] - ends[n]) for n in range(len(array))]

    def _ends(self, array: Any, is_large: bool) -> list[int]:
        """Where the values of an array of any length begin, and the last one ends."""
        kind = self._pa.int64() if is_large else self._pa.int32()
        offsets = array.buffers()[1]
        found: list[int] = self._pa.Array.from_buffers(
            kind, len(array) + 1, [None, offsets], offset=array.offset
        ).to_pylist()
        return found

    def let_go(self) -> None:
        """Give the memory of the pages that were read back to the system; they can be read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class ArrowIndex:
    """Where pictures of a few files are, by row and column. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Stamp], tuple[ArrowBatches, list[tuple[int, Any]]]] = OrderedDict()

    def find(self, path: str, row: int, column: str, index: int | None) -> Slice | None:
        """The place of a picture of a cell; None if there is none. Raises OSError, UsageError, BrokenArrowError."""
        with self._lock:
            opened, batches = self._opened(path)
            for first, batch in batches:
                if first <= row < first + batch.num_rows and column in batch.schema.names:
                    found = opened.slices(batch.column(column))[row - first]
                    if index is not None:
                        found = found[index] if isinstance(found, list) and index < len(found) else None
                    return found if isinstance(found, Slice) else None
        return None

    def _opened(self, path: str) -> tuple[ArrowBatches, list[tuple[int, Any]]]:
        key = path, stamp_of(path)
        if key not in self._kept:
            opened, first = ArrowBatches(path), 0
            batches: list[tuple[int, Any]] = []
            for batch in opened.batches():
                batches.append((first, batch))
                first += batch.num_rows
            self._kept[key] = opened, batches
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


shared_rows = ArrowIndex()
