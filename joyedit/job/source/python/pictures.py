"""Pictures in memory -> references of items. Nothing touches the disk.

A picture of Pillow is known by its content: the hash is of its mode, size, pixels, palette and transparency, colour
profile, EXIF and XMP. So the same picture has the same id and fingerprint in each session, however it came into memory.
Its bytes are those of a PNG (or of a TIFF, for modes that PNG lacks), and go the way of any file from there.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from joyedit.errors import Problem
from joyedit.job.data_picture import DataPicture
from joyedit.job.pictures.properties import exif_of_tags
from joyedit.job.source.data_uris import picture_of_bytes

_VERSION = b"joyedit picture 1"
_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF = ("CMYK", "F", "I", "LAB")
_ALIKE = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB", "I;16B": "I;16"}
_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_RESOLUTION = (ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit)
_XMP = "XML:com.adobe.xmp"


class NoPictureError(Exception):
    """A value that should be a picture is none, or one that cannot be read. `problem` says why."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.problem = Problem(message, remedy, key="image")
        super().__init__(message)


def is_held(value: object) -> bool:
    """Whether this is a picture in memory: of Pillow, the bytes of a file, or `{"bytes": ..., "path": ...}`."""
    if isinstance(value, (Image.Image, bytes, bytearray, memoryview)):
        return True
    return isinstance(value, dict) and isinstance(value.get("bytes"), (bytes, bytearray, memoryview))


def reference_of(value: Any) -> DataPicture | str:
    """A picture in memory as a reference; of a picture in a file, its path. Raises NoPictureError."""
    if isinstance(value, DataPicture):
        return value
    if isinstance(value, Image.Image):
        return _of_pillow(value)
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        held, path = value.get("bytes"), value.get("path")
        if held is None and isinstance(path, (str, os.PathLike)):
            return os.fspath(path)
        value = held
    if isinstance(value, (bytes, bytearray, memoryview)):
        if not len(value):
            raise NoPictureError("the bytes of this picture are empty")
        return picture_of_bytes(bytes(value))
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str):
            return path
    raise NoPictureError(f"a picture is a path or a picture of Pillow, not {_kind_of(value)}", _remedy_for(value))


def content_hash(image: Image.Image) -> str:
    """The sha256 of what a picture of Pillow holds. Raises what Pillow raises for a broken file behind it."""
    image.load()
    digest = hashlib.sha256(_VERSION)
    told: Mapping[Any, Any] = image.info
    palette = b""
    if image.palette is not None:
        palette = image.palette.mode.encode() + bytes(image.palette.tobytes())
    parts = (
        f"{image.mode} {image.width}x{image.height}".encode(),
        palette,
        repr(told["transparency"]).encode() if "transparency" in told else b"",
        _bytes(told.get("icc_profile")),
        _exif_of(image),
        _bytes(told.get("xmp")),
        image.tobytes(),
    )
    for part in parts:  # with their lengths, so that no two pictures give the same bytes
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _of_pillow(image: Image.Image) -> DataPicture:
    try:
        sha256 = content_hash(image)
        kind, data = _encoded(image)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NoPictureError(f"this picture of Pillow cannot be read: {reason}") from error
    return DataPicture(f"data:image/{kind};sha256={sha256}", sha256, data)


def _encoded(image: Image.Image) -> tuple[str, bytes]:
    """The kind and the bytes of a file that holds the same pixels. Raises what Pillow raises."""
    if not image.width or not image.height:
        raise ValueError("it has no pixels")
    profile = _bytes(image.info.get("icc_profile"))
    if image.mode in _ALIKE:
        image, profile = image.convert(_ALIKE[image.mode]), profile if image.mode in ("RGBX", "PA") else b""
    elif image.mode not in (*_PNG, *_TIFF):
        image, profile = image.convert("RGB"), b""
    held, exif = io.BytesIO(), _exif_of(image)
    more: dict[str, Any] = {"icc_profile": profile or None}
    if exif:
        more["exif"] = exif
    if image.mode in _TIFF:
        more.pop("exif", None)
        image.save(held, "TIFF", **more)
        return "tiff", held.getvalue()
    chunks = PngImagePlugin.PngInfo()
    xmp = _bytes(image.info.get("xmp"))
    if xmp:
        chunks.add_itxt(_XMP, xmp.decode("utf-8", "replace"))
    if "transparency" in image.info:
        more["transparency"] = image.info["transparency"]
    image.save(held, "PNG", compress_level=1, pnginfo=chunks, **more)
    return "png", held.getvalue()


def _exif_of(image: Image.Image) -> bytes:
    """The EXIF data as the picture has them now; empty without any."""
    held = _bytes(image.info.get("exif"))
    if held:
        return held
    try:
        exif = image.getexif()
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # all tags are there, and Pillow has turned it upright
            exif = exif_of_tags(image)
            for tag in _RESOLUTION:
                exif.pop(tag, None)
        return exif.tobytes() if len(exif) or any(exif.get_ifd(ifd) for ifd in _IFDS) else b""
    except Exception:  # Pillow's reader raises nearly anything for damaged tags, and the pixels are good
        return b""


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def _kind_of(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def _remedy_for(value: object) -> str:
    if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
        return "PIL.Image.fromarray makes one of an array of 8-bit numbers"
    return "PIL.Image.open opens a file"
