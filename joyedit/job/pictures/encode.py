"""A finished picture -> the bytes of a file, with the settings of its edit in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import BinaryIO

from PIL import ExifTags, Image, PngImagePlugin

DEFAULT_QUALITY = 95
_EXIF_LIMIT = 60_000  # a JPEG segment has 65,533 bytes; the rest is for the Exif frame


def save_picture(
    image: Image.Image, file: BinaryIO, format: str, quality: int | None, metadata: Mapping[str, str]
) -> None:
    """Write `image` to `file` as "png", "jpg" or "webp", with `metadata` embedded.

    PNG: one iTXt chunk for each key (Latin-1, 79 bytes at most). JPEG and WebP: the EXIF
    UserComment holds the metadata as JSON; values are shortened when they do not fit its 64 kB.
    `quality` (1 to 100, default 95) is for JPEG and WebP. Raises ValueError for another format.
    """
    quality = DEFAULT_QUALITY if quality is None else quality
    if format == "png":
        chunks = PngImagePlugin.PngInfo()
        for key, value in metadata.items():
            chunks.add_itxt(key, value.replace("\0", ""))
        image.save(file, "PNG", pnginfo=chunks)
    elif format == "jpg":
        image.save(file, "JPEG", quality=quality, exif=_exif(metadata))
    elif format == "webp":
        image.save(file, "WEBP", quality=quality, exif=_exif(metadata))
    else:
        raise ValueError(f"format is png, jpg or webp, not {format!r}")


def _exif(metadata: Mapping[str, str]) -> bytes:
    held = dict(metadata)
    text = json.dumps(held)
    while len(text) > _EXIF_LIMIT:
        longest = max(held, key=lambda key: len(held[key]))
        held[longest] = held[longest][: len(held[longest]) // 2] + "…"
        text = json.dumps(held)
    exif = Image.Exif()
    # JSON with \u escapes is plain ASCII, the one UserComment charset that every reader agrees on.
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + text.encode("ascii")
    return exif.tobytes()
