"""16 bits: what is read as such, how it is written, and what is left to 8 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from joyedit.job.pictures.deep import Deep, load_deep, with_own_values
from joyedit.job.pictures.deep_png import write_deep_png
from joyedit.job.pictures.exif_block import ExifBlock
from joyedit.job.pictures.tiff_writer import write_tiff
from support.png import chunk, png

ANY = 1 << 40
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def noise(channels: int, size: tuple[int, int] = (37, 53)) -> Deep:
    return np.random.default_rng(channels).integers(0, 65536, (*size, channels)).astype(np.uint16)


def smooth(channels: int) -> Deep:
    grid = np.add.outer(np.arange(300) * 50, np.arange(400) * 90)
    return np.repeat(grid[..., None], channels, axis=-1).astype(np.uint16)


def packed(values: Deep) -> np.ndarray[Any, Any]:
    return values.astype(">u2").view(np.uint8).reshape(len(values), -1)


@pytest.mark.parametrize("values", [noise(1), noise(3), noise(4), smooth(3)])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_what_is_written_is_read(tmp_path: Path, values: Deep, kind: str) -> None:
    with (tmp_path / "x").open("wb") as file:
        if kind == "png":
            texts = PngImagePlugin.PngInfo()
            texts.add_itxt("instruction", "x")
            write_deep_png(values, file, pnginfo=texts)
        else:
            write_tiff(values, file, ExifBlock())
    found = load_deep(tmp_path / "x", ANY)
    assert found is not None
    assert np.array_equal(found, values)
    if kind == "tiff":
        assert np.array_equal(tifffile.imread(tmp_path / "x").reshape(values.shape), values)
    else:
        with Image.open(tmp_path / "x") as image:
            assert image.info["instruction"] == "x"
            assert image.size == (values.shape[1], values.shape[0])
    if len(values) == 300:
        assert (tmp_path / "x").stat().st_size < values.nbytes / 20, "its filter fits"


def test_a_large_one_is_written_band_by_band(tmp_path: Path) -> None:
    values = noise(3, (900, 700))
    with (tmp_path / "x").open("wb") as file:
        write_deep_png(values, file)
    found = load_deep(tmp_path / "x", ANY)
    assert found is not None
    assert np.array_equal(found, values)


def test_the_byte_order_is_that_of_the_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.endian = ">"
    exif[271] = "Canon"
    values = noise(3)
    with (tmp_path / "x").open("wb") as file:
        write_tiff(values, file, ExifBlock(exif.tobytes()[6:]))
    assert (tmp_path / "x").read_bytes()[:2] == b"MM"
    assert np.array_equal(tifffile.imread(tmp_path / "x"), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path: Path, orientation: int) -> None:
    """As Pillow turns them, in PNG by EXIF and in TIFF by its own tag."""
    values = noise(1)
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "x.png").write_bytes(png(packed(values), 16, 0, chunk(b"eXIf", exif.tobytes()[6:])))
    tifffile.imwrite(tmp_path / "x.tif", values[..., 0], extratags=[(274, 3, 1, orientation, True)])
    plain = Image.fromarray((values[..., 0] >> 8).astype(np.uint8))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    wanted = plain.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else plain
    for name in ("x.png", "x.tif"):
        found = load_deep(tmp_path / name, ANY)
        assert found is not None
        assert np.array_equal(found[..., 0] >> 8, np.asarray(wanted)), (name, orientation)


def test_white_is_zero(tmp_path: Path) -> None:
    values = noise(1)
    tifffile.imwrite(tmp_path / "x.tif", values[..., 0], photometric="miniswhite")
    found = load_deep(tmp_path / "x.tif", ANY)
    assert found is not None
    assert np.array_equal(found, 65535 - values)


def test_what_is_left_to_8_bits(tmp_path: Path) -> None:
    made: dict[str, bytes] = {
        "grey and alpha": png(packed(noise(2)), 16, 4),
        "one clear value": png(packed(noise(3)), 16, 2, chunk(b"tRNS", bytes(6))),
        "8 bits": png(np.zeros((4, 12), np.uint8), 8, 2),
    }
    for name, more in (
        ("float", {"data": noise(1)[..., 0].astype(np.float16)}),
        ("signed", {"data": noise(1)[..., 0].astype(np.int16)}),
        ("premultiplied", {"data": noise(4), "photometric": "rgb", "extrasamples": [1]}),
        ("inks", {"data": noise(4), "photometric": "separated"}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, **more)
        made[name] = file.getvalue()
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    made["a JPEG"] = file.getvalue()
    for name, data in made.items():
        (tmp_path / "x").write_bytes(data)
        assert load_deep(tmp_path / "x", ANY) is None, name


def test_nothing_is_kept_that_cannot_be() -> None:
    grey, own = Image.new("L", (53, 37)), noise(3)
    nothing, all_of_it = Image.new("L", (53, 37), 255), Image.new("L", (53, 37), 0)
    assert with_own_values(grey, own, all_of_it) is None, "other channels"
    assert with_own_values(grey.convert("RGB"), own, nothing) is None, "the edit is everywhere"
    assert with_own_values(Image.new("RGB", (10, 10)), own, all_of_it) is None, "another size"
    assert with_own_values(Image.new("RGBA", (53, 37)), own, all_of_it) is None, "an alpha of its own"
    kept = with_own_values(grey.convert("RGB"), own, all_of_it)
    assert kept is not None
    assert np.array_equal(kept, own)
    part = with_own_values(Image.new("RGB", (53, 37), (1, 2, 3)), noise(4), Image.new("L", (53, 37), 0))
    assert part is not None
    assert part.shape == (37, 53, 3)
