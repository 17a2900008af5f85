"""The header of a picture file: which reader takes it, its size and its EXIF orientation. No pixel is read here."""

from __future__ import annotations

from typing import IO

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    PpmImagePlugin,
    WebPImagePlugin,
)

from joyedit.contents import HEAD as CONTENT_HEAD
from joyedit.contents import content_of
from joyedit.errors import ItemError
from joyedit.job.pictures import heif
from joyedit.job.pictures.big_endian_tiff import MARK, as_plain_tiff
from joyedit.job.pictures.jpeg import open_jpeg
from joyedit.job.pictures.png import MOST_EXIF, PngPicture
from joyedit.job.pictures.stated_colours import find_colours
from joyedit.job.pictures.tiff import refuse_large_tiles, refuse_long_tags
from joyedit.job.pictures.tiff_reader import TiffPicture
from joyedit.job.spec import MAX_PIXELS

KINDS = "PNG, JPEG, WebP, AVIF, HEIC, GIF, TIFF, BMP, PNM"
HEAD = 64
"""Bytes of a file that tell its kind."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_GIF = (b"GIF87a", b"GIF89a")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MARKS = (_PNG, _JPEG, *_GIF, *_TIFF)


def open_image(file: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Pillow's lazy reader for `file`, by its first bytes; the ending of its name does not count.

    This calls the readers directly. `Image.open` would warn of large pictures through the warning filters of
    the whole process, try dozens of other formats, and give no reason.
    """
    head = file.read(HEAD)
    file.seek(0)
    image: ImageFile.ImageFile
    if head.startswith(_PNG):
        if head[12:16] == b"CgBI":
            message = "a PNG in the form of iOS apps (CgBI) cannot be read; save it anew as a plain PNG on a Mac"
            raise ItemError("unreadable_picture", f"{name}: {message}")
        image = PngPicture(file, name)
    elif head.startswith(_JPEG):
        image = open_jpeg(file, name)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        image = WebPImagePlugin.WebPImageFile(file, name)
    elif head.startswith(_GIF):
        image = GifImagePlugin.GifImageFile(file, name)
    elif head.startswith(_TIFF):
        refuse_long_tags(file, name)
        image = TiffPicture(as_plain_tiff(file) if head.startswith(MARK) else file, name)
        refuse_large_tiles(image, name)
    elif head.startswith(b"BM"):
        image = BmpImagePlugin.BmpImageFile(file, name)
    elif head[:1] == b"P" and head[1:2] in b"123456f" and head[2:3].isspace():
        image = PpmImagePlugin.PpmImageFile(file, name)
    elif (kind := heif.kind_of(head)) is not None:
        image = heif.open_heif(file, name, kind)
    else:
        file.seek(0)
        held = content_of(file.read(CONTENT_HEAD))
        message = f"not a picture of a supported kind ({KINDS})" if held is None else f"it holds {held}"
        raise ItemError("unreadable_picture", f"{name}: {message}")
    find_colours(image, file)
    if image.width * image.height > max_pixels:
        limit = f"{max_pixels // 1_000_000} million" if max_pixels % 1_000_000 == 0 else str(max_pixels)
        message = f"{image.width} x {image.height} is more than {limit} pixels (--max-pixels allows more)"
        raise ItemError("picture_too_large", f"{name}: {message}")
    return image


def holds_picture(head: bytes) -> bool:
    """Whether a file with these first bytes (`HEAD` of them) is surely a picture. BMP and PNM have no mark for that."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(_MARKS) or is_webp or heif.kind_of(head) is not None


def orientation_of(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or if it makes no sense."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and len(exif) > MOST_EXIF:
        return 1
    try:
        # The base class's method: that of the PNG reader would decode the whole picture first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF is no reason to refuse the picture: use it as it is stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
