"""IPTC: captions, credits and keywords of the press, as JPEG and TIFF hold them beside EXIF and XMP.

The block (IIM of the IPTC, version 4) is a row of data sets: 0x1C, record, number, length, value. It stays byte by byte
as it was; to forget the place, whole data sets go. JPEG, and sometimes TIFF, hold it in Photoshop's image resources.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from PIL import ImageFile, TiffImagePlugin

_IPTC, _PHOTOSHOP = 33723, 34377
"""Tags of a TIFF."""
_RESOURCE = 0x0404
_MARK = 0x1C
_MOST = 1 << 20
_SEGMENT = 65_533
_HEAD = b"Photoshop 3.0\0"

PLACES = frozenset(((2, 26), (2, 27), (2, 90), (2, 92), (2, 95), (2, 100), (2, 101)))
"""Record and number of the data sets that name a place: content location (code, name), city, sublocation, province,
country (code, name)."""


def iptc_of(opened: ImageFile.ImageFile, notes: list[str]) -> bytes:
    """The IPTC block of an opened picture; empty if it has none. What is damaged is left out, with a note."""
    try:
        held = _found(opened)
        if not held:
            return b""
        return b"".join(piece for _, piece in _data_sets(held))
    except (ValueError, IndexError):
        notes.append("damaged IPTC left out")
        return b""


def without_place(block: bytes) -> bytes:
    """The block without the data sets that name a place. `block` is one of `iptc_of`."""
    return b"".join(piece for name, piece in _data_sets(block) if name not in PLACES)


def segment_of(block: bytes) -> bytes | None:
    """The block as a segment of a JPEG (APP13); None if it is too large for one."""
    resource = b"8BIM" + _RESOURCE.to_bytes(2, "big") + b"\0\0" + len(block).to_bytes(4, "big") + block
    body = _HEAD + resource + bytes(len(block) % 2)
    return None if len(body) > _SEGMENT else b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def _found(opened: ImageFile.ImageFile) -> bytes:
    """The block as the file has it. Raises ValueError."""
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        # The bytes as they are: some programs call them numbers, which Pillow would unpack.
        tags: Any = opened.tag_v2
        held = tags._tagdata.get(_IPTC) or _resource(tags._tagdata.get(_PHOTOSHOP, b""))
    else:
        resources = opened.info.get("photoshop")
        held = resources.get(_RESOURCE) if isinstance(resources, dict) else b""
    if not isinstance(held, bytes):
        return b""
    if len(held) > _MOST:
        raise ValueError("it is far too long")
    return held


def _resource(data: bytes) -> bytes:
    """The IPTC block in Photoshop's image resources; empty if there is none."""
    place = 0
    while data[place : place + 4] == b"8BIM":
        kind = int.from_bytes(data[place + 4 : place + 6], "big")
        place += 6 + (data[place + 6] + 2) // 2 * 2
        length = int.from_bytes(data[place : place + 4], "big")
        if kind == _RESOURCE:
            return data[place + 4 : place + 4 + length]
        place += 4 + length + length % 2
    return b""


def _data_sets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Record and number, and all bytes, of each data set. Raises ValueError or IndexError for a damaged block."""
    place = 0
    while place < len(block) and any(block[place : place + 5]):  # zeros fill up the end
        if block[place] != _MARK:
            raise ValueError("no data set begins here")
        name = block[place + 1], block[place + 2]
        length, head = int.from_bytes(block[place + 3 : place + 5], "big"), 5
        if length & 0x8000:  # the length of the length
            head += length & 0x7FFF
            length = int.from_bytes(block[place + 5 : place + head], "big")
        end = place + head + length
        if end > len(block):
            raise ValueError("a data set ends behind the block")
        yield name, block[place:end]
        place = end
