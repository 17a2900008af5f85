"""The ending that fits the bytes of a picture."""

from __future__ import annotations

import os

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"),
    (b"MM\0+", ".tif"),
)
_BRANDS = {b"avif": ".avif", b"avis": ".avif", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heic"}
ENDINGS = tuple(dict.fromkeys((*(ending for _, ending in _BEGINNINGS), ".webp", *_BRANDS.values())))
"""All endings that contents tell."""


def ending_of(data: bytes, name: str = "") -> str:
    """The ending by the first bytes; that of `name` where these tell nothing, and `.png` where that has none."""
    for begin, ending in _BEGINNINGS:
        if data.startswith(begin):
            return ending
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        return _BRANDS[data[8:12]]
    ending = os.path.splitext(name)[1].lower()
    return ending if ending[1:].isalnum() and len(ending) < 6 else ".png"
