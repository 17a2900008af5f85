"""How many bytes a picture takes at most while it is decoded and fitted, from its header alone.

Pillow stores a pixel of one 8-bit channel in one byte, of 16 bits in two, and all others in four, RGB too. What
is counted beside that is what decoders hold for a whole picture, and the copies of `colours.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import GifImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from joyedit.job.pictures import tiff
from joyedit.job.pictures.colours import ALPHA_MODES, DEEP_MODES, has_transparency, uses_profile
from joyedit.job.pictures.png import PngPicture
from joyedit.job.pictures.tiff_reader import TiffPicture
from joyedit.job.sizes import Size

RGB_BYTES = 4
"""Bytes of a pixel in Pillow's RGB."""

_HEIF = ("AVIF", "HEIF")
_ONE_BYTE = ("1", "L", "P")
_HOLES = 24 << 20
_LEAST = 2 << 20
_BANDS = 8 << 20  # arrays of one band of deep pixels, while it is converted


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a picture takes: `peak` bytes until it is RGB, and `rgb` bytes from then on. `size`: (height, width)."""

    peak: int
    rgb: int
    size: Size

    def with_fit(self, bucket: Size) -> int:
        """Bytes at most, if the picture is then fitted to `bucket` (height, width)."""
        height, width = self.size
        scale = max(bucket[0] / height, bucket[1] / width)
        tall, wide = min(height * scale, 16.0 * bucket[0]) + 1, min(width * scale, 16.0 * bucket[1]) + 1
        area = min(tall * wide, 16.0 * bucket[0] * bucket[1])
        # Pillow resizes across first: the picture of the new width and the old height is there beside both others.
        working = int(RGB_BYTES * (wide * height + area + bucket[0] * bucket[1]))
        return max(self.peak + working // 2, self.rgb + working)


def decoding_need(image: ImageFile.ImageFile, length: int, *, is_turned: bool) -> Need:
    """The need of a picture whose header was read and no more.

    `length`: bytes of the file. `is_turned`: a copy of it will be turned upright.
    """
    pixels = image.width * image.height
    stored = pixels * pixel_bytes(image.mode)
    rgb = pixels * RGB_BYTES
    attached, working = _decoder_bytes(image, length, stored)
    loading = stored + attached + working
    copied = stored + attached + stored if keeps_decoder(image) else stored
    turned = 2 * rgb if is_turned else rgb
    converting = stored + _conversion_bytes(image, pixels) + (0 if keeps_decoder(image) else attached)
    peak = max(loading, copied, converting, turned) + _header_bytes(image)
    # Freed blocks of one size leave holes that blocks of another size do not fill.
    peak += peak // 32 + min(_HOLES, peak // 2) + _LEAST
    return Need(peak=peak, rgb=rgb, size=(image.height, image.width))


def pixel_bytes(mode: str) -> int:
    """Bytes in which Pillow stores a pixel of this mode."""
    return 1 if mode in _ONE_BYTE else 2 if mode.startswith("I;16") else 4


def keeps_decoder(image: ImageFile.ImageFile) -> bool:
    """Whether the picture holds its decoder or frames, so that a copy has to take its place."""
    holds_file = isinstance(image, WebPImagePlugin.WebPImageFile) or image.format in _HEIF
    return holds_file or bool(getattr(image, "is_animated", False))


def _decoder_bytes(image: ImageFile.ImageFile, length: int, stored: int) -> tuple[int, int]:
    """What the decoder holds as long as the picture is there, and what it holds while it decodes."""
    pixels = image.width * image.height
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        return 9 * pixels + 3 * length, 4 * pixels  # two canvases, an alpha and the file; the pixels as bytes
    if image.format in _HEIF:
        # The file; planes of 16 bits, of which the alpha is one; the pixels as the decoder gives them and as bytes.
        return length + 8 * pixels, 8 * pixels
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        is_turned = image.tag_v2.get(274) in range(2, 9)  # by Pillow, into another picture
        layout = image.layout if isinstance(image, TiffPicture) else None
        read = tiff.decoder_bytes(image, length) if layout is None else layout.reading_bytes(pixels, length) + _BANDS
        return 0, max(read, stored if is_turned else 0)
    if isinstance(image, GifImagePlugin.GifImageFile):
        before = image.dispose.size if image.dispose is not None else (0, 0)
        return before[0] * before[1], 2 * image.width + _later_frames(image)  # what the next frame would be drawn on
    if isinstance(image, PngImagePlugin.PngImageFile):
        return 0, 3 * 8 * image.width + _later_frames(image)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # The check for missing data comes when the picture is there: it has the file, and an eighth of each side.
        return 0, _coefficient_bytes(image) + 64 * image.layers * image.width + 2 * length + pixels // 16
    if any(tile.codec_name in ("ppm", "ppm_plain", "bmp_rle") for tile in image.tile):
        # These decoders are written in Python: a growing array, and its bytes.
        channels = len(image.getbands()) * (4 if image.mode == "I" else 1)
        return 0, 4 * channels * pixels
    return 0, 3 * 8 * image.width  # rows, as they are stored and filtered


def _later_frames(image: ImageFile.ImageFile) -> int:
    """What is held if the first frames show nothing: RGBA of this frame, the one before, and parts of both."""
    may_be_empty = image.mode in ALPHA_MODES or "transparency" in image.info
    return 20 * image.width * image.height if may_be_empty and getattr(image, "is_animated", False) else 0


def _coefficient_bytes(image: JpegImagePlugin.JpegImageFile) -> int:
    """libjpeg holds the coefficients of the whole picture, two bytes each, if several scans bring them."""
    if not image.info.get("progressive") and _is_one_scan(image):
        return 0
    across, down = (max((layer[n] for layer in image.layer), default=1) for n in (1, 2))
    blocks = (-(-image.width // (8 * across)), -(-image.height // (8 * down)))
    return sum(128 * blocks[0] * blocks[1] * layer[1] * layer[2] for layer in image.layer)


def _is_one_scan(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether the first scan brings all components: its header stands right before the place that was read."""
    if image.fp is None or not image.layers:
        return False
    here, length = image.fp.tell(), 6 + 2 * image.layers
    try:
        image.fp.seek(max(0, here - length))
        return image.fp.read(3) == length.to_bytes(2, "big") + bytes([image.layers])
    finally:
        image.fp.seek(here)


def _conversion_bytes(image: ImageFile.ImageFile, pixels: int) -> int:
    """What `colours.to_rgb` takes beside the decoded picture."""
    mode, has_alpha = image.mode, has_transparency(image)
    if mode in DEEP_MODES:
        return pixels * (10 if has_alpha else 5) + _BANDS
    profile = RGB_BYTES * pixels if uses_profile(image) else 0
    if mode in ALPHA_MODES or has_alpha:
        return 9 * pixels + profile
    grey = pixels if mode == "1" else 0
    plain = 0 if mode == "RGB" else RGB_BYTES * pixels
    # A grey picture may become RGB before its colours are converted.
    return grey + (max(plain, profile) if mode == "CMYK" else plain + profile)


def _header_bytes(image: ImageFile.ImageFile) -> int:
    """Texts and profiles that were read with the header, and the copies that reading made of them."""
    total = sum(_length(value) for value in image.info.values())
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        total += sum(len(part) for _, part in image.applist)
    return 3 * total + (image.text_bytes if isinstance(image, PngPicture) else 0)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return 4 * len(value)
    return len(value) if isinstance(value, bytes) else 0
