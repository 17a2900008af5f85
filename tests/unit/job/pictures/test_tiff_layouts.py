"""TIFF of many layouts, held against what numpy makes of the same samples: read right, or refused with a reason."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures.decode import header_size, load_picture
from joyedit.job.pictures.tiff_reader import TiffPicture
from support.tiff import strip_of, tiff

Array = np.ndarray[Any, Any]
W, H = 37, 29
TYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
)  # fmt: skip
STORAGE: tuple[dict[str, Any], ...] = (
    {}, {"rowsperstrip": 7}, {"tile": (16, 32)}, {"compression": "zlib", "rowsperstrip": 5},
    {"compression": "zlib", "tile": (16, 16), "predictor": True}, {"bigtiff": True},
    {"bigtiff": True, "compression": "zlib", "rowsperstrip": 4},
)  # fmt: skip


def samples(kind: str, *shape: int) -> Array:
    dice = np.random.default_rng(3)
    if kind.startswith("float"):
        return dice.random(shape).astype(kind)
    info = np.iinfo(kind)
    return dice.integers(info.min, info.max, shape, dtype=kind, endpoint=True)


def levels(values: Array) -> Array:
    """The samples as 0 to 255: full range is white, and what is negative is black."""
    if values.dtype.kind == "f":
        return np.rint(values.astype(np.float64) * 255)
    full = np.iinfo(values.dtype).max
    return np.rint(np.maximum(values, 0).astype(np.float64) / full * 255)


def write(path: Path, values: Array, **options: Any) -> None:
    predictor = options.pop("predictor", False) and values.dtype.kind in "ui" and values.dtype.itemsize < 8
    tifffile.imwrite(path, values, metadata=None, predictor=predictor or None, **options)


def off(path: Path, wanted: Array) -> float:
    """How far the picture is at most from `wanted`, (H, W) or (H, W, 3), in levels."""
    assert header_size(path) == wanted.shape[:2]
    got = np.asarray(load_picture(path).image).astype(float)
    return float(np.abs(got - (wanted if wanted.ndim == 3 else wanted[..., None])).max())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("storage", STORAGE, ids=str)
def test_grey(tmp_path: Path, kind: str, order: str, storage: dict[str, Any]) -> None:
    values = samples(kind, H, W)
    write(tmp_path / "black.tif", values, photometric="minisblack", byteorder=order, **storage)
    assert off(tmp_path / "black.tif", levels(values)) <= 0.5
    write(tmp_path / "white.tif", values, photometric="miniswhite", byteorder=order, **storage)
    assert off(tmp_path / "white.tif", 255 - levels(values)) <= 0.5


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("storage", STORAGE, ids=str)
def test_colour(tmp_path: Path, kind: str, order: str, planar: str, storage: dict[str, Any]) -> None:
    for extra in ((), ("unspecified",), ("unassalpha",)):
        values = samples(kind, H, W, 3 + len(extra))
        stored = values if planar == "contig" else np.ascontiguousarray(values.transpose(2, 0, 1))
        options = {"photometric": "rgb", "planarconfig": planar, "byteorder": order, "extrasamples": extra or None}
        write(tmp_path / "p.tif", stored, **options, **storage)
        wanted = levels(values[..., :3])
        if "unassalpha" in extra:
            opacity = levels(values[..., 3:]) / 255
            wanted = wanted * opacity + 255 * (1 - opacity)
        # Pillow takes the upper 8 of 16 bits, where it reads them right: of colours, and of alpha too.
        assert off(tmp_path / "p.tif", wanted) <= (2.5 if "unassalpha" in extra else 1)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_cmyk_and_lab(tmp_path: Path, kind: str, planar: str) -> None:
    def saved(name: str, values: Array, photometric: str) -> Image.Image:
        stored = values if planar == "contig" else np.ascontiguousarray(values.transpose(2, 0, 1))
        write(tmp_path / name, stored, photometric=photometric, planarconfig=planar, compression="zlib")
        return load_picture(tmp_path / name).image

    full = np.iinfo(np.dtype(kind)).max
    inks = np.zeros((2, 3, 4), kind)
    inks[:, 0, 0] = inks[:, 1, 1] = inks[:, 2, 3] = full
    assert np.asarray(saved("cmyk.tif", inks, "separated"))[0].tolist() == [[0, 255, 255], [255, 0, 255], [0, 0, 0]]
    unit = 1 if kind == "uint8" else 256
    lab = np.zeros((1, 3, 3), np.int32)
    lab[0, :, 0] = full
    lab[0, 1] = full * 54 // 100, 80 * unit, 67 * unit  # red
    lab[0, 2] = full * 30 // 100, 68 * unit, -112 * unit  # blue
    white, red, blue = np.asarray(saved("lab.tif", lab.astype(kind), "cielab"))[0].astype(int)
    assert white.min() >= 254
    assert (red[0] > 240, red[1] < 40, red[2] < 40) == (True, True, True)
    assert (blue[0] < 70, blue[1] < 40, blue[2] > 240) == (True, True, True)


@pytest.mark.parametrize(("values", "photometric"), [("uint8", "minisblack"), ("uint16", "minisblack")])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_grey_with_alpha(tmp_path: Path, values: str, photometric: str, planar: str) -> None:
    full = np.iinfo(np.dtype(values)).max
    pair = np.array([[[0, full], [0, 0], [full // 2, full]]], values)
    stored = pair if planar == "contig" else np.ascontiguousarray(pair.transpose(2, 0, 1))
    write(tmp_path / "p.tif", stored, photometric=photometric, planarconfig=planar, extrasamples=("unassalpha",))
    assert off(tmp_path / "p.tif", np.array([[0, 255, 127.5]])) <= 1


def test_associated_alpha_as_pillow_reads_it(tmp_path: Path) -> None:
    every = np.array(list(itertools.product(range(0, 256, 5), range(0, 256, 5))), np.uint8)
    values = np.stack([every[:, 0], every[:, 0] // 2, every[:, 0] // 3, every[:, 1]], axis=-1)[None]
    write(tmp_path / "p.tif", values, photometric="rgb", extrasamples=("assocalpha",))
    with Image.open(tmp_path / "p.tif") as plain:
        straight = plain.convert("RGBA")
    white = Image.new("RGB", straight.size, "white")
    white.paste(straight.convert("RGB"), mask=straight.getchannel("A"))
    assert np.array_equal(np.asarray(load_picture(tmp_path / "p.tif").image), np.asarray(white))


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("is_white_zero", [False, True])
@pytest.mark.parametrize("fill", [1, 2])
def test_packed_bits(tmp_path: Path, bits: int, is_white_zero: bool, fill: int) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (H, W), dtype=np.uint16)
    wide = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    data = np.packbits(wide.reshape(H, -1).astype(np.uint8), axis=1)
    if fill == 2:
        data = np.packbits(np.unpackbits(data, axis=1, bitorder="little"), axis=1)
    raw = data.tobytes()
    tags = [(256, 4, 1, W), (257, 4, 1, H), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 0 if is_white_zero else 1)]
    tags += [(266, 3, 1, fill), (273, 4, 1, 8 + 2 + 9 * 12 + 4), (278, 4, 1, H), (279, 4, 1, len(raw))]
    (tmp_path / "p.tif").write_bytes(tiff(*tags, more=raw))
    wanted = np.rint(values / ((1 << bits) - 1) * 255)
    assert off(tmp_path / "p.tif", 255 - wanted if is_white_zero else wanted) == 0
    assert load_picture(tmp_path / "p.tif").notes == (f"{bits} bits scaled to 8",)


@pytest.mark.parametrize(("compression", "number"), [("tiff_lzw", 5), ("packbits", 32773), ("tiff_deflate", 8)])
@pytest.mark.parametrize("predictor", [1, 2])
def test_compressed_planes_of_16_bits(tmp_path: Path, compression: str, number: int, predictor: int) -> None:
    values = samples("uint16", 3, H, W)
    stored = values.copy()
    if predictor == 2:
        stored[..., 1:] -= values[..., :-1]
    strips = [strip_of(plane.tobytes(), compression) for plane in stored]
    start = 8 + 2 + 11 * 12 + 4
    offsets = np.cumsum([start + 30, *map(len, strips)])[:3]
    more = np.array([16, 16, 16], "<u2").tobytes() + offsets.astype("<u4").tobytes()
    more += np.array([len(strip) for strip in strips], "<u4").tobytes()
    tags = ((256, 4, 1, W), (257, 4, 1, H), (258, 3, 3, start), (259, 3, 1, number), (262, 3, 1, 2))
    tags += ((273, 4, 3, start + 6), (277, 3, 1, 3), (278, 4, 1, H), (279, 4, 3, start + 18), (284, 3, 1, 2))
    (tmp_path / "p.tif").write_bytes(tiff(*tags, (317, 3, 1, predictor), more=more + b"".join(strips)))
    assert off(tmp_path / "p.tif", levels(values.transpose(1, 2, 0))) <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_pixels(tmp_path: Path, orientation: int) -> None:
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    tag = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "deep.tif", values, photometric="miniswhite", metadata=None, extratags=tag)
    plain = (255 - np.rint(values / 257)).astype(np.uint8)
    wanted = {
        1: plain, 2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.T, 6: plain[::-1].T,
        7: plain[::-1, ::-1].T, 8: plain.T[::-1],
    }[orientation]  # fmt: skip
    assert off(tmp_path / "deep.tif", wanted) == 0
    # One strip without compression, which Pillow maps into memory, and one with.
    for options in ({}, {"compression": "zlib"}):
        write(tmp_path / "plain.tif", plain, photometric="minisblack", extratags=tag, **options)
        assert off(tmp_path / "plain.tif", wanted) == 0


@pytest.mark.parametrize("values", [samples("uint16", 3, H, W), samples("uint8", 3, H, W)])
def test_the_first_of_several_pages(tmp_path: Path, values: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "p.tif", values, photometric="minisblack", metadata=None, extratags=turned)
    assert off(tmp_path / "p.tif", levels(values[0])[::-1].T) <= 0.5
    decoded = []
    real = TiffPicture.load_end
    monkeypatch.setattr(TiffPicture, "load_end", lambda image: (decoded.append(image), real(image))[1])
    notes = load_picture(tmp_path / "p.tif").notes
    assert len(decoded) == 1
    scaled = () if values.dtype == np.uint8 else ("16 bits scaled to 8",)
    assert notes == ("only the first of 3 pages is used", *scaled)


def test_only_the_first_page_has_to_be_readable(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        file.write(np.full((4, 4), 99, np.uint8), metadata=None)
        file.write(np.zeros((4, 4), np.complex64), metadata=None)
    assert off(tmp_path / "p.tif", np.full((4, 4), 99)) == 0


def test_a_palette_of_bytes_and_one_of_16_bits(tmp_path: Path) -> None:
    index = np.array([[0, 1, 2]], np.uint8)
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :3] = np.array([[255, 0, 10], [0, 200, 20], [0, 0, 30]])
    for name, table in (("bytes.tif", colours), ("words.tif", colours * 257)):
        tifffile.imwrite(tmp_path / name, index, photometric="palette", colormap=table, metadata=None)
        got = np.asarray(load_picture(tmp_path / name).image)[0]
        assert got.tolist() == [[255, 0, 0], [0, 200, 0], [10, 20, 30]], name


def test_uncompressed_ycbcr_with_shared_colours(tmp_path: Path) -> None:
    # Two by two pixels share one pair of colours: four of Y, then Cb and Cr.
    data = bytes([200, 200, 200, 200, 128, 128]) + bytes([76, 76, 76, 76, 85, 255])
    start = 8 + 2 + 10 * 12 + 4
    tags = ((256, 4, 1, 4), (257, 4, 1, 2), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 6), (273, 4, 1, start + 6))
    tags += ((277, 3, 1, 3), (278, 4, 1, 2), (279, 4, 1, 12), (530, 3, 2, 0x20002))
    body = tiff(*tags, more=np.array([8, 8, 8], "<u2").tobytes() + data)
    (tmp_path / "p.tif").write_bytes(body)
    got = np.asarray(load_picture(tmp_path / "p.tif").image).astype(int)
    assert np.abs(got[:, :2] - 200).max() <= 1
    assert np.abs(got[:, 2:] - [254, 0, 0]).max() <= 3


def test_numbers_of_32_bits_that_fit_into_16(tmp_path: Path) -> None:
    for kind in ("uint32", "int32", "uint64"):
        tifffile.imwrite(tmp_path / "p.tif", np.array([[0, 32768, 65535]], kind), metadata=None)
        picture = load_picture(tmp_path / "p.tif")
        assert np.asarray(picture.image)[0, :, 0].tolist() == [0, 128, 255]
        assert picture.notes == ("16 bits scaled to 8",)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (np.zeros((2, 2), np.complex64), {}, "complex float samples of 64 bits"),
        (np.zeros((2, 2, 3), np.uint8), {"photometric": "minisblack", "planarconfig": "contig"}, "3 grey channels"),
        (np.zeros((2, 2), np.uint16), {"photometric": 32803}, "colour filter array pixels"),
        (np.zeros((2, 2, 3), np.uint16), {"photometric": 34892}, "linear raw pixels"),
        (np.zeros((2, 2, 3), np.uint16), {"photometric": "ycbcr"}, "16-bit YCbCr pixels"),
        (np.zeros((2, 2, 3), np.uint8), {"photometric": 9}, "ICCLab pixels"),
    ],
)
def test_what_is_not_read_is_refused_with_its_reason(
    tmp_path: Path, values: Array, options: dict[str, Any], reason: str
) -> None:
    tifffile.imwrite(tmp_path / "p.tif", values, metadata=None, **options)
    for read in (header_size, load_picture):
        with pytest.raises(ItemError, match=f"a TIFF of {reason} cannot be read; save it anew") as caught:
            read(tmp_path / "p.tif")  # type: ignore[operator]
        assert caught.value.code == "unreadable_picture"


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_cut_files_of_deep_pixels(tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "p.tif", samples("uint16", H, W), photometric="miniswhite", **options)
    data = (tmp_path / "p.tif").read_bytes()
    (tmp_path / "p.tif").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ItemError) as caught:
        load_picture(tmp_path / "p.tif")
    assert caught.value.code == "truncated_picture"


@pytest.mark.parametrize(
    "side",
    [
        (270, 2, 60_000, 100), (270, 2, 20, 2**31), (282, 2, 4, 0x61616161), (296, 3, 1, 77), (34665, 4, 1, 2**31),
        (34853, 4, 1, 5), (34675, 7, 16, 10), (700, 1, 40, 2**30), (255, 19, 2**31, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.usefixtures("warnings_are_notes")
def test_a_damaged_side_tag_loses_no_picture(tmp_path: Path, side: tuple[int, int, int, int], white: int) -> None:
    pixels = np.arange(100, dtype=np.uint8)
    base = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, white), (273, 4, 1, 400)]
    tags = sorted([*base, (277, 3, 1, 1), (278, 4, 1, 10), (279, 4, 1, 100), side])
    (tmp_path / "p.tif").write_bytes(tiff(*tags, more=b"").ljust(400, b"\1") + pixels.tobytes())
    wanted = pixels.reshape(10, 10).astype(float)
    assert off(tmp_path / "p.tif", wanted if white else 255 - wanted) == 0
