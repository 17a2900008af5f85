"""What the colours of a picture mean, by content and not by name: which profile turns them into sRGB, if any.

PNG's order of precedence holds for all kinds: code points (cICP, nclx), an ICC profile, sRGB's own chunk, gAMA and
cHRM (or the calibration of a BMP), Adobe RGB by EXIF. What is damaged is noted, and the next one counts. Without any of
them, colours are sRGB.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from joyedit.job.pictures import icc
from joyedit.job.pictures.stated_colours import ADOBE_RGB, GREYS_OF_RGB

TOLERANCE = 3
"""Levels of 255. Profiles that write sRGB's curve as a short table are off by one or two."""

COLOUR_KEYS = ("icc_profile", "cicp", "srgb", "gamma", "chromaticity", GREYS_OF_RGB, ADOBE_RGB)
"""What `source_of` reads of Pillow's `info`."""

PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)
_SPACES: Mapping[str, str] = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}


class Source(NamedTuple):
    """A profile that colours are in, what to call it, and the mode that it is for: "RGB", "CMYK" or "L"."""

    profile: ImageCms.ImageCmsProfile
    name: str
    mode: str


def source_of(info: Mapping[Any, Any], mode: str, notes: list[str]) -> Source | None:
    """The profile of a picture's colours; None if they are sRGB already, or may be taken for it.

    `mode` is that of the colours: "RGB", "CMYK" or "L". `notes` get what is damaged.
    """
    if mode not in _SPACES:
        return None
    if "cicp" in info and mode != "CMYK":
        try:
            made = icc.of_code_points(info["cicp"])
            if made is not None:  # else they say nothing
                return _unless_srgb(made[0], made[1], "RGB")
        except PROFILE_ERRORS as error:
            notes.append(f"colour code points ignored: {error}")
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        try:
            opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if opened.profile.xcolor_space.strip() != _SPACES[mode]:
                return None  # as converters leave it behind when they make a picture grey
            name = (opened.profile.profile_description or "").strip() or "unnamed"
            source = _unless_srgb(profile, f"colour profile {name}", mode)
            if source is not None:
                _transform(source)  # raises if its tables are damaged
            return source
        except PROFILE_ERRORS as error:
            notes.append(f"colour profile ignored: {error}")
    if "srgb" in info or mode == "CMYK":
        return None
    try:
        made = icc.of_gamma(info.get("gamma"), info.get("chromaticity"))
        if made is not None:
            return _unless_srgb(made[0], made[1], "RGB")
    except PROFILE_ERRORS as error:
        notes.append(f"gAMA and cHRM ignored: {error}")
    return _unless_srgb(_adobe_rgb(), "Adobe RGB (by EXIF)", mode) if ADOBE_RGB in info and mode == "RGB" else None


def to_srgb(colour: Image.Image, source: Source) -> Image.Image:
    """`colour`, of the source's mode, as RGB in sRGB. Raises one of `PROFILE_ERRORS`."""
    if source.mode != "L":
        return _apply(colour, _transform(source))
    # littleCMS is off by up to ten levels where a grey curve is steep. All greys there are, without its shortcuts:
    table = np.asarray(_apply(_probe("L"), _transform(source)))[0]
    return Image.merge("RGB", [colour.point(table[:, n].tolist()) for n in range(3)])


def _transform(source: Source) -> ImageCms.ImageCmsTransform:
    flags = ImageCms.Flags.NOOPTIMIZE if source.mode == "L" else ImageCms.Flags.NONE
    return ImageCms.buildTransform(source.profile, srgb(), source.mode, "RGB", flags=flags)


def _apply(colour: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(colour, transform)
    if converted is None:
        raise ValueError("the colours cannot be converted")
    return converted


def _unless_srgb(profile: bytes, name: str, mode: str) -> Source | None:
    """None if the profile leaves colours as they are: a picture that is sRGB already would only be rounded."""
    source = Source(ImageCms.ImageCmsProfile(io.BytesIO(profile)), name, mode)
    if mode == "CMYK":
        return source
    probe = _probe(mode)
    transform = ImageCms.buildTransform(
        source.profile, srgb(), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.NOOPTIMIZE
    )
    wanted = np.asarray(probe.convert("RGB")).astype(int)
    return None if np.abs(np.asarray(_apply(probe, transform)) - wanted).max() <= TOLERANCE else source


@lru_cache(maxsize=2)
def _probe(mode: str) -> Image.Image:
    """All greys, and for RGB also a lattice of colours."""
    greys = np.arange(256, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(greys[None])
    steps = np.linspace(0, 255, 7).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    return Image.fromarray(np.concatenate([np.stack([greys] * 3, axis=-1), lattice])[None])


@lru_cache(maxsize=1)
def _adobe_rgb() -> bytes:
    return icc.profile(icc.ADOBE_RGB, np.linspace(0.0, 1.0, icc.ENTRIES) ** (563 / 256))


@lru_cache(maxsize=1)
def srgb() -> ImageCms.ImageCmsProfile:
    """The profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
