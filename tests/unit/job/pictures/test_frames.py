"""What shows nothing: an alpha that hides every pixel, and frames before the first one that shows something."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures.decode import load_picture, picture_in_memory
from support.png import chunk

COLOURS = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
CLEAR = Image.fromarray(np.dstack([COLOURS, np.zeros((12, 16), np.uint8)]))
RED = Image.new("RGBA", (16, 12), "red")
IGNORED = "alpha ignored: it hides every pixel"


def bmp(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """A BMP of 32 bits with a mask for alpha (BITMAPV4HEADER)."""
    height, width = pixels.shape[:2]
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 0, 0, 0, 0) + masks
    head = b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108)
    path.write_bytes(head + info.ljust(108, b"\0") + body)


def test_bmp_with_a_cleared_alpha(tmp_path: Path) -> None:
    bmp(tmp_path / "p.bmp", np.asarray(CLEAR))
    picture = load_picture(tmp_path / "p.bmp")
    assert np.array_equal(np.asarray(picture.image), COLOURS)
    assert picture.notes == (IGNORED,)


def test_bmp_with_an_alpha_that_shows_something(tmp_path: Path) -> None:
    pixels = np.asarray(CLEAR).copy()
    pixels[3, 4, 3] = 255
    bmp(tmp_path / "p.bmp", pixels)
    picture = load_picture(tmp_path / "p.bmp")
    assert picture.notes == ("alpha flattened on white",)
    wanted = np.full((12, 16, 3), 255)
    wanted[3, 4] = COLOURS[3, 4]
    assert np.array_equal(np.asarray(picture.image), wanted)


@pytest.mark.parametrize("extra", [None, "unassalpha", "assocalpha"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", [False, True])
def test_tiff_with_a_cleared_alpha(tmp_path: Path, extra: str | None, kind: str, planar: bool) -> None:
    scale = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[kind]
    values = (np.asarray(CLEAR).astype(np.float64) * scale).astype(kind)
    options = {"photometric": "rgb", "extrasamples": [extra] if extra else None, "metadata": None}
    if planar:
        values, options["planarconfig"] = np.ascontiguousarray(values.transpose(2, 0, 1)), "separate"
    tifffile.imwrite(tmp_path / "p.tif", values, **options)
    if extra is None:  # tifffile always says what the fourth sample is; some writers do not
        data = (tmp_path / "p.tif").read_bytes()
        said, unsaid = struct.pack("<HHI", 338, 3, 1), struct.pack("<HHI", 65_000, 3, 1)
        (tmp_path / "p.tif").write_bytes(data.replace(said, unsaid))
    picture = load_picture(tmp_path / "p.tif")
    assert IGNORED in picture.notes
    # Colours that were multiplied with an alpha of 0 are what the file stores.
    assert np.abs(np.asarray(picture.image).astype(int) - COLOURS).max() <= 1


def saved(path: Path, *frames: Image.Image) -> Path:
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    if len(frames) == 1:
        frames[0].save(path, **lossless)
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, disposal=1, **lossless)
    return path


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "avif"])
def test_nothing_but_transparency_fails(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / f"p.{kind}", CLEAR)
    with pytest.raises(ItemError) as caught:
        load_picture(path)
    assert caught.value.code == "empty_picture"
    assert str(caught.value) == f"{path}: every pixel is transparent, so there is nothing to edit"


@pytest.mark.parametrize("mode", ["LA", "L", "RGB", "1", "I;16"])
def test_nothing_but_transparency_in_other_modes(tmp_path: Path, mode: str) -> None:
    options: dict[str, Any] = {"LA": {}, "L": {"transparency": 7}, "RGB": {"transparency": (7, 7, 7)}}.get(
        mode, {"transparency": 0}
    )
    fill = {"LA": (9, 0), "L": 7, "RGB": (7, 7, 7)}.get(mode, 0)
    Image.new(mode, (5, 4), fill).save(tmp_path / "p.png", **options)
    with pytest.raises(ItemError, match="every pixel is transparent") as caught:
        load_picture(tmp_path / "p.png")
    assert caught.value.code == "empty_picture"


def test_unused_colours_of_a_palette_do_not_count(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "p.png", transparency=b"\xff\x00")
    with pytest.raises(ItemError, match="every pixel is transparent"):
        load_picture(tmp_path / "p.png")
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", transparency=b"\xff\x00")
    assert load_picture(tmp_path / "p.png").image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "avif"])
@pytest.mark.parametrize("before", [1, 2])
def test_the_first_frame_that_shows_something_is_taken(tmp_path: Path, kind: str, before: int) -> None:
    half = RED.copy()
    half.paste((0, 0, 0, 0), (0, 0, 8, 12))
    hidden = [CLEAR, Image.new("RGBA", CLEAR.size, (0, 0, 9, 0))][:before]
    picture = load_picture(saved(tmp_path / f"p.{kind}", *hidden, half, RED))
    told = [note for note in picture.notes if note.endswith("is used: those before it show nothing")]
    assert told == [f"only frame {before + 1} of {before + 2} is used: those before it show nothing"]
    assert picture.image.getpixel((2, 5)) == (255, 255, 255)
    assert np.abs(np.subtract(picture.image.getpixel((12, 5)), (255, 0, 0))).max() <= 5


@pytest.mark.parametrize("kind", ["png", "webp", "avif"])
def test_an_animation_of_nothing_fails(tmp_path: Path, kind: str) -> None:
    other = Image.new("RGBA", CLEAR.size, (9, 9, 9, 0))
    path = saved(tmp_path / f"p.{kind}", CLEAR, other)
    with pytest.raises(ItemError, match=r": (in all 2 frames )?every pixel is transparent") as caught:
        load_picture(path)
    assert caught.value.code == "empty_picture"


def test_a_profile_stays_with_a_later_frame(tmp_path: Path) -> None:
    wide = chunk(b"cICP", bytes([9, 13, 0, 1]))
    green = Image.new("RGBA", CLEAR.size, (0, 200, 0))
    saved(tmp_path / "q.png", CLEAR, green)
    data = (tmp_path / "q.png").read_bytes()
    (tmp_path / "q.png").write_bytes(data[:33] + wide + data[33:])
    picture = load_picture(tmp_path / "q.png")
    assert "BT.2020 converted to sRGB" in picture.notes
    assert picture.image.getpixel((5, 5)) != (0, 200, 0)


def test_a_picture_in_memory() -> None:
    with pytest.raises(ItemError, match="every pixel is transparent"):
        picture_in_memory(CLEAR)
    assert picture_in_memory(RED).image.getpixel((0, 0)) == (255, 0, 0)
