"""TIFF files, tag by tag."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, TiffImagePlugin

Tag = tuple[int, int, int, int]
"""Tag, type, number of values, value or offset."""


def tiff(*tags: Tag, order: str = "<", big: bool = False, more: bytes = bytes(64)) -> bytes:
    """A TIFF of one directory, with `more` behind it."""
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16)
        body = struct.pack(order + "Q", len(tags)) + b"".join(struct.pack(order + "HHQQ", *tag) for tag in tags)
        return head + body + bytes(8) + more
    head = mark + struct.pack(order + "HI", 42, 8)
    body = struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        body += struct.pack(order + ("HHIHxx" if short else "HHII"), tag, kind, count, value)
    return head + body + bytes(4) + more


def strip_of(data: bytes, compression: str) -> bytes:
    """`data` compressed by libtiff ("tiff_lzw", "packbits", ...), as one strip."""
    file = io.BytesIO()
    Image.fromarray(np.frombuffer(data, np.uint8)[None]).save(file, "TIFF", compression=compression)
    tags = TiffImagePlugin.TiffImageFile(io.BytesIO(file.getvalue())).tag_v2
    start = tags[273][0]
    return file.getvalue()[start : start + tags[279][0]]
