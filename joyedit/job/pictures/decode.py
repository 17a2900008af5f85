"""Picture files -> pictures: the size from the header, decoding, orientation, fitting to a bucket.

Any file gives a picture or an ItemError: "missing_picture", "empty_picture", "truncated_picture",
"unreadable_picture", "picture_too_large", "picture_changed". `colours.py` converts the colours. Only
`allow_pixels` changes a global setting of Pillow. Several threads may call every function at once.
"""

from __future__ import annotations

import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, BinaryIO

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from joyedit.errors import ItemError
from joyedit.job.hashing import HashCache, sha256_of
from joyedit.job.pictures.colours import to_rgb
from joyedit.job.spec import MAX_PIXELS, Seen, Size, Stamp

# fmt: off
SUPPORTED_SUFFIXES: frozenset[str] = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif",
    ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
))
"""The endings (lower case) of picture files that joyedit can read."""

UNREADABLE_SUFFIXES: frozenset[str] = frozenset((".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".psd"))
"""The endings of pictures that joyedit cannot read. In a folder such a file is a failed item, not passed over."""
# fmt: on

_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
_SIZE_CACHE = 4096

_TRANSPOSE: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TORN = re.compile("truncated|unexpected end|not enough image data", re.IGNORECASE)
_warnings_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture: 8-bit RGB, upright. `notes` name the changes that decoding made.

    `seen` is hash and stamp of the file, if the caller asked for them.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()
    seen: Seen | None = None


def allow_pixels(count: int) -> None:
    """Raise Pillow's own limit, which some of its readers check, for the whole process."""
    if Image.MAX_IMAGE_PIXELS is not None and count > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, count)


def header_size(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Size:
    """The (height, width) of the upright picture, from its header alone.

    An EXIF orientation that turns the picture by 90 degrees swaps the two. A cache holds the answers for the
    last few thousand files, by path, time and length. Raises ItemError.
    """
    name = os.fspath(path)
    status = refuse_special_file(name)
    return _header_size(name, max_pixels, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_SIZE_CACHE)
def _header_size(name: str, max_pixels: int, _mtime: int, _length: int) -> Size:
    with read_errors(name), open(name, "rb") as file:
        image = open_image(file, name, max_pixels)
        width, height = image.size
        if not isinstance(image, TiffImagePlugin.TiffImageFile) and _orientation(image) >= 5:
            width, height = height, width
        return height, width


def load_picture(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, hashes: HashCache | None = None
) -> Picture:
    """The whole picture as upright 8-bit RGB, the first frame of an animation. Raises ItemError.

    With `hashes` (the hashes of earlier files) it also hashes the file. It refuses a file that changes
    meanwhile, so that picture and hash belong together.
    """
    name = os.fspath(path)
    refuse_special_file(name)
    with read_errors(name), open(name, "rb") as file, _unchanged(name, file) as stamp:
        seen = None if hashes is None else _hash(name, file, stamp, hashes)
        return _decode(name, file, max_pixels, seen)


def _hash(name: str, file: BinaryIO, stamp: Stamp, hashes: HashCache) -> Seen:
    known = hashes.get(name, stamp)
    if known is None:
        known = sha256_of(file)
        file.seek(0)
        hashes.put(name, stamp, known)
    return Seen(known, stamp)


def _decode(name: str, file: BinaryIO, max_pixels: int, seen: Seen | None) -> Picture:
    image = open_image(file, name, max_pixels)
    # Pillow itself turns a TIFF upright while it decodes the file.
    turned = isinstance(image, TiffImagePlugin.TiffImageFile)
    orientation = 1 if turned else _orientation(image)
    with _quiet_about_size(image):
        image.load()
    notes: list[str] = _wrong_ending(name, image)
    first: Image.Image = image
    if getattr(image, "is_animated", False):
        first = image.copy()  # counting the frames may move on in the file
        first.info = dict(image.info)
        kind = "pages" if turned else "frames"
        frames = int(getattr(image, "n_frames", 2))
        notes.append(f"only the first of {frames} {kind} is used")
    rgb = to_rgb(first, notes)
    if orientation in _TRANSPOSE:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
        notes.append(f"EXIF orientation {orientation} applied")
    if rgb is image:
        rgb = image.copy()
    rgb.info = {}
    return Picture(image=rgb, notes=tuple(notes), seen=seen)


def rgb_picture(image: Image.Image) -> Image.Image:
    """A picture in memory as upright 8-bit RGB, by the rules for files."""
    return to_rgb(ImageOps.exif_transpose(image), [])


def _wrong_ending(name: str, image: ImageFile.ImageFile) -> list[str]:
    suffix = os.path.splitext(name)[1].lower()
    kind = image.format or ""
    return (
        [f"a {kind} picture, although its name ends in {suffix}"] if suffix not in ("", *_ENDINGS.get(kind, ())) else []
    )


def fit(image: Image.Image, bucket: Size) -> Image.Image:
    """`image` scaled to cover `bucket` (height, width) and cropped to it at the centre.

    Each side is rounded up. The resampling is bilinear over the whole support. The crop cuts off the floor of
    half the excess at the top and on the left.
    """
    height, width = bucket
    scale = max(height / image.height, width / image.width)
    tall, wide = math.ceil(image.height * scale), math.ceil(image.width * scale)
    left, top = (wide - width) // 2, (tall - height) // 2
    if tall * wide <= 16 * height * width:
        scaled = image.resize((wide, tall), Image.Resampling.BILINEAR)
        return scaled.crop((left, top, left + width, top + height))
    # A strip thousands of times longer than wide: compute only the part that stays.
    across, down = image.width / wide, image.height / tall
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def refuse_special_file(name: str) -> os.stat_result:
    """The file's status. Raises ItemError for a pipe or a device: opening one could wait for ever."""
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ItemError("missing_picture", f"{name}: no such file") from error
    except (OSError, ValueError) as error:
        raise ItemError("unreadable_picture", f"{name}: {_reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ItemError("unreadable_picture", f"{name}: not a file")
    if status.st_size == 0:
        raise ItemError("empty_picture", f"{name}: the file is empty")
    return status


@contextmanager
def _unchanged(name: str, file: BinaryIO) -> Iterator[Stamp]:
    """Gives the stamp of the open file. Raises ItemError if it is another one at the end."""
    before = Stamp.of(os.fstat(file.fileno()))
    reading_error: Exception | None = None
    try:
        yield before
    except Exception as error:  # if somebody writes the file at this moment, that is the true reason
        reading_error = error
    after = Stamp.of(os.fstat(file.fileno()))
    if (before.size, before.mtime_ns) != (after.size, after.mtime_ns):
        raise ItemError("picture_changed", f"{name}: the file changed while it was read") from reading_error
    if reading_error is not None:
        raise reading_error


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turns every exception of Pillow into an ItemError."""
    try:
        yield
    except ItemError:
        raise
    except FileNotFoundError as error:
        raise ItemError("missing_picture", f"{name}: no such file") from error
    except Image.DecompressionBombError as error:
        raise ItemError("picture_too_large", f"{name}: {error}") from error
    except MemoryError as error:
        raise ItemError("picture_too_large", f"{name}: not enough memory to decode it") from error
    except Exception as error:  # Pillow's readers raise nearly every kind: struct.error, KeyError, SyntaxError...
        reason = _cut_webp(name) or _reason(error)
        code = "truncated_picture" if _TORN.search(reason) else "unreadable_picture"
        raise ItemError(code, f"{name}: {reason}") from error


def _cut_webp(name: str) -> str | None:
    """The reason if a WebP file is shorter than its header says; the reader of WebP gives no reason of its own."""
    try:
        with open(name, "rb") as file:
            head, size = file.read(12), os.fstat(file.fileno()).st_size
    except OSError:
        return None
    message = 8 + int.from_bytes(head[4:8], "little")
    is_cut = head[:4] == b"RIFF" and head[8:] == b"WEBP" and size < message
    return f"the file is truncated: {size} of {message} bytes" if is_cut else None


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    return " ".join(text.split()) if text else type(error).__name__  # on one line


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
        image = TiffImagePlugin.TiffImageFile(file, name)
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


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or if it makes no sense."""
    if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
        late = _late_png_exif(image.fp)
        if late is not None:
            image.info["exif"] = late
    try:
        # The base class's method: that of the PNG reader would decode the whole picture first.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF is no reason to refuse the picture: use it as it is stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _late_png_exif(file: IO[bytes] | None) -> bytes | None:
    """The eXIf chunk of a PNG if it follows the pixels. Skips from chunk to chunk, and reads no pixels."""
    if file is None:
        return None
    here = file.tell()
    try:
        file.seek(8)
        while len(frame := file.read(8)) == 8:
            length, kind = int.from_bytes(frame[:4], "big"), frame[4:]
            if kind == b"eXIf":
                return file.read(min(length, 1 << 20))
            file.seek(length + 4, os.SEEK_CUR)
        return None
    finally:
        file.seek(here)


@contextmanager
def _quiet_about_size(image: Image.Image) -> Iterator[None]:
    """Stops the warning of some readers about large pictures; `open_image` has already checked the size."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or image.width * image.height <= limit:
        yield
        return
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
