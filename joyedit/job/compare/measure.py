"""How far two pictures differ: PSNR and SSIM of 8-bit pixels, in strips, so that large pictures take little memory.

H, W: height and width; C: channels, 3 for RGB, 4 where one of the two has transparency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from joyedit.job.pictures.decode import Picture

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

WINDOW = 7
"""The side of SSIM's window."""
GAIN = 10
"""A difference picture is so many times brighter than the difference."""
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_STRIP = 1 << 20
"""Pixels that are measured at once."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`psnr` in dB, infinite where all pixels are the same; `ssim` from -1 to 1, None for less than 7 pixels a side."""

    psnr: float
    ssim: float | None


def pixels_of(one: Picture, other: Picture) -> tuple[Pixels, Pixels]:
    """The pixels (H, W, C) of two pictures of one size, with alpha where one has it."""
    has_alpha = any(picture.properties.alpha is not None for picture in (one, other))
    first, second = (_with_alpha(picture) if has_alpha else picture.image for picture in (one, other))
    return np.asarray(first), np.asarray(second)


def measure(one: Pixels, other: Pixels) -> Measured:
    """PSNR and SSIM of two pictures (H, W, C)."""
    height, width, channels = one.shape
    squares = 0.0
    for top, bottom in _strips(height, width, 0):
        difference = one[top:bottom].astype(np.int32) - other[top:bottom]
        squares += float(np.square(difference).sum(dtype=np.float64))
    mean = squares / (height * width * channels)
    psnr = math.inf if mean == 0 else 10 * math.log10(255**2 / mean)
    return Measured(psnr, 1.0 if mean == 0 and min(height, width) >= WINDOW else _ssim(one, other))


def difference_of(one: Pixels, other: Pixels) -> Image.Image:
    """A picture of the difference: what is the same is black."""
    made = np.empty((*one.shape[:2], 3), np.uint8)
    for top, bottom in _strips(one.shape[0], one.shape[1], 0):
        apart = np.abs(one[top:bottom].astype(np.int16) - other[top:bottom])
        if apart.shape[2] == 4:  # alpha shows in all colours
            apart = np.maximum(apart[..., :3], apart[..., 3:])
        made[top:bottom] = np.minimum(apart * GAIN, 255)
    return Image.fromarray(made)


def _with_alpha(picture: Picture) -> Image.Image:
    made = picture.image.copy()
    alpha = picture.properties.alpha
    made.putalpha(255 if alpha is None else alpha.picture())
    return made


def _ssim(one: Pixels, other: Pixels) -> float | None:
    """The mean structural similarity (Wang et al., 2004): uniform windows, sample variances, mean of the channels."""
    height, width, channels = one.shape
    if min(height, width) < WINDOW:
        return None
    total, windows = 0.0, (height - WINDOW + 1) * (width - WINDOW + 1) * channels
    for top, bottom in _strips(height, width, WINDOW - 1):
        for channel in range(channels):
            strip = (picture[top:bottom, :, channel].astype(np.float64) for picture in (one, other))
            total += float(_similarities(*strip).sum())
    return float(total / windows)


def _similarities(x: Floats, y: Floats) -> Floats:
    """The similarity in each window of two channels (H, W)."""
    count = WINDOW**2
    mean_x, mean_y = _sums(x) / count, _sums(y) / count
    scale = count / (count - 1)
    variance_x = scale * (_sums(x * x) / count - mean_x * mean_x)
    variance_y = scale * (_sums(y * y) / count - mean_y * mean_y)
    covariance = scale * (_sums(x * y) / count - mean_x * mean_y)
    above = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    below = (mean_x * mean_x + mean_y * mean_y + _C1) * (variance_x + variance_y + _C2)
    return above / below


def _sums(values: Floats) -> Floats:
    """The sum in each window. Sums of whole numbers are exact in doubles."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, axis=0), axis=1, out=table[1:, 1:])
    side = WINDOW
    return table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]


def _strips(height: int, width: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows; each begins `overlap` rows before the end of the last, and has more rows than that."""
    rows = max(1, _STRIP // width)
    for top in range(0, height - overlap, rows):
        yield top, min(height, top + rows + overlap)
