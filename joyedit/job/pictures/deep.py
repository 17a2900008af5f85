"""Pictures of 16 bits: their own values, read beside the 8-bit picture of the model, and put back where no edit is.

The model computes with 8 bits of information, so an edit gains nothing from more. What it left alone does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from joyedit.job.pictures import tiff, tiff_layout
from joyedit.job.pictures.budget import Reading, shared_budget
from joyedit.job.pictures.given import Given, open_picture, opened, read_errors
from joyedit.job.pictures.headers import open_image, orientation_of
from joyedit.job.pictures.memory import Need
from joyedit.job.pictures.png import PngPicture
from joyedit.job.pictures.tiff_pixels import read_array
from joyedit.job.pictures.tiff_reader import TiffPicture

Deep = NDArray[np.uint16]

DEEP_FORMATS = ("png", "tiff")
"""The formats of results that may have 16 bits."""
_READING, _HELD = 24, 8
"""Bytes for one pixel, while the values are read and from then on."""
_BAND = 1 << 20
_HALVES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""Pillow's name for the higher bytes of a PNG's samples -> its name for the lower ones."""
_TURNS: Mapping[int, Callable[[Any], Any]] = {
    2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: a.swapaxes(0, 1)[::-1],
}  # fmt: skip
"""EXIF orientation -> what turns the rows and columns upright."""


def depth_of(opened: ImageFile.ImageFile) -> int:
    """Bits of a sample in the file of an opened PNG or TIFF; 8 for all other pictures."""
    if isinstance(opened, PngPicture):
        return opened.depth
    if isinstance(opened, TiffPicture):
        bits: Any = opened.tag_v2.get(tiff.BITS, (8,))
        return int(bits[0] if isinstance(bits, tuple) else bits)
    return 8


def scaled_by_pillow(opened: ImageFile.ImageFile) -> str:
    """The note about an opened picture of which Pillow gives the upper 8 of 16 bits without a word; else empty."""
    is_read = isinstance(opened, PngPicture) or (isinstance(opened, TiffPicture) and opened.layout is None)
    return "16 bits scaled to 8" if is_read and depth_of(opened) == 16 and not opened.mode.startswith("I") else ""


def load_deep(picture: Given, max_pixels: int) -> Deep | None:
    """The values of a 16-bit PNG or TIFF as they are stored, upright: (H, W, C), C as in `write_tiff` without CMYK.

    White is 65535. None for a picture that stores them in another way, such as with premultiplied alpha. Raises
    ItemError.
    """
    given = opened(picture)
    with Reading(shared_budget()) as reading, read_errors(given), open_picture(given) as file:
        image = open_image(file, str(given), max_pixels)
        pixels = image.width * image.height
        need = Need(peak=pixels * _READING, rgb=pixels * _HELD, size=(image.height, image.width))
        if isinstance(image, PngPicture):
            reading.admit(str(given), need)
            return _of_png(image, file, str(given))
        if isinstance(image, TiffPicture):
            reading.admit(str(given), need)
            return _of_tiff(image, file)
    return None


def _of_png(image: PngPicture, file: BinaryIO, name: str) -> Deep | None:
    if image.depth != 16 or "transparency" in image.info or getattr(image, "is_animated", False):
        return None
    turn = _TURNS.get(orientation_of(image), _as_it_is)
    if image.mode == "I;16":
        return np.ascontiguousarray(turn(np.asarray(image)[..., None]))
    lower = _HALVES.get(_raw_mode(image))
    if lower is None:
        return None
    found: Deep = np.asarray(image).astype(np.uint16)
    found *= 256
    file.seek(0)
    again = PngPicture(file, name)
    again.tile = [tile._replace(args=lower) for tile in again.tile]
    found += np.asarray(again)
    return np.ascontiguousarray(turn(found))


def _raw_mode(image: PngPicture) -> str:
    """What Pillow's decoder is told of the samples; empty if the picture has another form than most."""
    return image.tile[0].args if len(image.tile) == 1 and isinstance(image.tile[0].args, str) else ""


def _of_tiff(image: TiffPicture, file: BinaryIO) -> Deep | None:
    tags: Any = image.tag_v2
    try:
        layout = tiff_layout.layout_of(tags)
        tiff_layout.refuse_unread(layout)
    except ValueError:
        return None
    colours = (tiff_layout.WHITE_IS_ZERO, tiff_layout.BLACK_IS_ZERO, tiff_layout.RGB)
    is_plain = layout.samples == layout.colours or (layout.samples == 4 and layout.extra == (tiff_layout.UNASSOCIATED,))
    if (layout.bits, layout.format) != (16, tiff_layout.UINT) or layout.photometric not in colours or not is_plain:
        return None
    found = read_array(image.fp or file, layout, tags, lambda: None)
    if layout.photometric == tiff_layout.WHITE_IS_ZERO:
        found = 65535 - found
    return np.ascontiguousarray(_TURNS.get(tags.get(tiff_layout.ORIENTATION, 1), _as_it_is)(found))


def _as_it_is(pixels: Any) -> Any:
    return pixels


def with_own_values(result: Image.Image, own: Deep, mask: Image.Image) -> Deep | None:
    """`result` in 16 bits, with the values `own` of its picture where `mask` (L) is 0. All three have one size.

    `result` is L, LA, RGB or RGBA, and its colours mean the same as those of `own`. None if nothing can be kept: the
    edit is everywhere, or the two have other channels.
    """
    colours = 1 if result.mode in ("L", "LA") else 3
    has_alpha = result.mode in ("LA", "RGBA")
    samples = own.shape[2]
    if (own.shape[1], own.shape[0]) != result.size or colours != (1 if samples < 3 else 3):
        return None
    if (has_alpha and samples != colours + 1) or mask.getextrema()[0] != 0:
        return None
    made = np.empty((*own.shape[:2], colours + has_alpha), np.uint16)
    rows = max(1, _BAND // result.width)
    for top in range(0, result.height, rows):
        box = (0, top, result.width, min(top + rows, result.height))
        edited = np.asarray(result.crop(box)).reshape(box[3] - top, result.width, -1)[..., :colours].astype(np.int64)
        kept = own[top : box[3], :, :colours].astype(np.int64)
        share = np.asarray(mask.crop(box)).astype(np.int64)[..., None]
        # 257 brings 8 bits to 16. Whole numbers, so that what is kept is kept exactly.
        made[top : box[3], :, :colours] = kept + ((edited * 257 - kept) * share + 127) // 255
    if has_alpha:
        made[..., colours] = own[..., colours]
    return made
