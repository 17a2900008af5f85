"""PNG files, chunk by chunk."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def chunk(kind: bytes, body: bytes, *, intact: bool = True) -> bytes:
    """A chunk; with a wrong checksum if it is not `intact`."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ (not intact))


def png(rows: np.ndarray[Any, Any], depth: int, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG of packed rows, shape (height, bytes of a row), with `chunks` before its pixels."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    height, length = rows.shape
    header = struct.pack(">IIBBBBB", length * 8 // (depth * samples), height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    body = chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_chunks(image: Image.Image, *chunks: bytes, behind: bool = False) -> bytes:
    """`image` as PNG, with `chunks` before its pixels, or `behind` them."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    at = len(data) - 12 if behind else 33
    return data[:at] + b"".join(chunks) + data[at:]
