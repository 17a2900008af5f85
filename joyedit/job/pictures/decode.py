"""Picture files -> pictures: the size from the header, decoding, orientation, fitting to a bucket.

Any file gives a picture or an ItemError: "missing_picture", "empty_picture", "truncated_picture",
"unreadable_picture", "picture_too_large", "picture_changed". `colours.py` converts the colours. Only
`allow_pixels` changes a global setting of Pillow. Several threads may call every function at once.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

from PIL import Image, ImageFile, ImageOps, JpegImagePlugin, TiffImagePlugin

from joyedit.job.contained import ContainedPicture, suffix_of
from joyedit.job.data_picture import DataPicture
from joyedit.job.hashing import HashCache, sha256_of
from joyedit.job.pictures.alpha import StoredAlpha
from joyedit.job.pictures.budget import PlainCaller, Reading, shared_budget
from joyedit.job.pictures.colours import own_colours, to_rgb_and_alpha
from joyedit.job.pictures.decoder_messages import caught_messages
from joyedit.job.pictures.deep import scaled_by_pillow
from joyedit.job.pictures.frames import chosen_frame
from joyedit.job.pictures.given import Given, Opened, open_picture, opened, read_errors, refuse_special_file, unchanged
from joyedit.job.pictures.headers import open_image, orientation_of
from joyedit.job.pictures.jpeg import JpegPicture, check_data, check_end
from joyedit.job.pictures.memory import decoding_need, keeps_decoder
from joyedit.job.pictures.png import PngPicture
from joyedit.job.pictures.profiles import COLOUR_KEYS
from joyedit.job.pictures.properties import PictureProperties, PropertiesReader
from joyedit.job.pictures.python_warnings import gathered_warnings, is_hooked
from joyedit.job.pictures.tiff_reader import TiffPicture
from joyedit.job.sizes import Size
from joyedit.job.spec import MAX_PIXELS, Seen, Stamp

# fmt: off
SUPPORTED_SUFFIXES: frozenset[str] = frozenset((
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo",
    ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs",
    ".heic", ".heics", ".heif", ".heifs", ".hif",
))
"""The endings (lower case) of picture files that joyedit can read; those of HEIC need the extra `heif`."""

UNREADABLE_SUFFIXES: frozenset[str] = frozenset((".jxl", ".jp2", ".psd"))
"""The endings of pictures that joyedit cannot read. In a folder such a file is a failed item, not passed over."""
# fmt: on

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo")
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "PNG": (".png", ".apng"),
    "JPEG": _JPEG,
    "MPO": _JPEG,
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs", ".heif", ".hif"),
    "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
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
_warnings_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture: 8-bit RGB, upright. `notes` name the changes that decoding made.

    `seen` is hash and stamp of the file, if the caller asked for that; `own` the same of the picture in its own colours
    and with its alpha (L, LA, RGB, RGBA or CMYK; None where RGB says the same, and for others).
    """

    image: Image.Image
    properties: PictureProperties
    notes: tuple[str, ...] = ()
    seen: Seen | None = None
    own: Image.Image | None = None


def allow_pixels(count: int) -> None:
    """Raise Pillow's own limit, which some of its readers check, for the whole process."""
    if Image.MAX_IMAGE_PIXELS is not None and count > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, count)


def header_size(picture: Given, max_pixels: int = MAX_PIXELS) -> Size:
    """The (height, width) of the upright picture, from its header alone.

    An EXIF orientation that turns the picture by 90 degrees swaps the two. A cache holds the answers for the
    last few thousand files, by path, time and length. Raises ItemError.
    """
    if isinstance(picture, DataPicture):
        return _size_in(picture, max_pixels)
    if isinstance(picture, ContainedPicture):
        return _contained_size(picture, picture.stamp, max_pixels)
    name = os.fspath(picture)
    status = refuse_special_file(name)
    return _header_size(name, max_pixels, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_SIZE_CACHE)
def _header_size(name: str, max_pixels: int, _mtime: int, _length: int) -> Size:
    return _size_in(name, max_pixels)


@lru_cache(maxsize=_SIZE_CACHE)
def _contained_size(picture: ContainedPicture, _stamp: tuple[int, ...] | None, max_pixels: int) -> Size:
    return _size_in(picture, max_pixels)


def _size_in(picture: Opened, max_pixels: int) -> Size:
    # Reading the pixels later gives the same warnings, and then they become notes.
    with read_errors(picture), gathered_warnings(), open_picture(picture) as file:
        image = open_image(file, str(picture), max_pixels)
        width, height = image.size
        if not isinstance(image, TiffImagePlugin.TiffImageFile) and orientation_of(image) >= 5:
            width, height = height, width
        return height, width


def load_picture(
    picture: Given,
    max_pixels: int = MAX_PIXELS,
    hashes: HashCache | None = None,
    reading: Reading | None = None,
    *,
    follows_profile: bool = True,
    keeps_own: bool = False,
) -> Picture:
    """The whole picture as upright 8-bit RGB, the first frame of an animation. Raises ItemError.

    With `hashes` (the hashes of earlier files) it also hashes the file. It refuses a file that changes
    meanwhile, so that picture and hash belong together. Before its first pixel is read, the picture waits for its
    share of memory; that is given back at the end of `reading`, or here if there is none. Without `follows_profile`
    the numbers of the file are taken for sRGB. With `keeps_own` the picture in its own colours comes too.
    """
    if reading is None:
        with Reading(shared_budget()) as own:
            return load_picture(picture, max_pixels, hashes, own, follows_profile=follows_profile, keeps_own=keeps_own)
    given = opened(picture)
    if isinstance(given, str):
        refuse_special_file(given)
    with read_errors(given), open_picture(given) as file, unchanged(given, file) as stamp:
        seen = None if hashes is None else _hash(given, file, stamp, hashes)
        with gathered_warnings() as warned:
            found = _decode(
                str(given),
                file,
                _length(file, given, stamp),
                max_pixels,
                reading,
                follows_profile=follows_profile,
                keeps_own=keeps_own,
            )
    told = [*found.notes, *(f"the decoder warns: {warning}" for warning in warned)]
    return replace(found, notes=tuple(dict.fromkeys(told)), seen=seen)


def _hash(picture: Opened, file: BinaryIO, stamp: Stamp, hashes: HashCache) -> Seen:
    if isinstance(picture, DataPicture):
        return Seen(picture.sha256, stamp)
    name = str(picture)
    known = hashes.get(name, stamp)
    if known is None:
        known = sha256_of(file)
        file.seek(0)
        hashes.put(name, stamp, known)
    return Seen(known, stamp)


def _length(file: BinaryIO, picture: Opened, stamp: Stamp) -> int:
    """The bytes of the picture; of one in a larger file, its own."""
    if not isinstance(picture, ContainedPicture):
        return stamp.size
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    return length


def _decode(
    name: str,
    file: BinaryIO,
    size: int,
    max_pixels: int,
    reading: Reading,
    *,
    follows_profile: bool,
    keeps_own: bool,
) -> Picture:
    """The picture, its properties, and the notes about it."""
    image = open_image(file, name, max_pixels)
    # Pillow itself turns a TIFF upright while it decodes the file.
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    orientation = 1 if is_tiff else orientation_of(image)
    is_turned = orientation in _TRANSPOSE
    reading.admit(name, decoding_need(image, size, is_turned=is_turned))
    notes: list[str] = _wrong_ending(name, image)
    properties = PropertiesReader(image, notes)
    scaled = scaled_by_pillow(image)
    beside = {key: image.info[key] for key in COLOUR_KEYS if key in image.info}
    _load(image, file, notes, reading)
    first = chosen_frame(image, name, reading.caller, notes)
    notes += getattr(image, "reading_notes", [])
    if first is image and keeps_decoder(image):  # and its memory; counting the frames may also move on in the file
        first = image.copy()
        first.info = dict(image.info)
    first.info.update(beside)  # another frame has lost it
    notes += [scaled] if scaled else []
    own = own_colours(first) if keeps_own else None
    rgb, alpha = to_rgb_and_alpha(first, notes, follows_profile=follows_profile)
    if rgb is first:
        rgb = first._new(first.im)  # a plain picture with the same pixels: it holds neither file nor reader
    colours = dict(first.info)
    del first
    if is_turned:
        rgb = rgb.transpose(_TRANSPOSE[orientation])
        alpha = None if alpha is None else alpha.transpose(_TRANSPOSE[orientation])
        own = None if own is None else own.transpose(_TRANSPOSE[orientation])
        notes.append(f"EXIF orientation {orientation} applied")
    rgb.info = {}
    kept = None if alpha is None else StoredAlpha.of(alpha)
    told = properties.read(image, colours, (rgb.height, rgb.width), kept)
    return Picture(image=rgb, properties=told, notes=tuple(notes), own=own)


def _load(image: ImageFile.ImageFile, file: BinaryIO, notes: list[str], reading: Reading) -> None:
    """Decode. What a decoder says by itself is the reason of its error, or a note. Raises nearly anything."""
    if isinstance(image, PngPicture):
        image.note_damage()
    with _quiet_about_size(image):
        if not isinstance(image, TiffPicture):
            image.load()
        else:
            image.check = reading.caller.check
            _load_tiff(image, notes, reading)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        file.seek(0)
        lacks_end = isinstance(image, JpegPicture) and image.lacks_end
        (check_end if lacks_end else check_data)(file.read(), notes)


def _load_tiff(image: TiffPicture, notes: list[str], reading: Reading) -> None:
    if not image.use_load_libtiff:
        image.load()
        return
    error: Exception | None = None
    with caught_messages(reading.caller) as messages:
        try:
            image.load()
        except Exception as raised:
            error = raised
    if error is None and messages.text:
        notes.append(f"libtiff says: {messages.text}")
    if isinstance(error, OSError) and messages.text:
        raise OSError(messages.text) from error  # which knows only a number ("decoder error -2")
    if error is not None:
        raise error
    for piece in image.jpeg_pieces():
        reading.caller.check()
        check_data(piece, notes)


def picture_in_memory(image: Image.Image, *, follows_profile: bool = True) -> Picture:
    """A picture in memory by the rules for files, with no properties but its alpha. Raises ItemError if it shows
    nothing.
    """
    image.load()
    notes: list[str] = []
    upright = ImageOps.exif_transpose(chosen_frame(image, "the picture", PlainCaller(), notes))
    rgb, alpha = to_rgb_and_alpha(upright, notes, follows_profile=follows_profile)
    kept = None if alpha is None else StoredAlpha.of(alpha)
    told = PictureProperties(kind="", size=(rgb.height, rgb.width), mode="RGB", colours={}, alpha=kept)
    return Picture(image=rgb, properties=told, notes=tuple(notes))


def _wrong_ending(name: str, image: ImageFile.ImageFile) -> list[str]:
    suffix = suffix_of(name)
    kind = image.format or ""
    return (
        [f"a {kind} picture, although its name ends in {suffix}"] if suffix not in ("", *_ENDINGS.get(kind, ())) else []
    )


@contextmanager
def _quiet_about_size(image: Image.Image) -> Iterator[None]:
    """Stops the warning of some readers about large pictures; `open_image` has already checked the size."""
    limit = Image.MAX_IMAGE_PIXELS
    if is_hooked() or limit is None or image.width * image.height <= limit:
        yield
        return
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
