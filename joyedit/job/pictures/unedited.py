"""What an edit left alone: found by comparing, and given back with the picture's own pixels.

The model makes about a megapixel, and its VAE blurs and recolours a little what nobody asked to change. So small even
differences count as none, and what is really changed is found by its strongest parts, then followed to its edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from joyedit.job.fit import Fit, PixelBox
from joyedit.job.pictures.fitted import part_of
from joyedit.job.sizes import Size

_CELL = 4
"""Pixels of the bucket along a side of the cells in which changes are followed."""
_BLUR = 1.5
_LEAST, _MOST = 8.0, 24.0
"""Levels of 255 up to which a difference is none: at least and at most, by what the picture's calm parts have."""
_SURE = 2.5
"""So many times as much is surely a change."""
_GROWN = 2
"""Cells that a change is extended by, for its soft edges."""


def changed_mask(edited: Image.Image, picture: Image.Image) -> Image.Image:
    """Where `edited` differs from `picture` (both RGB, of one size): 255 is changed, 0 is not, with soft edges. L."""
    difference = _cells(_difference(edited, picture))
    calm = float(np.median(difference))
    spread = 1.4826 * float(np.median(np.abs(difference - calm)))
    limit = float(np.clip(calm + 4 * spread, _LEAST, _MOST))
    maybe = Image.fromarray(((difference > limit) * 255).astype(np.uint8))
    sure = Image.fromarray(((difference > _SURE * limit) * 255).astype(np.uint8))
    # Single cells are noise: what is sure is at least two cells wide.
    sure = sure.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.MaxFilter(5))
    found = _followed(sure, maybe)
    for _ in range(_GROWN):
        found = found.filter(ImageFilter.MaxFilter(3))
    return found.resize(edited.size, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(_CELL))


def with_unedited(
    result: Image.Image, original: Image.Image, mask: Image.Image, fit: Fit, shown: PixelBox | None
) -> Image.Image:
    """`result` with the pixels of `original` where `mask` (L, of the bucket's size) is 0. Both pictures are RGB.

    The original is as it was read; `fit` says which part of it the result shows, `shown` which part of the bucket.
    """
    size: Size = (result.height, result.width)
    original = part_of(original, fit, shown, size, Image.Resampling.LANCZOS)
    return Image.composite(result, original, mask_of_result(mask, shown, size))


def mask_of_result(mask: Image.Image, shown: PixelBox | None, size: Size) -> Image.Image:
    """The mask (L, of the bucket's size) for a result of `size`, which shows the part `shown` of the bucket."""
    part = mask if shown is None else mask.crop(shown)
    return part.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _difference(edited: Image.Image, picture: Image.Image) -> NDArray[np.float32]:
    """The largest difference of the three channels, (H, W), of both without their finest detail."""
    one, other = (
        np.asarray(image.filter(ImageFilter.GaussianBlur(_BLUR))).astype(np.float32) for image in (edited, picture)
    )
    largest: NDArray[np.float32] = np.abs(one - other).max(axis=-1)
    return largest


def _cells(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of each cell."""
    height, width = pixels.shape
    padded = np.pad(pixels, ((0, -height % _CELL), (0, -width % _CELL)), mode="edge")
    tall, wide = padded.shape
    cells: NDArray[np.float32] = padded.reshape(tall // _CELL, _CELL, wide // _CELL, _CELL).mean(axis=(1, 3))
    return cells


def _followed(sure: Image.Image, maybe: Image.Image) -> Image.Image:
    """The parts of `maybe` that touch something sure. Both are masks of 0 and 255."""
    allowed = np.maximum(np.asarray(maybe), np.asarray(sure))
    found = np.asarray(sure)
    while True:
        grown = np.minimum(np.asarray(Image.fromarray(found).filter(ImageFilter.MaxFilter(3))), allowed)
        if np.array_equal(grown, found):
            return Image.fromarray(found)
        found = grown
