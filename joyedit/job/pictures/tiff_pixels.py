"""Pixels of TIFF layouts that Pillow does not read or reads wrong: strips and tiles -> an array -> 8 bits.

libtiff takes the compression off, a strip or tile at a time, as if it were a grey 8-bit picture. What the bytes
mean, numpy works out from the tags.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from joyedit.job.pictures import tiff_layout as of
from joyedit.job.pictures.tiff_layout import Layout

Array = NDArray[Any]

BAND_SAMPLES = 1 << 18
"""So many samples are converted at a time."""
_DEFLATE = (8, 32946)
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_TORN = "image file is truncated"


def read_array(file: IO[bytes], layout: Layout, tags: Any, check: Callable[[], None]) -> Array:
    """All samples, shape (height, width, samples), in the file's own type. `check` is called for each piece.

    Raises OSError if data is missing or damaged.
    """
    offsets, counts = _places(layout, tags)
    whole = np.empty((layout.height, layout.width, layout.samples), _type(layout).newbyteorder("="))
    rows, columns = layout.piece
    across = -(-layout.width // columns)
    down = -(-layout.height // rows)
    planes = layout.samples if layout.is_planar else 1
    if len(offsets) < across * down * planes:
        raise OSError(_TORN)
    for number in range(across * down * planes):
        check()
        plane, place = divmod(number, across * down)
        top, left = place // across * rows, place % across * columns
        tall = rows if layout.is_tiled else min(rows, layout.height - top)
        file.seek(offsets[number])
        data = file.read(counts[number])
        if len(data) < counts[number] and layout.compression == 1:
            raise OSError(_TORN)
        samples = 1 if layout.is_planar else layout.samples
        piece = _unpacked(_bytes(data, layout, tall * _row_bytes(layout)), layout, (tall, columns, samples))
        piece = piece[: layout.height - top, : layout.width - left]
        first = plane if layout.is_planar else 0
        whole[top : top + piece.shape[0], left : left + piece.shape[1], first : first + samples] = piece
    return whole


def to_8_bits(samples: Array, layout: Layout, colour_map: Sequence[int] | None, notes: list[str]) -> Image.Image:
    """The picture in the layout's mode. Adds to `notes` how samples were scaled."""
    make = _converter(samples, layout, colour_map, notes)
    image = Image.new(layout.mode, (layout.width, layout.height))
    for top, band in _bands(samples):
        pixels = make(band)
        mode = layout.mode if pixels.ndim == 3 else "L"
        height, width = pixels.shape[:2]
        image.paste(Image.frombuffer(mode, (width, height), np.ascontiguousarray(pixels), "raw", mode, 0, 1), (0, top))
    left_out = len(layout.extra) - (layout.alpha is not None)
    if left_out and layout.photometric in (of.WHITE_IS_ZERO, of.BLACK_IS_ZERO):
        notes.append(f"only {layout.samples - left_out} of {layout.samples} channels used")
    return image


def _places(layout: Layout, tags: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Offset and length of each piece."""
    offset_tag, count_tag = (of.TILES, of.TILE_BYTES) if layout.is_tiled else (of.STRIPS, of.STRIP_BYTES)
    offsets: Sequence[int] = tags.get(offset_tag) or ()
    counts: Sequence[int] = tags.get(count_tag) or ()
    if len(counts) < len(offsets):
        if layout.compression != 1:
            raise OSError("the file does not say how long its pieces are")
        counts = [layout.piece[0] * _row_bytes(layout)] * len(offsets)
    if layout.compression == 1 and not layout.is_tiled and offsets:
        # The last strip may have fewer rows than its length would hold.
        whole = layout.piece[0] * _row_bytes(layout)
        counts = [min(count, whole) for count in counts]
    return offsets, counts


def _type(layout: Layout) -> np.dtype[Any]:
    size = 1 if layout.bits <= 8 else 2 if layout.bits <= 16 else layout.bits // 8
    kind = {of.UINT: "u", of.INT: "i", of.FLOAT: "f"}[layout.format]
    return np.dtype(f"{layout.order}{kind}{size}")


def _row_bytes(layout: Layout) -> int:
    samples = 1 if layout.is_planar else layout.samples
    return -(-layout.piece[1] * samples * layout.bits // 8)


def _bytes(data: bytes, layout: Layout, length: int) -> bytes:
    """`data` without its compression: `length` bytes. Raises OSError."""
    if layout.is_reversed:
        data = data.translate(_REVERSED)
    if layout.compression in _DEFLATE:
        try:
            data = zlib.decompressobj().decompress(data, length)
        except zlib.error as error:
            raise OSError(f"its data is damaged ({error})") from error
    elif layout.compression != 1:
        data = _by_libtiff(data, layout.compression, length)
    if len(data) < length:
        raise OSError(_TORN)
    return data[:length]


def _by_libtiff(data: bytes, compression: int, length: int) -> bytes:
    """The bytes as libtiff gives them for a grey 8-bit picture of one strip and `length` pixels."""
    width = next((wide for wide in range(min(length, 1 << 16), 0, -1) if length % wide == 0), 1)
    height = length // width
    start = 8 + 2 + 9 * 12 + 4
    entries = (
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, start),
        (277, 3, 1), (278, 4, height), (279, 4, len(data)),
    )  # fmt: skip
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(head + data), "strip")
    image.load()
    return image.tobytes()


def _unpacked(data: bytes, layout: Layout, shape: tuple[int, int, int]) -> Array:
    """The samples of a piece, shape (rows, columns, samples), without their predictor."""
    rows, columns, samples = shape
    if layout.predictor == 3:
        return _unpredicted_floats(data, layout, shape)
    if layout.bits in (8, 16, 32, 64):
        found: Array = np.frombuffer(data, _type(layout)).reshape(shape)
        found = found.astype(found.dtype.newbyteorder("="), copy=False)
        if layout.predictor == 2:
            whole = found.view(f"u{found.dtype.itemsize}")
            found = np.cumsum(whole, axis=1, dtype=whole.dtype).view(found.dtype)
        return found
    packed = np.frombuffer(data, np.uint8).reshape(rows, -1)
    value = np.zeros(shape, np.uint16 if layout.bits > 8 else np.uint8)
    for row in range(rows):  # one by one: a byte for each bit would take eight times the memory
        bits = np.unpackbits(packed[row])[: columns * samples * layout.bits].reshape(columns, samples, layout.bits)
        for place in range(layout.bits):
            value[row] <<= 1
            value[row] |= bits[..., place]
    return value


def _unpredicted_floats(data: bytes, layout: Layout, shape: tuple[int, int, int]) -> Array:
    """A row holds the highest bytes of all samples, then the next ones, and each the difference to the one before."""
    rows, columns, samples = shape
    size = layout.bits // 8
    found = np.frombuffer(data, np.uint8).reshape(rows, -1, samples)
    found = np.cumsum(found, axis=1, dtype=np.uint8).reshape(rows, size, columns * samples)
    whole = np.ascontiguousarray(found.transpose(0, 2, 1)).view(f">f{size}")
    return whole.reshape(shape).astype(f"f{size}")


def _bands(samples: Array) -> Iterator[tuple[int, Array]]:
    rows = max(1, BAND_SAMPLES // (samples.shape[1] * samples.shape[2]))
    for top in range(0, samples.shape[0], rows):
        yield top, samples[top : top + rows]


def _palette(colour_map: Sequence[int] | None, notes: list[str]) -> Callable[[Array], Array]:
    table: Array = np.array(colour_map or (), dtype=np.uint32)
    if table.size == 0 or table.size % 3:
        raise ValueError("it has no palette")
    table = table.reshape(3, -1).T
    if table.max() < 256:
        notes.append("palette of 8 bits read as such")
        colours = table.astype(np.uint8)
    else:
        colours = (table >> 8).astype(np.uint8)
    return lambda band: colours[np.minimum(band[..., 0], len(colours) - 1)]


def _converter(
    samples: Array, layout: Layout, colour_map: Sequence[int] | None, notes: list[str]
) -> Callable[[Array], Array]:
    """What turns a band of samples into the 8-bit channels of the layout's mode."""
    colours, alpha = layout.colours, layout.alpha
    scale: Callable[[Array], Array]
    if layout.photometric == of.LAB:
        scale = _lab
    elif layout.photometric == of.PALETTE:
        scale = _palette(colour_map, notes)
    else:
        scale = _scale(samples, layout, notes)

    def convert(band: Array) -> Array:
        found = scale(band[..., :colours])
        if layout.photometric == of.WHITE_IS_ZERO:
            found = 255 - found
        if alpha is not None:
            opacity = _alpha_scale(layout)(band[..., alpha : alpha + 1])
            if layout.is_associated:
                straight = np.minimum(found.astype(np.uint16) * 255 // np.maximum(opacity, 1), 255)
                # An alpha that is 0 everywhere will be ignored, and then the colours count as they are.
                found = np.where(opacity == 0, found, straight).astype(np.uint8)
            found = np.concatenate([found, opacity], axis=-1)
        return found[..., 0] if found.shape[-1] == 1 else found

    return convert


def _lab(band: Array) -> Array:
    """Lightness of 0 to 255, and a and b as signed bytes, which Pillow shifts."""
    if band.dtype.itemsize == 1:
        return band
    lightness = ((band[..., :1].astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.concatenate([lightness, (band[..., 1:] >> 8).astype(np.uint8)], axis=-1)


def _scale(samples: Array, layout: Layout, notes: list[str]) -> Callable[[Array], Array]:
    """How samples become 0..255; a note says from which range."""
    used = slice(0, layout.colours)
    if layout.format == of.FLOAT:
        top = max(float(_finite(band[..., used]).max()) for _, band in _bands(samples))
        full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
        notes.append(f"float pixels scaled from 0..{full:g}")
        return lambda band: np.clip(np.rint(_finite(band) * (255.0 / full)), 0, 255).astype(np.uint8)
    bits = layout.bits
    if bits > 16 and all(int(band[..., used].max()) <= 0xFFFF for _, band in _bands(samples)):
        bits = 16
    elif layout.format == of.INT:
        bits -= 1
    if bits % 2:
        notes.append(f"signed {bits + 1} bits scaled to 8, and what is negative is black")
    elif bits > 8:
        notes.append(f"{bits} bits scaled to 8")
    return _integer_scale(bits)


def _alpha_scale(layout: Layout) -> Callable[[Array], Array]:
    if layout.format == of.FLOAT:
        return lambda band: np.clip(np.rint(_finite(band) * 255), 0, 255).astype(np.uint8)
    return _integer_scale(layout.bits - (layout.format == of.INT))


def _integer_scale(bits: int) -> Callable[[Array], Array]:
    """How 0..2**bits - 1 becomes 0..255; what is negative is black."""
    if bits == 8:
        return lambda band: np.clip(band, 0, 255).astype(np.uint8)
    full = (1 << bits) - 1

    def scale(band: Array) -> Array:
        above = np.maximum(band, 0)
        if bits <= 32:
            found = (above.astype(np.int64) * 255 + full // 2) // full
        else:
            found = np.rint(above.astype(np.float64) * (255 / full))
        return np.clip(found, 0, 255).astype(np.uint8)

    return scale


def _finite(pixels: Array) -> NDArray[np.float64]:
    return np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
