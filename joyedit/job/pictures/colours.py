"""Any of Pillow's pixel modes -> 8-bit RGB: scales 16 bits, applies colour profiles, puts alpha on white.

Pillow's own `convert("RGB")` clips 16-bit and float pixels and drops profiles and alpha. This module keeps
them, and adds a note for each change that a person may see.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_PROFILE_SPACES: Mapping[str, str] = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """`image` (decoded, any mode) as RGB. Adds the changes to `notes`."""
    colour, alpha = _split_alpha(image, notes)
    rgb = _profile_to_srgb(colour, image.info.get("icc_profile"), notes)
    if rgb is None:
        rgb = _plain_rgb(colour, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
        notes.append("alpha flattened on white")
    return rgb


def _split_alpha(image: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """The colours (L, RGB, CMYK, YCbCr, LAB, ...), and the alpha (L) or None."""
    if image.mode in _DEEP_MODES:
        return _scale_deep(image, notes)
    if image.mode in ("1", "P", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in _ALPHA_MODES and image.mode != "RGBA":
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
    """One channel with more than 8 bits -> L by scaling, and the alpha if one value is transparent."""
    pixels = np.asarray(image)
    clear = image.info.get("transparency")
    alpha = None
    if isinstance(clear, int):
        alpha = Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8))
    if image.mode == "F":
        grey, note = _float_to_8(pixels)
    else:
        wide = pixels.astype(np.int64)
        if wide.size and int(wide.max()) > 0xFFFF:
            grey, note = np.clip((wide + (1 << 23)) // 0x1010101, 0, 255), "32 bits scaled to 8"
        else:
            grey, note = np.clip((wide + 128) // 257, 0, 255), "16 bits scaled to 8"
    notes.append(note)
    return Image.fromarray(grey.astype(np.uint8)), alpha


def _float_to_8(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float64], str]:
    """Float pixels -> 0..255. The range is the first of 0..1, 0..255, 0..65535 that holds the maximum, or up to it."""
    finite = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max()) if finite.size else 0.0
    full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    return np.clip(np.rint(finite * (255.0 / full)), 0, 255), f"float pixels scaled from 0..{full:g}"


def _plain_rgb(colour: Image.Image, notes: list[str]) -> Image.Image:
    if colour.mode == "RGB":
        return colour
    if colour.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        converted = ImageCms.profileToProfile(colour, lab, _srgb(), outputMode="RGB")
        if converted is None:
            raise ValueError("the Lab colours cannot be converted")
        notes.append("LAB converted to RGB")
        return converted
    if colour.mode != "L":
        notes.append(f"{colour.mode} converted to RGB")
    return colour.convert("RGB")


def _profile_to_srgb(colour: Image.Image, profile: object, notes: list[str]) -> Image.Image | None:
    """`colour` in sRGB by its embedded profile; None if it has no profile that fits and works."""
    if not isinstance(profile, bytes) or not profile or colour.mode not in _PROFILE_SPACES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = (source.profile.profile_description or "").strip() or "unnamed"
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[colour.mode]:
            return None
        if name.startswith("sRGB"):
            return None  # the picture is sRGB already; converting would only round
        converted = ImageCms.profileToProfile(colour, source, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        notes.append(f"colour profile ignored: {error}")
        return None
    if converted is not None:
        notes.append(f"colour profile {name} converted to sRGB")
    return converted


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
