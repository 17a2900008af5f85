"""A finished picture -> the bytes of a file, with the settings of its edit in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, PngImagePlugin

from joyedit.job.pictures.exif_block import ExifBlock
from joyedit.job.pictures.metadata import Metadata

DEFAULT_QUALITY = 95
_SEGMENT = 62_000  # a JPEG segment has 65,533 bytes; the rest is for its head and for tables
_EXIF_LIMIT = 60_000
_NO_METADATA = Metadata()
_LEAST_TEXT = 2_000
"""The settings get so many bytes at least; EXIF that leaves less is left out."""


class Beside(NamedTuple):
    """What a file holds beside the pixels. `profile` is an ICC profile.

    `sampling` is that of a JPEG's colours (0: 4:4:4, 1: 4:2:2, 2: 4:2:0); with None the encoder decides.
    """

    metadata: Metadata = _NO_METADATA
    profile: bytes = b""
    sampling: int | None = None


_NOTHING = Beside()


def save_picture(
    image: Image.Image,
    file: BinaryIO,
    format: str,
    quality: int | None,
    settings: Mapping[str, str],
    beside: Beside = _NOTHING,
) -> tuple[str, ...]:
    """Write `image` to `file` as "png", "jpg" or "webp", with `settings` embedded; gives what could not be kept.

    PNG: one iTXt chunk for each setting (Latin-1, 79 bytes at most). JPEG and WebP: the EXIF
    UserComment holds the settings as JSON; values are shortened when they do not fit its 64 kB.
    `quality` (1 to 100, default 95) is for JPEG and WebP. Raises ValueError for another format.
    """
    quality = DEFAULT_QUALITY if quality is None else quality
    metadata, profile, sampling = beside
    notes: list[str] = []
    more: dict[str, Any] = {"icc_profile": profile} if profile else {"icc_profile": None}
    if format == "png":
        chunks = PngImagePlugin.PngInfo()
        if metadata.xmp:
            chunks.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode())
        for key, value in settings.items():
            chunks.add_itxt(key, value.replace("\0", ""))
        more |= {"exif": metadata.exif} if metadata.exif else {}
        more |= {"dpi": metadata.dpi} if metadata.dpi else {}
        image.save(file, "PNG", pnginfo=chunks, **more)
    elif format == "jpg":
        if len(metadata.xmp) > _SEGMENT:
            notes.append("XMP left out: it is too large for a JPEG")
        elif metadata.xmp:
            more["xmp"] = metadata.xmp
        more |= {"dpi": _whole(metadata.dpi)} if metadata.dpi else {}
        more |= {} if sampling is None else {"subsampling": sampling}
        image.save(file, "JPEG", quality=quality, exif=_exif(metadata.exif, settings, notes), **more)
    elif format == "webp":
        more |= {"xmp": metadata.xmp} if metadata.xmp else {}
        image.save(file, "WEBP", quality=quality, exact=True, exif=_exif(metadata.exif, settings, notes), **more)
    else:
        raise ValueError(f"format is png, jpg or webp, not {format!r}")
    return tuple(notes)


def _whole(dpi: tuple[float, float]) -> tuple[int, int]:
    return round(dpi[0]), round(dpi[1])


def _exif(held: bytes, settings: Mapping[str, str], notes: list[str]) -> bytes:
    """The EXIF of the picture, with the settings as the user's comment. That of the picture goes along."""
    if len(held) > _SEGMENT - _LEAST_TEXT:
        notes.append("EXIF left out: it is too large beside the settings")
        held = b""
    block = ExifBlock(held)
    before = {"comment": block.comment} if block.comment else {}
    # JSON with \u escapes is plain ASCII, the one UserComment charset that every reader agrees on.
    block.set_comment(_text(dict(settings) | before, min(_EXIF_LIMIT, _SEGMENT - len(held))).encode("ascii"))
    return b"Exif\0\0" + bytes(block)


def _text(settings: dict[str, str], most: int) -> str:
    """The settings as JSON of at most so many bytes."""
    text = json.dumps(settings)
    while len(text) > most:
        longest = max(settings, key=lambda key: len(settings[key]))
        settings[longest] = settings[longest][: len(settings[longest]) // 2] + "…"
        text = json.dumps(settings)
    return text
