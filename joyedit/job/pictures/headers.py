"""The header of a picture file: which reader takes it, its size and its EXIF orientation. No pixel is read here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from joyedit.errors import ItemError
from joyedit.job.pictures.tiff import refuse_large_tiles, refuse_long_tags
from joyedit.job.spec import MAX_PIXELS

MOST_EXIF = 16 << 20
"""Longer EXIF is passed over: no camera writes it, and each of its values would become an object."""


def open_image(file: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Pillow's lazy reader for `file`, by its first bytes; the ending of its name does not count.

    This calls the readers directly. `Image.open` would warn of large pictures through the warning filters of
    the whole process, try dozens of other formats, and give no reason.
    """
    head = file.read(32)
    file.seek(0)
    image: ImageFile.ImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        image = PngImagePlugin.PngImageFile(file, name)
    elif head.startswith(b"\xff\xd8\xff"):
        image = JpegImagePlugin.JpegImageFile(file, name)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        image = WebPImagePlugin.WebPImageFile(file, name)
    elif head.startswith((b"GIF87a", b"GIF89a")):
        image = GifImagePlugin.GifImageFile(file, name)
    elif head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        refuse_long_tags(file, name)
        image = TiffImagePlugin.TiffImageFile(file, name)
        refuse_large_tiles(image, name)
    elif head.startswith(b"BM"):
        image = BmpImagePlugin.BmpImageFile(file, name)
    elif head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        image = PpmImagePlugin.PpmImageFile(file, name)
    else:
        raise ItemError("unreadable_picture", f"{name}: {_not_readable(head)}")
    if image.width * image.height > max_pixels:
        limit = f"{max_pixels // 1_000_000} million" if max_pixels % 1_000_000 == 0 else str(max_pixels)
        message = f"{image.width} x {image.height} is more than {limit} pixels (--max-pixels allows more)"
        raise ItemError("picture_too_large", f"{name}: {message}")
    return image


def _not_readable(head: bytes) -> str:
    brand = head[8:12]
    if head[4:8] == b"ftyp" and brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC pictures are not supported; convert it to PNG or JPEG"
    if head[4:8] == b"ftyp" and brand in (b"avif", b"avis"):
        return "AVIF pictures are not supported; convert it to PNG or JPEG"
    return "not a picture of a supported kind (PNG, JPEG, WebP, GIF, TIFF, BMP, PNM)"


@dataclass(frozen=True, slots=True)
class PngTail:
    """What follows the pixels of a PNG: the eXIf chunk, and how many bytes its texts may take in memory."""

    exif: bytes | None = None
    bytes: int = 0


def orientation_of(image: ImageFile.ImageFile, tail: PngTail) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or if it makes no sense."""
    if "exif" not in image.info and tail.exif is not None:
        image.info["exif"] = tail.exif
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and len(exif) > MOST_EXIF:
        return 1
    try:
        # The base class's method: that of the PNG reader would decode the whole picture first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF is no reason to refuse the picture: use it as it is stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def png_tail(image: ImageFile.ImageFile) -> PngTail:
    """Skips from chunk to chunk, and reads no pixels. Empty for other pictures."""
    file = image.fp
    if not isinstance(image, PngImagePlugin.PngImageFile) or file is None:
        return PngTail()
    here = file.tell()
    exif, taken = None, 0
    try:
        # The reader stands behind the head of the chunk with the first pixels.
        file.seek(image.tile[0].offset - 8 if image.tile else 8)
        while len(frame := file.read(8)) == 8:
            length, kind = int.from_bytes(frame[:4], "big"), frame[4:]
            if kind == b"eXIf" and exif is None:
                exif = file.read(min(length, 1 << 20))
                file.seek(length - len(exif) + 4, os.SEEK_CUR)
                continue
            if kind not in (b"IDAT", b"fdAT"):
                # Pillow inflates a text to at most 1 MiB, and all of them to 64; it keeps others as they are.
                taken += 4 << 20 if kind in (b"zTXt", b"iTXt") else 3 * length
            file.seek(length + 4, os.SEEK_CUR)
        # No chunk can be longer than the rest of the file.
        return PngTail(exif, min(taken, 3 * file.seek(0, os.SEEK_END) + (256 << 20)))
    finally:
        file.seek(here)
