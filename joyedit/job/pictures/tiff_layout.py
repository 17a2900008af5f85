"""How a TIFF file lays out its pixels, by its tags, and whether Pillow reads that layout right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import TiffImagePlugin

from joyedit.job.pictures import tiff

COMPRESSION, FILL_ORDER, STRIPS, STRIP_BYTES, TILES, TILE_BYTES = 259, 266, 273, 279, 324, 325
PREDICTOR, COLOUR_MAP, INK_SET, EXTRA, FORMAT, SUBSAMPLING, ORIENTATION = 317, 320, 332, 338, 339, 530, 274

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UINT, INT, FLOAT, VOID = 1, 2, 3, 4
ASSOCIATED, UNASSOCIATED = 1, 2

NEEDED = frozenset((
    tiff.WIDTH, tiff.LENGTH, tiff.BITS, COMPRESSION, tiff.PHOTOMETRIC, FILL_ORDER, STRIPS, ORIENTATION, tiff.SAMPLES,
    tiff.ROWS_PER_STRIP, STRIP_BYTES, tiff.PLANAR, PREDICTOR, COLOUR_MAP, tiff.TILE_WIDTH, tiff.TILE_LENGTH, TILES,
    TILE_BYTES, INK_SET, EXTRA, FORMAT, SUBSAMPLING,
))  # fmt: skip
"""Tags that say where the pixels are and what they mean."""

STRUCTURE = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292, 293, 301, 317, 318, 319,
    320, 321, 322, 323, 324, 325, 330, 338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532, 700, 33723, 34377,
    34665, 34675, 34853, 37724,
))  # fmt: skip
"""Tags of a TIFF that say how its pixels are stored, or hold metadata of other kinds than those of EXIF."""

_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
_NAMES = {
    WHITE_IS_ZERO: "WhiteIsZero", BLACK_IS_ZERO: "BlackIsZero", RGB: "RGB", PALETTE: "palette", 4: "mask",
    CMYK: "CMYK", YCBCR: "YCbCr", LAB: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "colour filter array",
    32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
_FORMATS = {UINT: "unsigned", INT: "signed", FLOAT: "float", VOID: "untyped", 5: "complex integer", 6: "complex float"}
_BITS = {
    UINT: (1, 2, 4, 8, 10, 12, 14, 16, 32, 64), INT: (8, 16, 32, 64), FLOAT: (16, 32, 64),
}  # fmt: skip
RAW, LZW, JPEG = 1, 5, 7
_DEFLATE, _JPEGS = (8, 32946), (6, JPEG)
_PLAIN = (RAW, LZW, *_DEFLATE, 32773, 34925, 50000)
"""Compressions of bytes: none, LZW, Deflate (twice), PackBits, LZMA, Zstandard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Sizes are in pixels. `extra` has the kinds of the samples beyond the colours; `piece` is a tile or a strip."""

    width: int
    height: int
    bits: int
    format: int
    photometric: int
    samples: int
    extra: tuple[int, ...]
    is_planar: bool
    compression: int
    predictor: int
    is_reversed: bool
    order: str
    piece: tuple[int, int]
    is_tiled: bool

    @property
    def colours(self) -> int:
        """How many samples are colours."""
        return _COLOURS[self.photometric]

    @property
    def alpha(self) -> int | None:
        """The index of the sample that is alpha."""
        kinds = [n for n, kind in enumerate(self.extra) if kind in (ASSOCIATED, UNASSOCIATED)]
        return self.colours + kinds[0] if kinds else None

    @property
    def is_associated(self) -> bool:
        """Whether the colours are multiplied with alpha."""
        alpha = self.alpha
        return alpha is not None and self.extra[alpha - self.colours] == ASSOCIATED

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all samples of a pixel, unpacked."""
        return self.samples * max(1, 2 if 8 < self.bits <= 16 else self.bits // 8)

    def reading_bytes(self, pixels: int, length: int) -> int:
        """What `tiff_pixels.py` holds beside the 8-bit picture of so many `pixels`. `length`: that of the file."""
        one = self.piece[0] * self.piece[1] * self.pixel_bytes // (self.samples if self.is_planar else 1)
        # zlib joins its output from blocks; libtiff's goes into a picture and out of it again.
        copies = 0 if self.compression == RAW else 2 if self.compression in _DEFLATE else 4
        copies += {1: 0, 2: 1}.get(self.predictor, 3) + (self.order == ">") + (self.bits not in (8, 16, 32, 64))
        return pixels * self.pixel_bytes + min(length, one + (1 << 16)) + copies * one

    @property
    def mode(self) -> str:
        """Pillow's mode of the 8-bit picture that `tiff_pixels.py` makes."""
        if self.photometric == CMYK:
            return "CMYK"
        if self.photometric == LAB:
            return "LAB"
        is_grey = self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        return ("L" if is_grey else "RGB") + ("A" if self.alpha is not None else "")


def layout_of(tags: Any) -> Layout:
    """The layout by the tags of a directory. Raises ValueError for what cannot be read, with the reason."""
    photometric = int(tags.get(tiff.PHOTOMETRIC, WHITE_IS_ZERO))
    if photometric not in _COLOURS:
        raise ValueError(_refusal(f"{_NAMES.get(photometric, f'photometric {photometric}')} pixels"))
    bits = _one(tags.get(tiff.BITS, (1,)), "bits a sample")
    kind = _one(tags.get(FORMAT, (UINT,)), "sample format")
    kind = UINT if kind == VOID else kind
    if bits not in _BITS.get(kind, ()):
        raise ValueError(_refusal(f"{_FORMATS.get(kind, f'format {kind}')} samples of {bits} bits"))
    samples = int(tags.get(tiff.SAMPLES, 1))
    colours = _COLOURS[photometric]
    if samples < colours:
        raise ValueError(_refusal(f"{_NAMES[photometric]} of {samples} samples"))
    extra = tuple(int(value) for value in _tuple(tags.get(EXTRA, ())))[: samples - colours]
    if photometric == RGB and samples == 4 and not extra:
        extra = (UNASSOCIATED,)  # as all readers take it
    extra += (0,) * (samples - colours - len(extra))
    is_grey = photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    if is_grey and samples > 2 and not any(extra):
        raise ValueError(_refusal(f"{samples} grey channels"))
    if tags.get(INK_SET) == 2 and photometric == CMYK:
        raise ValueError(_refusal("inks that are not CMYK"))
    width, height = int(tags[tiff.WIDTH]), int(tags[tiff.LENGTH])
    is_tiled = TILES in tags
    if is_tiled:
        piece = (int(tags[tiff.TILE_LENGTH]), int(tags[tiff.TILE_WIDTH]))
    else:
        piece = (max(1, min(height, int(tags.get(tiff.ROWS_PER_STRIP, height)))), width)
    return Layout(
        width=width, height=height, bits=bits, format=kind, photometric=photometric, samples=samples, extra=extra,
        is_planar=tags.get(tiff.PLANAR, 1) == 2 and samples > 1, compression=int(tags.get(COMPRESSION, RAW)),
        predictor=int(tags.get(PREDICTOR, 1)), is_reversed=tags.get(FILL_ORDER, 1) == 2,
        order=">" if tags.prefix == TiffImagePlugin.MM else "<", piece=piece, is_tiled=is_tiled,
    )  # fmt: skip


def is_read_by_pillow(tags: Any) -> bool:
    """Whether Pillow either reads this layout right or refuses it by itself."""
    photometric, compression = tags.get(tiff.PHOTOMETRIC, WHITE_IS_ZERO), tags.get(COMPRESSION, RAW)
    bits, kinds = _tuple(tags.get(tiff.BITS, (1,))), _tuple(tags.get(FORMAT, (UINT,)))
    samples = tags.get(tiff.SAMPLES, 1)
    if compression in _JPEGS:
        return max(bits, default=1) <= 8
    is_planar = tags.get(tiff.PLANAR, 1) == 2 and samples > 1
    is_deep = max(bits, default=1) > 8
    if any(kind not in (UINT, VOID) for kind in kinds) or VOID in kinds or is_planar:
        return False
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and is_deep:
        return False
    if photometric == PALETTE and max(_tuple(tags.get(COLOUR_MAP, (256,)))) < 256:
        return False
    return ASSOCIATED not in _tuple(tags.get(EXTRA, ())) and tags.get(INK_SET) != 2


def refuse_unread(layout: Layout) -> None:
    """Raises ValueError if `tiff_pixels.py` does not read the layout."""
    if layout.compression not in _PLAIN:
        what = f"{layout.bits}-bit {_NAMES[layout.photometric]} pixels with compression {layout.compression}"
        raise ValueError(_refusal(what))
    if layout.photometric == YCBCR or (layout.photometric in (LAB, PALETTE) and layout.format != UINT):
        arrangement = "planar " if layout.is_planar else ""
        raise ValueError(_refusal(f"{arrangement}{layout.bits}-bit {_NAMES[layout.photometric]} pixels"))
    if layout.photometric == LAB and layout.bits not in (8, 16):
        raise ValueError(_refusal(f"{layout.bits}-bit CIELab pixels"))
    if layout.photometric == PALETTE and layout.bits > 16:
        raise ValueError(_refusal(f"a palette of {layout.bits} bits"))
    if layout.predictor not in (1, 2, 3) or (layout.predictor == 3 and layout.format != FLOAT):
        raise ValueError(_refusal(f"predictor {layout.predictor} of {_FORMATS[layout.format]} samples"))
    if layout.predictor == 2 and layout.bits not in (8, 16, 32, 64):
        raise ValueError(_refusal(f"predictor 2 of {layout.bits} bits"))
    if layout.photometric in (CMYK, LAB) and layout.alpha is not None:
        raise ValueError(_refusal(f"{_NAMES[layout.photometric]} with alpha"))


def _refusal(what: str) -> str:
    return f"a TIFF of {what} cannot be read; save it anew as 8-bit RGB"


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),)


def _one(value: Any, what: str) -> int:
    values = set(_tuple(value))
    if len(values) != 1:
        raise ValueError(_refusal(f"samples that differ in their {what}"))
    return values.pop()
