"""BigTIFF with the highest byte first, as a plain TIFF: Pillow and libtiff's headers know the other order only.

The directories are written anew behind the end of the file, with offsets of four bytes. Pixels stay where they are.
"""

from __future__ import annotations

import io
import os
import struct
from typing import IO, cast

from joyedit.job.pictures.tiff import MOST_PIECES, TYPE_BYTES

MARK = b"MM\0+"
_MOST_PAGES = 1000
_MOST_ENTRIES = 65_535
_SHORTER = {16: (4, "Q", "I"), 17: (9, "q", "i"), 18: (4, "Q", "I")}
"""Types of 8 bytes -> the type of 4, and how each is packed."""
_DIRECTORIES = (330, 34665, 34853, 40965)
"""Tags that lead to directories of their own, which the pixels do not need."""


def as_plain_tiff(file: IO[bytes]) -> IO[bytes]:
    """The same picture as a TIFF with offsets of four bytes. Raises ValueError if it is broken or too long."""
    end = file.seek(0, os.SEEK_END)
    if end >= 1 << 31:
        raise ValueError("a BigTIFF with the highest byte first and more than 2 GiB cannot be read")
    start = end + end % 2
    tail = bytearray(end % 2)
    (offset,) = struct.unpack(">Q", _read(file, 8, 8))
    seen: set[int] = set()
    link = None  # where the offset of the next directory stands in the tail
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        try:
            entries, offset = _directory(file, offset)
        except ValueError:
            if link is None:
                raise
            break  # the pages before it are whole
        if link is not None:
            tail[link : link + 4] = struct.pack(">I", end + len(tail))
        link = _write(tail, entries, end)
    if link is None:
        raise ValueError("its first directory is not there")
    file.seek(0)
    return cast("IO[bytes]", _WithTail(file, b"MM\0*" + struct.pack(">I", start), bytes(tail), end))


def _read(file: IO[bytes], place: int, length: int) -> bytes:
    file.seek(place)
    data = file.read(length)
    if len(data) < length:
        raise ValueError("a directory of the file is truncated")
    return data


_Entry = tuple[int, int, int, bytes]
"""Tag, type and count, and the value: 4 bytes, or more that still need a place."""


def _directory(file: IO[bytes], place: int) -> tuple[list[_Entry], int]:
    """The entries with shorter types, and the place of the next directory. Raises ValueError."""
    if place >= 1 << 32:
        raise ValueError("a directory of the file is truncated")
    (count,) = struct.unpack(">Q", _read(file, place, 8))
    if not 0 < count <= _MOST_ENTRIES:
        raise ValueError("its directory makes no sense")
    body = _read(file, place + 8, 20 * count + 8)
    entries: list[_Entry] = []
    for number in range(count):
        tag, kind, values, field = struct.unpack_from(">HHQ8s", body, 20 * number)
        length = values * TYPE_BYTES.get(kind, 0)
        if tag in _DIRECTORIES or not 0 < length < 1 << 32:
            continue
        if kind in _SHORTER:
            if values > MOST_PIECES:
                continue
            data = field[:length] if length <= 8 else _read(file, struct.unpack(">Q", field)[0], length)
            kind, long, short = _SHORTER[kind]
            try:
                field = struct.pack(f">{values}{short}", *struct.unpack(f">{values}{long}", data))
            except struct.error:
                raise ValueError("an offset of the file leads behind its end") from None
        elif length > 8:  # the place of the values, in four bytes
            (where,) = struct.unpack(">Q", field)
            if where >= 1 << 32:
                continue
            field = struct.pack(">I", where)
        else:
            field = field[:length]
        entries.append((tag, kind, values, field.ljust(4, b"\0")))
    return entries, struct.unpack_from(">Q", body, 20 * count)[0]


def _write(tail: bytearray, entries: list[_Entry], end: int) -> int:
    """Appends a directory; gives the place in the tail where the offset of the next one belongs."""
    more = bytearray()
    after = end + len(tail) + 2 + 12 * len(entries) + 4
    tail += struct.pack(">H", len(entries))
    for tag, kind, values, field in entries:
        if len(field) > 4:
            place = after + len(more)
            more += field + bytes(len(field) % 2)
            field = struct.pack(">I", place)
        tail += struct.pack(">HHI4s", tag, kind, values, field)
    link = len(tail)
    tail += bytes(4) + more
    return link


class _WithTail(io.RawIOBase):
    """A file with another beginning, and with more behind its end."""

    def __init__(self, file: IO[bytes], head: bytes, tail: bytes, end: int) -> None:
        super().__init__()
        self._file, self._head, self._tail, self._end = file, head, tail, end
        self._here = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._here

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._here, os.SEEK_END: self._end + len(self._tail)}[whence]
        self._here = max(0, base + place)
        return self._here

    def read(self, size: int = -1) -> bytes:
        whole = self._end + len(self._tail)
        stop = whole if size < 0 else min(whole, self._here + size)
        parts = []
        while self._here < stop:
            if self._here < len(self._head):
                data = self._head[self._here : stop]
            elif self._here < self._end:
                self._file.seek(self._here)
                data = self._file.read(min(stop, self._end) - self._here)
            else:
                data = self._tail[self._here - self._end : stop - self._end]
            if not data:
                break  # the file became shorter
            parts.append(data)
            self._here += len(data)
        return b"".join(parts)
