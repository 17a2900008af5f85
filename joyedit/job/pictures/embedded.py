"""What joyedit writes into its pictures, read back: how each of them was made. No pixel is decoded."""

from __future__ import annotations

import io
import json
import os
import stat
import warnings
from typing import BinaryIO

from PIL import ExifTags, Image, PngImagePlugin

from joyedit.errors import ItemError
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.pictures import heif

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_HEAD = 64
_COMMENT = b"ASCII\0\0\0"
_MOST = 8 << 20
"""The most characters of one value."""
CUT = "…"
"""How a value ends that was too long for the metadata of JPEG or WebP."""
_LONG = 4000


def read_embedded(path: str) -> dict[str, str]:
    """The settings that joyedit embedded in this picture; empty if it holds none, or is no picture. Raises OSError.

    `path` may be the address of a picture in a larger file.
    """
    contained = contained_at(path)
    if contained is not None:
        try:
            return _settings_in(io.BytesIO(read_contained(contained)), path)
        except ItemError as error:
            raise OSError(str(error)) from error
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # waits for no pipe
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return {}
        return _settings_in(file, path)


def _settings_in(file: BinaryIO, path: str) -> dict[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever reads the pixels tells them
            with _opened(file, path) as image:
                held = _held_by(image)
    except Exception:  # a picture from anywhere may be broken in any way
        return {}
    kept = {key: value for key, value in held.items() if len(value) <= _MOST}
    return kept if kept.get("software", "").startswith("joyedit ") and "instruction" in kept else {}


def _opened(file: BinaryIO, path: str) -> Image.Image:
    kind = heif.kind_of(file.read(_HEAD))
    file.seek(0)
    return Image.open(file, formats=_FORMATS) if kind is None else heif.open_heif(file, path, kind)


def _held_by(image: Image.Image) -> dict[str, str]:
    if isinstance(image, PngImagePlugin.PngImageFile):
        # joyedit's chunks stand in front of the pixels; those behind them would need the pixels to be read.
        return {key: str(value) for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)}
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, str):  # some releases of Pillow decode it
        comment = comment.encode("utf-8", "replace")
    if not isinstance(comment, bytes):
        return {}
    read = json.loads(comment.removeprefix(_COMMENT))
    return {key: value for key, value in read.items() if isinstance(key, str) and isinstance(value, str)}


def is_cut(text: str) -> bool:
    """Whether a value may be only the beginning of what it was."""
    return len(text) >= _LONG and text.endswith(CUT)
