"""A finished picture -> the bytes of a file, with the settings of its edit in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from joyedit.job.pictures.deep_png import write_deep_png
from joyedit.job.pictures.exif_block import ExifBlock
from joyedit.job.pictures.heif_writer import write_avif, write_heic
from joyedit.job.pictures.iptc import segment_of
from joyedit.job.pictures.metadata import Metadata
from joyedit.job.pictures.tiff_writer import Pixels, write_tiff

QUALITIES: Mapping[str, int] = {"jpg": 95, "webp": 95, "avif": 90, "heic": 60}
"""The quality of a format that has one, where nobody gives another. Each encoder has a scale of its own."""
_SEGMENT = 62_000  # a JPEG segment has 65,533 bytes; the rest is for its head and for tables
_EXIF_LIMIT = 60_000
_LONG_TEXT = 8 << 20
"""Bytes of the settings where no segment bounds them."""
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
    *,
    deep: Pixels | None = None,
) -> tuple[str, ...]:
    """Write `image` to `file` in one of the formats of joyedit, with `settings` embedded; gives what could not be kept.

    PNG: one iTXt chunk for each setting (Latin-1, 79 bytes at most). All others: the EXIF UserComment holds the
    settings as JSON; in JPEG and WebP values are shortened when they do not fit its 64 kB. `quality` (1 to 100; by
    default that of `QUALITIES`) is for the formats that lose something. `deep` are 16-bit pixels (H, W, C) in place of
    those of `image`, for PNG and TIFF. Raises ValueError for another format, OSError where it cannot be encoded.
    """
    quality = QUALITIES.get(format, 0) if quality is None else quality
    metadata, profile, _ = beside
    notes: list[str] = []
    if metadata.iptc and format not in ("jpg", "tiff"):
        notes.append(f"IPTC left out: {_NAMES.get(format, format)} has no place for it")
    if format == "png":
        _save_png(image, file, settings, beside, deep)
    elif format == "jpg":
        _save_jpeg(image, file, quality, settings, beside, notes=notes)
    elif format == "webp":
        more = {"xmp": metadata.xmp} if metadata.xmp else {}
        exif = _exif(metadata.exif, settings, notes)
        image.save(file, "WEBP", quality=quality, exact=True, icc_profile=profile or None, exif=exif, **more)
    elif format == "tiff":
        pixels = np.asarray(image) if deep is None else deep
        write_tiff(
            pixels[..., None] if pixels.ndim == 2 else pixels,
            file,
            _block(metadata.exif, settings, _LONG_TEXT),
            is_cmyk=image.mode == "CMYK",
            dpi=metadata.dpi,
            profile=profile,
            xmp=metadata.xmp,
            iptc=metadata.iptc,
        )
    elif format in ("avif", "heic"):
        block = _block(metadata.exif, settings, _LONG_TEXT)
        block.drop_orientation()  # the file itself says it
        write = write_avif if format == "avif" else write_heic
        write(image, file, quality=quality, exif=bytes(block), xmp=metadata.xmp, profile=profile)
    else:
        raise ValueError(f"format is one of png, jpg, webp, tiff, avif and heic, not {format!r}")
    return tuple(notes)


_NAMES = {"png": "a PNG", "webp": "a WebP", "avif": "an AVIF", "heic": "a HEIC"}


def _save_png(
    image: Image.Image, file: BinaryIO, settings: Mapping[str, str], beside: Beside, deep: Pixels | None
) -> None:
    metadata = beside.metadata
    chunks = PngImagePlugin.PngInfo()
    if metadata.xmp:
        chunks.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode())
    for key, value in settings.items():
        chunks.add_itxt(key, value.replace("\0", ""))
    more: dict[str, Any] = {"icc_profile": beside.profile or None}
    more |= {"exif": metadata.exif} if metadata.exif else {}
    more |= {"dpi": metadata.dpi} if metadata.dpi else {}
    if deep is None:
        image.save(file, "PNG", pnginfo=chunks, **more)
    else:
        write_deep_png(deep, file, pnginfo=chunks, **more)


def _save_jpeg(
    image: Image.Image,
    file: BinaryIO,
    quality: int,
    settings: Mapping[str, str],
    beside: Beside,
    *,
    notes: list[str],
) -> None:
    metadata = beside.metadata
    more: dict[str, Any] = {"icc_profile": beside.profile or None}
    if len(metadata.xmp) > _SEGMENT:
        notes.append("XMP left out: it is too large for a JPEG")
    elif metadata.xmp:
        more["xmp"] = metadata.xmp
    more |= {"dpi": _whole(metadata.dpi)} if metadata.dpi else {}
    segment = segment_of(metadata.iptc) if metadata.iptc else b""
    if segment is None:
        notes.append("IPTC left out: it is too large for a JPEG")
    more |= {"extra": segment} if segment else {}
    more |= {} if beside.sampling is None else {"subsampling": beside.sampling}
    image.save(file, "JPEG", quality=quality, exif=_exif(metadata.exif, settings, notes), **more)


def _whole(dpi: tuple[float, float]) -> tuple[int, int]:
    return round(dpi[0]), round(dpi[1])


def _exif(held: bytes, settings: Mapping[str, str], notes: list[str]) -> bytes:
    """The EXIF of the picture, with the settings as the user's comment. That of the picture goes along."""
    if len(held) > _SEGMENT - _LEAST_TEXT:
        notes.append("EXIF left out: it is too large beside the settings")
        held = b""
    return b"Exif\0\0" + bytes(_block(held, settings, min(_EXIF_LIMIT, _SEGMENT - len(held))))


def _block(held: bytes, settings: Mapping[str, str], most: int) -> ExifBlock:
    """The EXIF `held`, with the settings as the user's comment: at most so many bytes."""
    block = ExifBlock(held)
    before = {"comment": block.comment} if block.comment else {}
    # JSON with \u escapes is plain ASCII, the one UserComment charset that every reader agrees on.
    block.set_comment(_text(dict(settings) | before, most).encode("ascii"))
    return block


def _text(settings: dict[str, str], most: int) -> str:
    """The settings as JSON of at most so many bytes."""
    text = json.dumps(settings)
    while len(text) > most:
        longest = max(settings, key=lambda key: len(settings[key]))
        settings[longest] = settings[longest][: len(settings[longest]) // 2] + "…"
        text = json.dumps(settings)
    return text
