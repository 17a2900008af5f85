"""The pixels of a picture in its bucket, and of a result out of it: what `job/fit.py` says, done with Pillow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from joyedit.job.fit import Fit, PixelBox, crop_box
from joyedit.job.sizes import Size


def fitted(image: Image.Image, fit: Fit) -> Image.Image:
    """`image` (RGB, of the size `fit.source`) in its bucket; what it does not fill is its own reflection."""
    is_full = fit.inner == (0, 0, fit.bucket[1], fit.bucket[0])
    if fit.mode == "crop" and is_full and fit.box == crop_box(fit.source, fit.bucket):
        return cropped_to(image, fit.bucket)
    left, top, right, bottom = fit.inner
    scaled = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=fit.box)
    return scaled if scaled.size == (fit.bucket[1], fit.bucket[0]) else _reflected(scaled, fit)


def _reflected(scaled: Image.Image, fit: Fit) -> Image.Image:
    left, top, right, bottom = fit.inner
    height, width = fit.bucket
    pixels = np.pad(np.asarray(scaled), ((top, height - bottom), (left, width - right), (0, 0)), mode="reflect")
    return Image.fromarray(pixels)


def cropped_to(image: Image.Image, bucket: Size) -> Image.Image:
    """`image` scaled to cover `bucket` (height, width) and cropped to it at the centre.

    Each side is rounded up. The resampling is bilinear over the whole support. The crop cuts off the floor of
    half the excess at the top and on the left.
    """
    height, width = bucket
    scale = max(height / image.height, width / image.width)
    tall, wide = math.ceil(image.height * scale), math.ceil(image.width * scale)
    left, top = (wide - width) // 2, (tall - height) // 2
    if tall * wide <= 16 * height * width:
        scaled = image.resize((wide, tall), Image.Resampling.BILINEAR)
        return scaled.crop((left, top, left + width, top + height))
    # A strip thousands of times longer than wide: compute only the part that stays.
    across, down = image.width / wide, image.height / tall
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def taken_out(edited: Image.Image, shown: PixelBox | None, size: Size | None) -> Image.Image:
    """The part `shown` of an edited bucket, scaled to `size` (height, width); None stands for all of it, as it is."""
    if shown is not None and shown != (0, 0, edited.width, edited.height):
        edited = edited.crop(shown)
    if size is None or (edited.height, edited.width) == size:
        return edited
    return edited.resize((size[1], size[0]), Image.Resampling.LANCZOS)
