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
    return scaled if scaled.size == (fit.bucket[1], fit.bucket[0]) else _surrounded(scaled, fit.inner, fit.bucket)


def _surrounded(scaled: Image.Image, place: PixelBox, size: Size) -> Image.Image:
    """`scaled` at its place in a picture of `size`, with its own reflection around it."""
    left, top, right, bottom = place
    pixels = np.asarray(scaled)
    around = [(top, size[0] - bottom), (left, size[1] - right), (0, 0)]
    return Image.fromarray(np.pad(pixels, around[: pixels.ndim], mode="reflect"))


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


def is_whole(fit: Fit, shown: PixelBox | None) -> bool:
    """Whether the result shows the whole picture and nothing else."""
    height, width = fit.source
    return fit.box == (0.0, 0.0, float(width), float(height)) and fit.inner == _shown(fit, shown)


def part_of(
    image: Image.Image, fit: Fit, shown: PixelBox | None, size: Size, resample: Image.Resampling
) -> Image.Image:
    """What a result of `size` (height, width) shows of a picture that was fitted so, by way of `shown` in its bucket.

    `image` is the picture, or another one of its proportions. Pixels that need no scaling are as they were. What the
    picture does not fill is its reflection.
    """
    across, down = image.width / fit.source[1], image.height / fit.source[0]
    left, top, right, bottom = fit.box
    box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
    place = _place(fit, _shown(fit, shown), size)
    inner = (place[2] - place[0], place[3] - place[1])
    if inner == image.size and box == (0.0, 0.0, image.width, image.height):
        scaled = image
    else:
        scaled = image.resize(inner, resample, box=box)
    return scaled if inner == (size[1], size[0]) else _surrounded(scaled, place, size)


def _shown(fit: Fit, shown: PixelBox | None) -> PixelBox:
    return (0, 0, fit.bucket[1], fit.bucket[0]) if shown is None else shown


def _place(fit: Fit, shown: PixelBox, size: Size) -> PixelBox:
    """The box of a result of `size` that the picture fills."""
    across, down = size[1] / (shown[2] - shown[0]), size[0] / (shown[3] - shown[1])
    left, top, right, bottom = fit.inner
    left, right = (max(0, min(size[1], round((side - shown[0]) * across))) for side in (left, right))
    top, bottom = (max(0, min(size[0], round((side - shown[1]) * down))) for side in (top, bottom))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def taken_out(edited: Image.Image, shown: PixelBox | None, size: Size | None) -> Image.Image:
    """The part `shown` of an edited bucket, scaled to `size` (height, width); None stands for all of it, as it is."""
    if shown is not None and shown != (0, 0, edited.width, edited.height):
        edited = edited.crop(shown)
    if size is None or (edited.height, edited.width) == size:
        return edited
    return edited.resize((size[1], size[0]), Image.Resampling.LANCZOS)
