"""A result in sRGB -> the colours and the transparency of the picture that it was made from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from joyedit.job.fit import Box, Fit, PixelBox
from joyedit.job.pictures.alpha import without_white
from joyedit.job.pictures.fitted import is_whole, part_of
from joyedit.job.pictures.profiles import PROFILE_ERRORS, Source, source_of, srgb, to_srgb
from joyedit.job.pictures.properties import PictureProperties

_GREY_MEAN, _GREY_MOST = 6.0, 40
"""A picture whose channels differ by no more than this, on average and in 99% of its pixels, is grey."""
_LOOKED_AT = 512


class AsGiven(NamedTuple):
    """A result, the profile of its colours (empty: sRGB), and remarks for its record.

    `is_own`: its numbers mean what those in the file of its picture mean.
    """

    image: Image.Image
    profile: bytes
    notes: tuple[str, ...] = ()
    is_own: bool = False


WITH_ALPHA = ("png", "webp", "tiff", "avif", "heic")
_WITHOUT_GREY = ("webp", "avif", "heic")
_WITH_CMYK = ("jpg", "tiff")


def as_given(
    image: Image.Image,
    properties: PictureProperties,
    box: Box,
    *,
    format: str,
    placed: tuple[Fit, PixelBox | None] | None = None,
) -> AsGiven:
    """`image` (RGB in sRGB) in the colours of its picture, grey if both are, with its alpha where `format` has one.

    `box` is the part of the picture that it shows; `placed` says more of that: how the picture was fitted, and what is
    shown of its bucket, where the result shows more than the picture. A profile that can only be read from leaves the
    result in sRGB.
    """
    notes: list[str] = []
    alpha = None
    if properties.alpha is not None and format in WITH_ALPHA:
        size = (image.height, image.width)
        if placed is None or is_whole(*placed):
            alpha = properties.alpha.channel(box, size)
        else:
            alpha = part_of(properties.alpha.picture(), *placed, size, Image.Resampling.BILINEAR)
        image = without_white(image, alpha)
    coloured, profile, is_own = _coloured(image, properties, format, notes)
    if alpha is not None and coloured.mode in ("RGB", "L"):
        coloured.putalpha(alpha)
    if coloured.mode in ("L", "LA") and format in _WITHOUT_GREY:
        coloured = image if alpha is None else coloured.convert("RGBA")
        is_own = is_own and not profile
        profile = b""
    return AsGiven(coloured, profile, tuple(notes), is_own)


def _coloured(
    image: Image.Image, properties: PictureProperties, format: str, notes: list[str]
) -> tuple[Image.Image, bytes, bool]:
    """The result in the colours of its picture as far as it can have them, the profile, and whether it has them."""
    mode = properties.mode
    if mode == "CMYK" and format not in _WITH_CMYK:
        notes.append("the picture is CMYK, the result RGB")
        return image, b"", False
    embedded = properties.colours.get("icc_profile")
    held = embedded if isinstance(embedded, bytes) else b""
    source = source_of(properties.colours, mode, [])
    if mode == "L" and not is_grey(image):
        return image, b"", source is None  # the edit has given it colours
    if source is None:
        if mode == "CMYK":
            notes.append("the picture is CMYK without a profile, the result RGB")
            return image, b"", False
        plain = image.convert("L") if mode == "L" else image
        return plain, held if _is_for(held, plain.mode) else b"", True
    if source.mode != mode:
        return image, b"", False
    if not source.name.startswith("colour profile"):
        # Code points, a gamma and EXIF say it in ways of their own; Adobe RGB alone has a profile that others know.
        if not source.name.startswith("Adobe RGB"):
            return (image.convert("L") if mode == "L" else image), b"", False
        held = source.profile.tobytes()
    try:
        return _from_srgb(image, source), held, True
    except PROFILE_ERRORS as error:
        notes.append(f"{source.name} cannot be written, the result is sRGB: {error}")
        return image, b"", False


def is_grey(image: Image.Image) -> bool:
    """Whether an RGB picture shows nothing but greys, up to the small casts that a model makes."""
    small = image.copy()
    small.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16)
    spread = pixels.max(axis=-1) - pixels.min(axis=-1)
    return bool(spread.mean() <= _GREY_MEAN and np.percentile(spread, 99) <= _GREY_MOST)


def _is_for(profile: bytes, mode: str) -> bool:
    """Whether a profile is for colours of this mode. It stands in the head of an ICC profile."""
    return profile[16:20].strip() == {"L": b"GRAY", "RGB": b"RGB"}[mode]


def _from_srgb(image: Image.Image, source: Source) -> Image.Image:
    """Raises one of `PROFILE_ERRORS`."""
    if source.mode == "L":
        # The inverse of the way in, from its own table: littleCMS is off where a grey curve is steep.
        ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        shown = np.maximum.accumulate(np.asarray(to_srgb(ramp, source).convert("L"))[0].astype(np.float64))
        table = np.rint(np.interp(np.arange(256), shown + np.arange(256) * 1e-6, np.arange(256)))
        return image.convert("L").point(table.astype(int).tolist())
    transform = ImageCms.buildTransform(srgb(), source.profile, "RGB", source.mode)
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("the colours cannot be converted")
    return converted
