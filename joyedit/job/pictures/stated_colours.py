"""Colours that a file states where Pillow does not look: profiles of GIF, calibrated BMP, and Adobe RGB by EXIF.

What is found goes into Pillow's `info`, under the keys that `profiles.py` reads. A statement that makes no sense is
passed over, with a note.
"""

from __future__ import annotations

import struct
from typing import IO, Any

import numpy as np
from PIL import BmpImagePlugin, ExifTags, GifImagePlugin, Image, ImageFile

from joyedit.job.pictures import icc
from joyedit.job.pictures.png import MOST_EXIF

GREYS_OF_RGB = "joyedit_greys_of_rgb"
"""A key of `info`: the grey pixels stand for RGB colours, and a profile of RGB holds for them."""

ADOBE_RGB = "joyedit_adobe_rgb"
"""A key of `info`: EXIF says that the colours are Adobe RGB."""

_MOST_PROFILE = 8 << 20
_GIF_PROFILE = b"ICCRGBG1012"
_V4, _V5 = 108, 124
_INFO = 14
"""Where the header of a BMP begins, behind that of the file."""
_CALIBRATED, _EMBEDDED, _LINKED = b"\0\0\0\0", b"DEBM", b"KNIL"
_UNCALIBRATED, _ADOBE = 0xFFFF, 2
_COLOUR_SPACE, _INTEROPERABILITY_INDEX = 0xA001, 1


def find_colours(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """Adds to the `info` of an opened picture what its file says of its colours. `file` stays where it is."""
    here = file.tell()
    try:
        if isinstance(image, GifImagePlugin.GifImageFile):
            _add_profile(image, _gif_profile(file))
        elif isinstance(image, BmpImagePlugin.BmpImageFile):
            _find_in_bmp(image, file)
        elif image.mode not in ("L", "CMYK", "LAB") and not image.info.get("icc_profile") and _is_adobe_rgb(image):
            image.info[ADOBE_RGB] = True
    except (struct.error, ValueError) as error:
        _note(image, f"colours of the header ignored: {error}")
    finally:
        file.seek(here)


def _add_profile(image: ImageFile.ImageFile, profile: bytes) -> None:
    if profile:
        image.info["icc_profile"] = profile
        image.info[GREYS_OF_RGB] = True


def _note(image: Any, told: str) -> None:
    image.reading_notes = [*getattr(image, "reading_notes", []), told]


# ---- GIF ----


def _gif_profile(file: IO[bytes]) -> bytes:
    """The profile in an application extension in front of the first frame; empty if there is none, or no whole one."""
    file.seek(10)
    flags = file.read(1)
    file.seek(13 + (3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0))
    while (mark := file.read(2))[:1] == b"!":
        length = file.read(1)
        name = file.read(length[0] if length else 0)
        profile = _sub_blocks(file, is_kept=mark == b"!\xff" and name == _GIF_PROFILE)
        if profile is None:
            return b""
        if profile:
            return profile
    return b""


def _sub_blocks(file: IO[bytes], *, is_kept: bool) -> bytes | None:
    """The data of the blocks up to the empty one; empty if they are not kept or are too long, None if the file ends."""
    parts: list[bytes] = []
    total = 0
    while length := file.read(1):
        if not length[0]:
            return b"".join(parts) if total <= _MOST_PROFILE else b""
        data = file.read(length[0])
        total += len(data)
        if is_kept and total <= _MOST_PROFILE:
            parts.append(data)
    return None


# ---- BMP ----


def _find_in_bmp(image: ImageFile.ImageFile, file: IO[bytes]) -> None:
    """The calibration of a header of version 4, or the profile of one of version 5. Raises struct.error, ValueError."""
    file.seek(_INFO)
    header = file.read(_V5)
    (size,) = struct.unpack_from("<I", header)
    if size not in (_V4, _V5):
        return
    kind = header[56:60]
    if kind == _CALIBRATED:
        _add_calibration(image, header)
    elif size == _V5 and kind in (_EMBEDDED, _LINKED):
        start, length = struct.unpack_from("<II", header, 112)
        if kind == _LINKED:
            _note(image, "its colour profile is in another file, and is ignored")
        elif 0 < length <= _MOST_PROFILE:
            file.seek(_INFO + start)
            _add_profile(image, file.read(length))


def _add_calibration(image: ImageFile.ImageFile, header: bytes) -> None:
    """What primaries and gammas of a header say; nothing if it leaves them at 0. Raises ValueError.

    A BMP states no white: as in browsers it is that of sRGB. Some writers give the gamma of encoding, which is below 1.
    """
    ends = np.array(struct.unpack_from("<9i", header, 60)).reshape(3, 3) / 2**30
    gammas = [value / 65536 for value in struct.unpack_from("<3I", header, 96)]
    if not ends.any() or not all(gammas):
        return
    sums = ends.sum(axis=1)
    if (ends < 0).any() or not (sums > 0).all():
        raise ValueError("its primaries make no sense")
    # Two coordinates of three are enough: they are x and y then.
    ends = ends[:, :2] if not ends[:, 2].any() else ends[:, :2] / sums[:, None]
    red, green, blue = ends.tolist()
    places: icc.Primaries = (*icc.SRGB[:2], *red, *green, *blue)
    shown = [gamma if gamma >= 1 else 1 / gamma for gamma in gammas]
    if max(shown) > 20:
        raise ValueError(f"a gamma of {max(shown):g} makes no sense")
    if max(shown) - min(shown) <= 0.01:
        image.info |= {"gamma": 1 / shown[0], "chromaticity": places, GREYS_OF_RGB: True}
        return
    signal = np.linspace(0.0, 1.0, icc.ENTRIES)
    _add_profile(image, icc.profile(places, *(signal**gamma for gamma in shown), name="of three gammas"))


# ---- EXIF ----


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says so, as cameras do: no calibrated colour space, and index R03; or colour space 2."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and len(exif) > MOST_EXIF:
        return False
    try:
        tags = Image.Image.getexif(image)
        space = tags.get_ifd(ExifTags.IFD.Exif).get(_COLOUR_SPACE)
        if space != _UNCALIBRATED:
            return space == _ADOBE
        index = tags.get_ifd(ExifTags.IFD.Interop).get(_INTEROPERABILITY_INDEX)
    except Exception:  # damaged EXIF says nothing
        return False
    return isinstance(index, str) and index.rstrip("\0 ") == "R03"
