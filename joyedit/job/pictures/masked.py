"""A mask on an edit: where it is white the result is the edit, where it is black the picture's own pixels.

Its greys are a soft edge: value / 255 is the share of the edit. They are taken as they stand in the file, whatever
profile it has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops

from joyedit.job.fit import Fit, PixelBox
from joyedit.job.pictures.as_given import AsGiven
from joyedit.job.pictures.decode import Picture
from joyedit.job.pictures.fitted import fitted, is_whole, part_of, taken_out
from joyedit.job.sizes import Size

_NEARLY_BLACK = 16


class Masked(NamedTuple):
    """What a mask takes: the picture as it was read, and the mask (L, of the proportions of the picture)."""

    picture: Picture
    mask: Image.Image


def mask_of(picture: Picture) -> Image.Image:
    """The mask (L) that a picture holds: its luminance. What is transparent in it is black."""
    grey = picture.image.convert("L")
    alpha = picture.properties.alpha
    if alpha is None:
        return grey
    size = (grey.height, grey.width)
    clear = ImageChops.invert(alpha.channel((0.0, 0.0, float(grey.width), float(grey.height)), size))
    return ImageChops.subtract(grey, clear)  # it was read on white


def share_of(mask: Image.Image) -> float:
    """The part of the picture that may change, 0 to 1: the mean of the mask."""
    counts = np.asarray(mask.histogram(), dtype=np.float64)
    return round(float(counts @ np.arange(256)) / (255 * mask.width * mask.height), 4)


def notes_of(mask: Image.Image) -> tuple[str, ...]:
    """What a person may want to know of a mask that hardly can be meant so."""
    low, high = (int(value) for value in mask.getextrema())  # type: ignore[arg-type]
    if high == 0:
        return ("the mask is all black, so nothing may change",)
    if low == 255:
        return ("the mask is all white, so everything may change",)
    if high < _NEARLY_BLACK:
        return (f"the mask is nearly all black: its lightest grey is {high} of 255",)
    return ()


def with_mask(result: Image.Image, masked: Masked, fit: Fit, shown: PixelBox | None, *, is_bucket: bool) -> Image.Image:
    """`result` (RGB in sRGB) with the pixels of the picture where the mask is not white.

    With `is_bucket` the result has the pixels that the model made, and the picture is what the model saw of it.
    Otherwise it is scaled to the result (Lanczos) where their sizes differ.
    """
    size = (result.height, result.width)
    picture = masked.picture.image
    if is_bucket:
        own = taken_out(fitted(picture, fit), shown, size)
    else:
        own = part_of(picture, fit, shown, size, Image.Resampling.LANCZOS)
    return Image.composite(result, own, mask_in(masked.mask, fit, shown, size))


def mask_in(mask: Image.Image, fit: Fit, shown: PixelBox | None, size: Size) -> Image.Image:
    """The mask (L) for a result of `size` (height, width)."""
    return part_of(mask, fit, shown, size, Image.Resampling.BILINEAR)


def with_own_pixels(given: AsGiven, masked: Masked, fit: Fit, shown: PixelBox | None) -> Image.Image:
    """The result in its final colours, where the mask is black with the very values of the picture's file.

    A profile and a transparency only come back up to rounding by way of sRGB. Nothing is done where the result has
    other colours or another size than the picture.
    """
    image, own = given.image, masked.picture.own
    if own is None or not given.is_own or not is_whole(fit, shown) or own.size != image.size:
        return image
    if own.mode != image.mode:
        if (len(own.getbands()) % 2) != (len(image.getbands()) % 2) or "CMYK" in (own.mode, image.mode):
            return image  # it has lost its alpha
        own = own.convert(image.mode)
    mask = mask_in(masked.mask, fit, shown, (image.height, image.width))
    kept = image.copy()
    kept.paste(own, (0, 0), mask.point([255] + [0] * 255))
    return kept
