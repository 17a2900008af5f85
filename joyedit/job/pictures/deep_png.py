"""Pixels of 16 bits -> a PNG. Pillow writes 16 bits of grey alone.

Pillow writes a PNG of one pixel, with everything that stands beside the pixels. Its head and its pixels are then those
of the whole picture (W3C Portable Network Graphics, third edition).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BAND = 1 << 20
"""Bytes of pixels that are filtered and compressed at a time."""


def write_deep_png(pixels: NDArray[np.uint16], file: BinaryIO, **beside: Any) -> None:
    """Write `pixels` (H, W, C): grey, grey with alpha, RGB or RGBA. `beside` is what Pillow's writer takes."""
    height, width, samples = pixels.shape
    small = io.BytesIO()
    Image.new(_MODES[samples], (1, 1)).save(small, "PNG", **beside)
    data = small.getvalue()
    file.write(data[:8])
    for kind, body in _chunks(data):
        if kind == b"IHDR":
            body = struct.pack(">IIB", width, height, 16) + body[9:]
        if kind != b"IDAT":
            _write(file, kind, body)
            continue
        for piece in _compressed(pixels):
            _write(file, kind, piece)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        place += 12 + length


def _write(file: BinaryIO, kind: bytes, body: bytes) -> None:
    file.write(struct.pack(">I", len(body)) + kind + body)
    file.write(struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


def _compressed(pixels: NDArray[np.uint16]) -> Iterator[bytes]:
    height, width, samples = pixels.shape
    rows = max(1, _BAND // (width * samples * 2))
    packer = zlib.compressobj(6)
    above = np.zeros((1, width * samples * 2), np.uint8)
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels[top : top + rows], ">u2").view(np.uint8).reshape(-1, above.shape[1])
        piece = packer.compress(_filtered(band, np.concatenate([above, band[:-1]]), 2 * samples).tobytes())
        above = band[-1:]
        if piece:
            yield piece
    yield packer.flush()


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Each row behind its filter: the one of Sub, Up and Paeth that leaves the smallest differences.

    `above` are the rows above, and `step` is how many bytes a pixel has.
    """
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    corner = np.zeros_like(rows)
    corner[:, step:] = above[:, :-step]
    found = np.stack([rows - left, rows - above, rows - _paeth(left, above, corner)])
    costs = np.abs(found.view(np.int8).astype(np.int16)).sum(axis=-1, dtype=np.int64)
    best = costs.argmin(axis=0)
    number = np.array([1, 2, 4], np.uint8)[best][:, None]
    return np.concatenate([number, found[best, np.arange(len(rows))]], axis=1)


def _paeth(left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    a, b, c = (one.astype(np.int16) for one in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
