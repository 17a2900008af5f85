"""What a TIFF file declares about itself: refused where it is far beyond its own picture, before it costs memory.

A file of a few bytes may declare a tile of gigabytes, which libtiff would allocate, or millions of values for a
tag, which Pillow would unpack one by one into objects.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from itertools import pairwise
from typing import IO

from PIL import TiffImagePlugin

from joyedit.errors import ItemError

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_RAW_TYPES = (1, 2, 7)  # bytes, text, undefined: they stay one object

_OFFSETS = (273, 279, 324, 325)  # where strips and tiles lie, and their lengths
MOST_PIECES = 1_000_000
MOST_VALUES = 200_000
"""A colour map of 16 bits has 196,608 values; no other tag that a reader unpacks has nearly as many."""
_UNPACKED = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 274, 277, 278, 282, 283, 284, 296, 317, 320, 322, 323, 330, 338, 339,
    347, 530, 532, 700, 34665, 34675, 34853, 40965,
))  # fmt: skip
_MOST_ENTRIES = 65_535

SIDE = 256
"""Tiles may be larger than the picture as far as each side rounded up to this."""
SMALL_TILE = 1 << 22
"""Tiles of at most so many pixels are never refused."""

WIDTH, LENGTH, BITS, ROWS_PER_STRIP, SAMPLES, PHOTOMETRIC, PLANAR = 256, 257, 258, 278, 277, 262, 284
TILE_WIDTH, TILE_LENGTH = 322, 323
_YCBCR = 6


def refuse_long_tags(file: IO[bytes], name: str) -> None:
    """Raises ItemError if a tag of the first directory has absurdly many values. The file stands at its start again."""
    try:
        for tag, kind, count, _ in _entries(file)[1]:
            most = MOST_PIECES if tag in _OFFSETS else MOST_VALUES if tag in _UNPACKED else None
            is_unpacked = kind in TYPE_BYTES and kind not in _RAW_TYPES
            if most is not None and is_unpacked and count > most:
                told = f"claims {count} values, and at most {most} make sense; save it anew with another program"
                raise ItemError("unreadable_picture", f"{name}: its tag {tag} {told}")
    finally:
        file.seek(0)


def values_of(file: IO[bytes], tags: Collection[int]) -> dict[int, tuple[int, bytes]]:
    """Type and bytes of the values of `tags` in the first directory, as far as the file has them."""
    here = file.tell()
    order, entries = _entries(file)
    found = {}
    for tag, kind, count, field in entries:
        length = count * TYPE_BYTES.get(kind, 0)
        if tag in tags and 0 < length <= 8 * MOST_PIECES:
            if length > len(field):
                file.seek(struct.unpack(order + ("Q" if len(field) == 8 else "I"), field)[0])
                field = file.read(length)
            if len(field) >= length:
                found[tag] = kind, field[:length]
    file.seek(here)
    return found


def _entries(file: IO[bytes]) -> tuple[str, list[tuple[int, int, int, bytes]]]:
    """Byte order, and tag, type, count and last field of each entry of the first directory.

    It gives what the file has, without entries whose values do not fit into the file.
    """
    length = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    is_big = head[2:4] in (b"+\0", b"\0+")
    number, entry, step = ("Q", "HHQ8s", 20) if is_big else ("H", "HHI4s", 12)
    start = head[8:16] if is_big else head[4:8]
    if len(start) < (8 if is_big else 4):
        return order, []
    (offset,) = struct.unpack(order + ("Q" if is_big else "I"), start)
    if offset >= length:
        return order, []
    file.seek(offset)
    counted = file.read(struct.calcsize(number))
    if len(counted) < struct.calcsize(number):
        return order, []
    (count,) = struct.unpack(order + number, counted)
    body = file.read(min(count, _MOST_ENTRIES) * step)
    found = struct.iter_unpack(order + entry, body[: len(body) // step * step])
    # What does not fit into the file is not read by Pillow either.
    return order, [entry for entry in found if entry[2] * TYPE_BYTES.get(entry[1], 0) <= length]


def refuse_large_tiles(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    """Raises ItemError if libtiff would allocate a tile that is far larger than the picture."""
    rows, columns = piece(image)
    height, width = (-(-side // SIDE) * SIDE for side in (_number(image, LENGTH, 0), _number(image, WIDTH, 0)))
    holds_tile = image.use_load_libtiff or getattr(image, "layout", None) is not None
    if holds_tile and rows * columns > max(SMALL_TILE, height * width):
        message = f"its tiles of {columns} x {rows} pixels are far larger than the picture ({image.width} x "
        raise ItemError("unreadable_picture", f"{name}: {message}{image.height}); save it anew with another program")


def piece(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Rows and columns of a tile, or of a strip."""
    width, height = _number(image, WIDTH, 1), _number(image, LENGTH, 1)
    if TILE_WIDTH in image.tag_v2 or TILE_LENGTH in image.tag_v2:
        return _number(image, TILE_LENGTH, height), _number(image, TILE_WIDTH, width)
    return min(height, _number(image, ROWS_PER_STRIP, height)), width


def decoder_bytes(image: TiffImagePlugin.TiffImageFile, length: int) -> int:
    """What libtiff, or Pillow's reader of plain TIFF, holds beside the picture. `length`: that of the file."""
    if not image.use_load_libtiff:
        starts = sorted(tile.offset for tile in image.tile)
        gaps = (after - before for before, after in pairwise(starts))
        return 2 * min(length, max(gaps, default=0)) + 400 * len(starts)
    rows, columns = piece(image)
    samples = _number(image, SAMPLES, 1) if _number(image, PLANAR, 1) == 1 else 1
    bits = max(_number(image, BITS, 1) * samples, 32 if _number(image, PHOTOMETRIC, 0) == _YCBCR else 1)
    one = rows * -(-columns * bits // 8)
    is_plain = image.info.get("compression") in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
    # libtiff maps the file into memory. Some of its codecs hold a piece of their own.
    return length + (one if is_plain else 2 * one)


def _number(image: TiffImagePlugin.TiffImageFile, tag: int, default: int) -> int:
    """The first value of the tag, if it is a whole number above 0."""
    value = image.tag_v2.get(tag, default)
    if isinstance(value, tuple):
        value = value[0] if value else default
    return value if isinstance(value, int) and value > 0 else default
