"""Changes in an EXIF block that leave everything else as it is, byte by byte.

Cameras put data into EXIF that only their own programs understand, with places counted from the beginning of the
block. So the block is not written anew: what must go is overwritten with zeros, and the two changed tables are put
behind its end. The format is that of TIFF 6.0, with the tags of Exif 2.32.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Literal, NamedTuple

from joyedit.job.sizes import Size

_EXIF, _PLACE = 0x8769, 0x8825
_ORIENTATION, _WIDTH, _HEIGHT, _XMP, _THUMBNAIL, _THUMBNAIL_LENGTH = 0x0112, 0x0100, 0x0101, 0x02BC, 0x0201, 0x0202
_SHOWN_WIDTH, _SHOWN_HEIGHT, _COMMENT = 0xA002, 0xA003, 0x9286
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SHORT, _LONG, _UNDEFINED = 3, 4, 7
_MOST_ENTRIES = 2000
_PLAIN = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
"""A block with an empty table."""


class _Entry(NamedTuple):
    tag: int
    type: int
    number: int
    value: bytes
    """The four bytes of the table: the value, or its place."""


class ExifBlock:
    """An EXIF block that is changed step by step; `bytes()` of it is the result. Not safe across threads."""

    def __init__(self, data: bytes = b"") -> None:
        """`data` begins with II or MM; empty stands for a new block. Raises ValueError if it is damaged."""
        self._data = bytearray(data or _PLAIN)
        if bytes(self._data[:4]) not in (b"II*\0", b"MM\0*"):
            raise ValueError("it is no EXIF block")
        self._order: Literal["<", ">"] = "<" if self._data[:2] == b"II" else ">"
        self._main, self._thumbnail = self._take_table(self._number("I", 4))
        pointer = self._pointer(self._main, _EXIF)
        self._exif: dict[int, _Entry] = {} if pointer is None else self._take_table(pointer)[0]

    @property
    def comment(self) -> str:
        """The user's comment, if it is written in one of the two usual ways; else an empty text."""
        entry = self._exif.get(_COMMENT)
        held = b"" if entry is None else self._value(entry)
        if held[:8] == b"UNICODE\0":
            text = held[8:].decode("utf-16-le" if self._order == "<" else "utf-16-be", "replace")
        elif held[:8] in (b"ASCII\0\0\0", bytes(8)):
            text = held[8:].decode("utf-8", "replace")
        else:
            return ""
        return text.strip("\0 \n")

    def set_upright(self, size: Size) -> None:
        """Say that the picture is upright and has this (height, width), where the block says anything of that.

        The thumbnail goes: it shows the picture before the edit.
        """
        if _ORIENTATION in self._main:
            self._main[_ORIENTATION] = self._numbered(_ORIENTATION, 1)
        for table, tag, side in (
            (self._main, _WIDTH, size[1]),
            (self._main, _HEIGHT, size[0]),
            (self._exif, _SHOWN_WIDTH, size[1]),
            (self._exif, _SHOWN_HEIGHT, size[0]),
        ):
            if tag in table:
                table[tag] = self._numbered(tag, side)
        self._wipe(self._main.pop(_XMP, None))  # a result has its own
        self._drop_thumbnail()

    def drop_place(self) -> None:
        """Take out where the picture was taken (all of the GPS table)."""
        pointer = self._pointer(self._main, _PLACE)
        self._main.pop(_PLACE, None)
        if pointer is not None:
            for entry in self._take_table(pointer)[0].values():
                self._wipe(entry)

    def set_comment(self, text: bytes) -> None:
        """The user's comment, as ASCII."""
        self._wipe(self._exif.get(_COMMENT))
        held = b"ASCII\0\0\0" + text
        place = self.append(held)
        self._exif[_COMMENT] = _Entry(_COMMENT, _UNDEFINED, len(held), struct.pack(self._order + "I", place))

    @property
    def order(self) -> Literal["<", ">"]:
        """The byte order, as `struct` and numpy write it."""
        return self._order

    def drop(self, tag: int) -> None:
        """Take out an entry of the main table, if it is there."""
        self._wipe(self._main.pop(tag, None))

    def drop_orientation(self) -> None:
        """Take out the orientation: some files say it elsewhere."""
        self.drop(_ORIENTATION)

    def set(self, tag: int, kind: int, count: int, value: bytes) -> None:
        """An entry of the main table: `count` values of this type of TIFF, packed in the block's byte order."""
        self.drop(tag)
        if len(value) > 4:
            value = struct.pack(self._order + "I", self.append(value))
        self._main[tag] = _Entry(tag, kind, count, value.ljust(4, b"\0"))

    def append(self, value: bytes) -> int:
        """Put bytes behind the end of the block; gives their place."""
        self._data += bytes(len(self._data) % 2)
        self._data += value
        return len(self._data) - len(value)

    def __bytes__(self) -> bytes:
        """The block, without a head. It has no bytes if no tag is left."""
        tables = self._tables()
        return bytes(self._data + tables) if tables else b""

    def write(self, file: BinaryIO) -> None:
        """Write the block, which has a tag."""
        tables = self._tables()
        file.write(self._data)
        file.write(tables)

    def _tables(self) -> bytes:
        """What stands behind the values: the changed tables; nothing if no tag is left."""
        main = dict(self._main)
        main.pop(_EXIF, None)
        end = len(self._data)
        tables = bytearray(end % 2)
        if self._exif:
            main[_EXIF] = _Entry(_EXIF, _LONG, 1, struct.pack(self._order + "I", end + len(tables)))
            tables += self._table(self._exif)
        if not main:
            return b""
        struct.pack_into(self._order + "I", self._data, 4, end + len(tables))
        return bytes(tables + self._table(main))

    def _table(self, entries: dict[int, _Entry]) -> bytes:
        rows = [struct.pack(self._order + "HHI4s", *entries[tag]) for tag in sorted(entries)]
        return struct.pack(self._order + "H", len(rows)) + b"".join(rows) + bytes(4)

    def _number(self, kind: str, place: int) -> int:
        try:
            (number,) = struct.unpack_from(self._order + kind, self._data, place)
        except struct.error:
            raise ValueError("a table lies outside of the block") from None
        return int(number)

    def _take_table(self, place: int) -> tuple[dict[int, _Entry], int]:
        """The entries of a table, and the place of the next table (0: none); its bytes are overwritten."""
        count = self._number("H", place)
        end = place + 2 + 12 * count
        if count > _MOST_ENTRIES or end > len(self._data) or place < 8:
            raise ValueError("a table is damaged")
        rows = struct.iter_unpack(self._order + "HHI4s", self._data[place + 2 : end])
        entries = {row[0]: _Entry(*row) for row in rows}
        following = self._number("I", end) if end + 4 <= len(self._data) else 0
        self._data[place : min(end + 4, len(self._data))] = bytes(min(end + 4, len(self._data)) - place)
        return entries, following

    def _pointer(self, table: dict[int, _Entry], tag: int) -> int | None:
        entry = table.get(tag)
        if entry is None or entry.type not in (_LONG, 13):
            return None
        return int(struct.unpack(self._order + "I", entry.value)[0])

    def _place(self, entry: _Entry) -> tuple[int, int] | None:
        """Begin and end of a value that does not stand in its table; None if it does, or lies nowhere."""
        length = _BYTES.get(entry.type, 0) * entry.number
        begin = int(struct.unpack(self._order + "I", entry.value)[0])
        return (begin, begin + length) if length > 4 and 8 <= begin <= len(self._data) - length else None

    def _value(self, entry: _Entry) -> bytes:
        place = self._place(entry)
        length = _BYTES.get(entry.type, 0) * entry.number
        return bytes(self._data[place[0] : place[1]]) if place is not None else entry.value[: min(length, 4)]

    def _wipe(self, entry: _Entry | None) -> None:
        place = None if entry is None else self._place(entry)
        if place is not None:
            self._data[place[0] : place[1]] = bytes(place[1] - place[0])

    def _numbered(self, tag: int, number: int) -> _Entry:
        kind = _SHORT if number < 0x10000 else _LONG
        value = struct.pack(self._order + ("H" if kind == _SHORT else "I"), number).ljust(4, b"\0")
        return _Entry(tag, kind, 1, value)

    def _drop_thumbnail(self) -> None:
        if not self._thumbnail:
            return
        try:
            entries, _ = self._take_table(self._thumbnail)
        except ValueError:
            entries = {}
        self._thumbnail = 0
        begin, length = (self._pointer(entries, tag) for tag in (_THUMBNAIL, _THUMBNAIL_LENGTH))
        for entry in entries.values():
            self._wipe(entry)
        if begin is not None and length is not None and 8 <= begin <= len(self._data) - length:
            self._data[begin : begin + length] = bytes(length)
            if not any(self._data[begin + length :]):  # as it is in the files of cameras
                del self._data[begin:]
