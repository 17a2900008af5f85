"""What a result says of itself: the EXIF and XMP of its picture, as far as they still hold, and its resolution."""

from __future__ import annotations

import re
from typing import NamedTuple

from joyedit.job.pictures.exif_block import ExifBlock
from joyedit.job.pictures.iptc import without_place
from joyedit.job.pictures.properties import PictureProperties
from joyedit.job.sizes import Size
from joyedit.job.spec import MetadataName


class Metadata(NamedTuple):
    """The metadata of a result: each of it may be empty.

    `exif` is a block without a head, `xmp` an XML text in UTF-8, `iptc` a block of IIM.
    """

    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    iptc: bytes = b""


def metadata_of(properties: PictureProperties, wish: MetadataName, size: Size, notes: list[str]) -> Metadata:
    """What a result of `size` (height, width) keeps of its picture's metadata. `notes` get what cannot be kept."""
    if wish == "strip":
        return Metadata(dpi=properties.dpi)
    has_place = wish == "keep"
    return Metadata(
        exif=_exif(properties.exif, size, has_place, notes),
        xmp=_xmp(properties.xmp, size, has_place, notes),
        iptc=properties.iptc if has_place else without_place(properties.iptc),
        dpi=properties.dpi,
    )


def _exif(held: bytes, size: Size, has_place: bool, notes: list[str]) -> bytes:
    if not held:
        return b""
    try:
        block = ExifBlock(held)
        block.set_upright(size)
        if not has_place:
            block.drop_place()
        return bytes(block)
    except ValueError as error:
        notes.append(f"EXIF left out: {error}")
        return b""


_NAME = r"[A-Za-z0-9_.-]+"
_DEAD = re.compile(
    rf"""\s+(?:GCamera|Camera|Container|Item|hdrgm|HDRGainMap|GDepth|GImage|GPano):{_NAME}\s*=\s*(?:"[^"]*"|'[^']*')"""
)
"""Attributes about parts that a result does not have: a video, a gain map, depth, a panorama's full sphere."""
_DEAD_ELEMENTS = re.compile(
    r"<((?:GCamera|Camera|Container|hdrgm|HDRGainMap|GDepth|GImage|xmp|xap):"
    r"(?:Directory|Thumbnails|SpecialTypeID|MicroVideo\w*|MotionPhoto\w*|GainMap\w*))\b[^>]*(?:/>|>.*?</\1>)",
    re.DOTALL,
)
_PLACE_NAME = (
    rf"(?:{_NAME}:GPS\w*|photoshop:(?:City|State|Country)|Iptc4xmpCore:(?:Location|CountryCode)"
    r"|Iptc4xmpExt:(?:LocationCreated|LocationShown|City|Sublocation|ProvinceState|CountryName|CountryCode|WorldRegion))"
)
_PLACE = re.compile(rf"""\s+{_PLACE_NAME}\s*=\s*(?:"[^"]*"|'[^']*')""")
_PLACE_ELEMENTS = re.compile(rf"<({_PLACE_NAME})\b[^>]*(?:/>|>.*?</\1>)", re.DOTALL)
"""Where a picture was taken, in numbers and in words: the same as in EXIF and IPTC."""


def _xmp(held: bytes, size: Size, has_place: bool, notes: list[str]) -> bytes:
    if not held:
        return b""
    try:
        text = held.decode("utf-8").strip("\0")
    except UnicodeDecodeError:
        notes.append("XMP left out: it is not in UTF-8")
        return b""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        notes.append("XMP left out: it holds a document type")
        return b""
    text = _DEAD_ELEMENTS.sub("", _DEAD.sub("", text))
    values = {
        "tiff:Orientation": 1, "tiff:ImageWidth": size[1], "tiff:ImageLength": size[0],
        "exif:PixelXDimension": size[1], "exif:PixelYDimension": size[0],
    }  # fmt: skip
    for name, value in values.items():
        text = re.sub(rf"""(\s{name}\s*=\s*["'])[^"'<]*(["'])""", rf"\g<1>{value}\g<2>", text)
        text = re.sub(rf"(<{name}\s*>)[^<]*(</{name}\s*>)", rf"\g<1>{value}\g<2>", text)
    if not has_place:
        text = _PLACE_ELEMENTS.sub("", _PLACE.sub("", text))
        if "GPS" in text:
            notes.append("XMP left out: it says in an unusual way where the picture was taken")
            return b""
    return text.encode()
