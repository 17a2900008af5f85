"""Pixels -> a TIFF of 8 or 16 bits: grey, RGB or CMYK, with or without alpha; Deflate with its predictor.

An EXIF block is a TIFF without pixels. So the file is the picture's EXIF block, with strips and the tags of the pixels
added. Camera makers' own data keeps its place in it, which it needs to stay readable. Pillow writes neither 16 bits of
several channels nor the tables of EXIF in a compressed TIFF.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

from numpy.typing import NDArray

from joyedit.job.pictures import tiff
from joyedit.job.pictures import tiff_layout as of
from joyedit.job.pictures.exif_block import ExifBlock

XMP, IPTC, PROFILE = 700, 33723, 34675
_RESOLUTION, _UNIT = (282, 283), 296
_OF_PIXELS = of.STRUCTURE - {34665, 34853}
"""Tags that a file for EXIF may have, and that are those of its pixels; without the places of the tables of EXIF."""
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7
_STRIP = 1 << 18
"""Bytes of pixels in a strip."""
_MOST = (1 << 32) - (1 << 20)
_DEFLATE, _DIFFERENCES = 8, 2
_PHOTOMETRIC = {1: of.BLACK_IS_ZERO, 2: of.BLACK_IS_ZERO, 3: of.RGB, 4: of.RGB}

Pixels = NDArray[Any]


def write_tiff(
    pixels: Pixels,
    file: BinaryIO,
    block: ExifBlock,
    *,
    is_cmyk: bool = False,
    dpi: tuple[float, float] | None = None,
    profile: bytes = b"",
    xmp: bytes = b"",
    iptc: bytes = b"",
) -> None:
    """Write `pixels`, uint8 or uint16 of shape (H, W, C). `block` is the EXIF of the picture, and is used up.

    C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha; `is_cmyk`: CMYK). Raises OSError for a file that
    would have more than 4 GiB.
    """
    height, width, samples = pixels.shape
    for tag in _OF_PIXELS:
        block.drop(tag)
    rows = max(1, _STRIP // (width * samples * pixels.itemsize))
    places, lengths, written = [], [], 0
    for strip in _strips(pixels, rows, block.order):
        written += len(strip)
        if written > _MOST:
            raise OSError("a TIFF has at most 4 GiB, and this one would have more")
        places.append(block.append(strip))
        lengths.append(len(strip))
    has_alpha = samples in (2, 4) and not is_cmyk
    numbers: dict[int, tuple[int, list[int]]] = {
        tiff.WIDTH: (_LONG, [width]),
        tiff.LENGTH: (_LONG, [height]),
        tiff.BITS: (_SHORT, [8 * pixels.itemsize] * samples),
        of.COMPRESSION: (_SHORT, [_DEFLATE]),
        tiff.PHOTOMETRIC: (_SHORT, [of.CMYK if is_cmyk else _PHOTOMETRIC[samples]]),
        of.STRIPS: (_LONG, places),
        of.ORIENTATION: (_SHORT, [1]),
        tiff.SAMPLES: (_SHORT, [samples]),
        tiff.ROWS_PER_STRIP: (_LONG, [rows]),
        of.STRIP_BYTES: (_LONG, lengths),
        tiff.PLANAR: (_SHORT, [1]),
        of.PREDICTOR: (_SHORT, [_DIFFERENCES]),
        **({of.EXTRA: (_SHORT, [of.UNASSOCIATED])} if has_alpha else {}),
    }
    if dpi is not None:
        numbers |= {tag: (_RATIONAL, _fraction(value)) for tag, value in zip(_RESOLUTION, dpi, strict=True)}
        numbers[_UNIT] = (_SHORT, [2])
    for tag, (kind, values) in numbers.items():
        letter = "H" if kind == _SHORT else "I"
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        block.set(tag, kind, count, struct.pack(f"{block.order}{len(values)}{letter}", *values))
    for tag, kind, value in ((XMP, _BYTE, xmp), (IPTC, _UNDEFINED, iptc), (PROFILE, _UNDEFINED, profile)):
        if value:
            block.set(tag, kind, len(value), value)
    block.write(file)


def _strips(pixels: Pixels, rows: int, order: str) -> Iterator[bytes]:
    """Each strip as it stands in the file."""
    stored = pixels.dtype.newbyteorder(order)  # type: ignore[arg-type]
    for top in range(0, pixels.shape[0], rows):
        band = pixels[top : top + rows]
        differences = band.copy()
        differences[:, 1:] -= band[:, :-1]
        yield zlib.compress(differences.astype(stored, copy=False).tobytes(), 6)


def _fraction(value: float) -> list[int]:
    found = Fraction(value).limit_denominator(10_000)
    return [found.numerator, found.denominator]
