"""AVIF and HEIC: which of the two a file is, who reads it, and the code points of its colours.

Both are ISO base media files (ISO/IEC 14496-12, 23008-12): boxes in boxes. Pillow reads AVIF, and pillow-heif, an
extra of joyedit, reads HEIC. Both hand over pixels without saying what the colours mean, so that is read here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

from PIL import ImageFile, features

from joyedit.errors import ItemError

NEEDS_EXTRA = 'HEIC pictures need an extra: pip install "joyedit[heif]", or convert it to PNG or JPEG'
NEEDS_PILLOW = "AVIF pictures need Pillow 11.3 or newer with AVIF; update it, or convert it to PNG or JPEG"

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_MOST_META = 16 << 20
_MOST_BOXES = 10_000


def kind_of(head: bytes) -> str | None:
    """ "AVIF" or "HEIC" by the first bytes of a file; None for all other files."""
    if head[4:8] != b"ftyp":
        return None
    end = max(16, min(int.from_bytes(head[:4], "big"), len(head)))
    brands = {head[8:12], *(head[n : n + 4] for n in range(16, end, 4))}
    if head[8:12] not in _HEIC_BRANDS - {b"mif1", b"msf1"} and brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def open_heif(file: IO[bytes], name: str, kind: str) -> ImageFile.ImageFile:
    """The lazy reader of an "AVIF" or "HEIC" file. Raises ItemError if it is not installed."""
    image = _avif(file, name) if kind == "AVIF" else _heic(file, name)
    if "icc_profile" not in image.info:
        file.seek(0)
        codes = code_points(file)
        if codes is not None:
            image.info["cicp"] = codes
    return image


def _avif(file: IO[bytes], name: str) -> ImageFile.ImageFile:
    if "avif" not in features.modules or not features.check("avif"):
        raise ItemError("unreadable_picture", f"{name}: {NEEDS_PILLOW}")
    from PIL import AvifImagePlugin

    return AvifImagePlugin.AvifImageFile(file, name)


def _heic(file: IO[bytes], name: str) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ItemError("unreadable_picture", f"{name}: {NEEDS_EXTRA}") from error
    image: ImageFile.ImageFile = HeifImageFile(file, name)  # type: ignore[no-untyped-call, unused-ignore]
    return image


def code_points(file: IO[bytes]) -> tuple[int, int, int, int] | None:
    """Primaries and transfer of the main picture, as `icc.of_code_points` takes them; None if the file has none.

    The decoder has used the matrix and the range already.
    """
    try:
        return _code_points(file)
    except (IndexError, ValueError):  # boxes that end too early
        return None


def _code_points(file: IO[bytes]) -> tuple[int, int, int, int] | None:
    meta = _meta(file)
    boxes = dict(_boxes(meta[4:]))
    main = _integer(boxes[b"pitm"], 4, 4 if boxes[b"pitm"][0] else 2) if b"pitm" in boxes else None
    parts = list(_boxes(boxes.get(b"iprp", b"")))
    properties = [entry for kind, body in parts if kind == b"ipco" for entry in _boxes(body)]
    used = [n for kind, body in parts if kind == b"ipma" for item, n in _associations(body) if item == main]
    for number in used:
        kind, body = properties[number - 1] if 0 < number <= len(properties) else (b"", b"")
        if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 10:
            return _integer(body, 4, 2), _integer(body, 6, 2), 0, 1
    return None


def stated_length(file: IO[bytes]) -> int:
    """How long the file is by its boxes."""
    return max((start + length for _, start, length in _outer_boxes(file)), default=0)


def _meta(file: IO[bytes]) -> bytes:
    """The body of the box that describes the pictures; empty if there is none."""
    for kind, start, length in _outer_boxes(file):
        if kind == b"meta":
            file.seek(start)
            return file.read(min(length, _MOST_META))
    return b""


def _outer_boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and place and length of the body, of each box of the file. The last one may end behind the file."""
    end = file.seek(0, os.SEEK_END)
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return
        length, start = _integer(head, 0, 4), 8
        if length == 1 and len(head) == 16:
            length, start = _integer(head, 8, 8), 16
        length = end - place if length == 0 else length
        if length < start:
            return
        yield head[4:8], place + start, length - start
        place += length


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box in `data`."""
    place = 0
    for _ in range(_MOST_BOXES):
        if place + 8 > len(data):
            return
        length = _integer(data, place, 4) or len(data) - place
        if length < 8:
            return
        yield data[place + 4 : place + 8], data[place + 8 : place + length]
        place += length


def _associations(body: bytes) -> Iterator[tuple[int, int]]:
    """Pairs of an item and the number, from 1, of one of its properties."""
    wide_item, wide_index = (4 if body[0] else 2), (2 if body[3] & 1 else 1)
    place = 8
    for _ in range(min(_integer(body, 4, 4), _MOST_BOXES)):
        item, count = _integer(body, place, wide_item), body[place + wide_item]
        place += wide_item + 1
        for _ in range(count):
            yield item, _integer(body, place, wide_index) & (0x7FFF if wide_index == 2 else 0x7F)
            place += wide_index


def _integer(data: Any, place: int, length: int) -> int:
    part = data[place : place + length]
    if len(part) < length:
        raise ValueError("a box ends too early")
    return int.from_bytes(part, "big")
