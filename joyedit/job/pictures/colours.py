"""Any of Pillow's pixel modes -> 8-bit RGB: scales 16 bits, applies colour profiles, puts alpha on white.

Pillow's own `convert("RGB")` clips 16-bit and float pixels and drops profiles and alpha. This module keeps
them, and adds a note for each change that a person may see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from joyedit.job.pictures.profiles import PROFILE_ERRORS, source_of, srgb, to_srgb
from joyedit.job.pictures.stated_colours import GREYS_OF_RGB

BAND_PIXELS = 1 << 18
"""So many deep pixels are converted at a time."""

Scale = Callable[[NDArray[Any]], NDArray[Any]]

DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """`image` (decoded, any mode) as RGB. Adds the changes to `notes`."""
    return to_rgb_and_alpha(image, notes)[0]


def own_colours(image: Image.Image) -> Image.Image | None:
    """`image` (decoded, any mode) with 8 bits and in its own colours: L, LA, RGB, RGBA or CMYK.

    None for others, and for a picture without profile and alpha: its RGB says the same.
    """
    colour, alpha = _split_alpha(image, [])
    if alpha is None and not uses_profile(image):
        return None
    if colour.mode not in ("L", "RGB", "CMYK") or (alpha is not None and colour.mode == "CMYK"):
        return None
    own = colour.copy() if colour is image else colour
    own.info = {}
    if alpha is not None:
        own.putalpha(alpha)
    return own


def to_rgb_and_alpha(
    image: Image.Image, notes: list[str], *, follows_profile: bool = True
) -> tuple[Image.Image, Image.Image | None]:
    """`image` (decoded, any mode) as RGB on white, and its alpha (L) if it has one. Adds the changes to `notes`.

    Without `follows_profile` its numbers are taken for sRGB.
    """
    colour, alpha = _split_alpha(image, notes)
    rgb = _by_profile(colour, image.info, notes) if follows_profile else _plain_rgb(colour, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
        notes.append("alpha flattened on white")
    return rgb, alpha


def _split_alpha(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """The colours (L, RGB, CMYK, YCbCr, LAB, ...), and the alpha (L) or None."""
    if image.mode in DEEP_MODES:
        return _scale_deep(image, notes)
    if image.mode in ("1", "P", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ALPHA_MODES and image.mode != "RGBA":
        # Pillow cannot convert premultiplied grey to RGBA directly.
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    if image.mode == "RGBA":
        return image.convert("RGB"), image.getchannel("A")
    if image.mode == "P":
        return image.convert("RGB"), None
    if image.mode == "1":
        return image.convert("L"), None
    return image, None


def _scale_deep(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """One channel with more than 8 bits -> L by scaling, and the alpha if one value is transparent.

    It works on bands of rows: arrays of the whole picture would take several times its memory.
    """
    clear = image.info.get("transparency")
    grey = Image.new("L", image.size)
    alpha = Image.new("L", image.size) if isinstance(clear, int) else None
    scale, note = _float_scale(image) if image.mode == "F" else _integer_scale(image)
    for top, pixels in _bands(image):
        grey.paste(Image.fromarray(scale(pixels).astype(np.uint8)), (0, top))
        if alpha is not None:
            alpha.paste(Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8)), (0, top))
    notes.append(note)
    return grey, alpha


def _bands(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """The pixels as arrays (rows, W) of about `BAND_PIXELS` pixels, each with the row that it begins at."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _integer_scale(image: Image.Image) -> tuple[Scale, str]:
    """How 0..65535, or 0..2**32 - 1 if a pixel is larger than that, becomes 0..255."""
    is_16_bit = image.mode != "I" or all(int(pixels.max()) <= 0xFFFF for _, pixels in _bands(image))
    if is_16_bit:
        return lambda pixels: np.clip((pixels.astype(np.int64) + 128) // 257, 0, 255), "16 bits scaled to 8"
    return lambda pixels: np.clip((pixels.astype(np.int64) + (1 << 23)) // 0x1010101, 0, 255), "32 bits scaled to 8"


def _float_scale(image: Image.Image) -> tuple[Scale, str]:
    """How float pixels become 0..255. The range is the first of 0..1, 0..255, 0..65535 that holds the maximum, or up
    to it.
    """
    top = max(float(_finite(pixels).max()) for _, pixels in _bands(image))
    full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    factor = 255.0 / full
    note = f"float pixels scaled from 0..{full:g}"
    return lambda pixels: np.clip(np.rint(_finite(pixels) * factor), 0, 255), note


def _finite(pixels: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _by_profile(colour: Image.Image, info: Mapping[Any, Any], notes: list[str]) -> Image.Image:
    """`colour` as RGB in sRGB, by the profile that holds for it."""
    if colour.mode == "LAB":
        return _plain_rgb(colour, notes)  # which is by a profile already
    if colour.mode == "L" and GREYS_OF_RGB in info:
        colour = colour.convert("RGB")
    if colour.mode not in ("RGB", "L", "CMYK"):
        colour = _plain_rgb(colour, notes)
    source = source_of(info, colour.mode, notes)
    if source is None:
        return _plain_rgb(colour, notes)
    if source.mode != colour.mode:
        colour = _plain_rgb(colour, notes)
    try:
        converted = to_srgb(colour, source)
    except PROFILE_ERRORS as error:
        notes.append(f"colour profile ignored: {error}")
        return _plain_rgb(colour, notes)
    notes.append(f"{source.name} converted to sRGB")
    return converted


def _plain_rgb(colour: Image.Image, notes: list[str]) -> Image.Image:
    if colour.mode == "RGB":
        return colour
    if colour.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        converted = ImageCms.profileToProfile(colour, lab, srgb(), outputMode="RGB")
        if converted is None:
            raise ValueError("the Lab colours cannot be converted")
        notes.append("LAB converted to RGB")
        return converted
    if colour.mode != "L":
        notes.append(f"{colour.mode} converted to RGB")
    return colour.convert("RGB")


def has_transparency(image: Image.Image) -> bool:
    """Whether one of its colours is transparent."""
    return image.mode in (*DEEP_MODES, "1", "P", "L", "RGB") and "transparency" in image.info


def uses_profile(image: Image.Image) -> bool:
    """Whether `to_rgb` converts the colours by a profile."""
    mode = "L" if image.mode in (*DEEP_MODES, "1", "L", "LA", "La") else "CMYK" if image.mode == "CMYK" else "RGB"
    if mode == "L" and GREYS_OF_RGB in image.info:
        mode = "RGB"
    return image.mode != "LAB" and source_of(image.info, mode, []) is not None
