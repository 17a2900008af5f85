"""What decoding takes: the estimate from the header against the measured peak, and conversions in bands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

from joyedit.job.pictures import colours
from joyedit.job.pictures.colours import to_rgb
from joyedit.job.pictures.headers import open_image
from joyedit.job.pictures.memory import decoding_need

WIDTH, HEIGHT = 2000, 1600
BUCKET = (512, 640)

CHILD = """
import ctypes, gc, json, os, resource, sys
from PIL import Image
from joyedit.job.pictures.budget import Reading, shared_budget
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.fitted import cropped_to

bucket = tuple(json.loads(sys.argv[1]))
load_picture(sys.argv[2])  # loads what is loaded once
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
for path in sys.argv[2:]:
    reader, writer = os.pipe()
    if not os.fork():
        class Asked(Reading):
            def admit(self, name, need):
                self.need = need
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        before = peak()
        with Asked(shared_budget()) as reading:
            cropped_to(load_picture(path, reading=reading).image, bucket)
        told = [path, peak() - before, reading.need.with_fit(bucket)]
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    print(os.read(reader, 10_000).decode())
    os.close(reader)
    os.wait()
"""


def kinds() -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    blocks = np.random.default_rng(0).integers(0, 255, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    rgb = Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    grey, palette = rgb.convert("L"), rgb.quantize(16)
    deep = np.asarray(grey).astype(np.uint16) * 257
    rgba = Image.merge("RGBA", (*rgb.split(), grey))
    exif = Image.Exif()
    exif[0x0112] = 6
    other = bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    other = other.replace("sRGB".encode("utf-16-be"), "tRGB".encode("utf-16-be"))
    lzw = {"compression": "tiff_lzw"}
    nothing = rgba.copy()
    nothing.putalpha(0)
    many = {"save_all": True, "append_images": [nothing.rotate(180), rgba]}
    return {
        "rgb.png": (rgb, {}), "palette.png": (palette, {}), "clear.png": (palette, {"transparency": 3}),
        "one.png": (rgb.convert("1"), {}), "deep.png": (Image.fromarray(deep), {}), "rgba.png": (rgba, {}),
        "la.png": (Image.merge("LA", (grey, grey)), {}), "profile.png": (rgb, {"icc_profile": other}),
        "turned.png": (rgb, {"exif": exif}), "apng.png": (rgb, {"save_all": True, "append_images": [rgb]}),
        "plain.jpg": (rgb, {}), "grey.jpg": (grey, {}), "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "full.jpg": (rgb, {"progressive": True, "subsampling": 0}),
        "both.jpg": (rgb, {"icc_profile": other, "exif": exif}),
        "plain.webp": (rgb, {"method": 0}), "lossless.webp": (rgb, {"lossless": True, "method": 0, "quality": 0}),
        "alpha.webp": (rgba, {"method": 0}),
        "plain.gif": (palette, {}), "clear.gif": (palette, {"transparency": 1, "disposal": 2}),
        "many.gif": (palette, {"save_all": True, "append_images": [palette.rotate(180)], "disposal": 2}),
        "plain.bmp": (rgb, {}), "plain.ppm": (rgb, {}), "deep.pgm": (Image.fromarray(deep), {}),
        "raw.tif": (rgb, {}), "lzw.tif": (rgb, lzw), "zip.tif": (rgb, {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}), "deep.tif": (Image.fromarray(deep), lzw),
        "float.tif": (Image.fromarray(deep.astype(np.float32)), lzw),
        "int.tif": (Image.fromarray(deep.astype(np.int32)), {}), "cmyk.tif": (rgb.convert("CMYK"), lzw),
        "rgba.tif": (rgba, lzw), "ycc.tif": (rgb.convert("YCbCr"), lzw), "turned.tif": (rgb, {**lzw, "exif": exif}),
        "plain.avif": (rgb, {"speed": 10}), "alpha.avif": (rgba, {"speed": 10}), "alpha.png": (rgba, many),
        **{f"late.{kind}": (nothing, many) for kind in ("png", "webp", "gif")},
    }  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures as Linux does")
def test_the_estimate_holds_the_measured_peak(tmp_path: Path) -> None:
    for name, (image, options) in kinds().items():
        image.save(tmp_path / name, **options)
    deep = np.asarray(kinds()["rgb.png"][0]).astype(np.uint16) * 257
    planes = {"planarconfig": "separate", "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "planes.tif", np.ascontiguousarray(deep.transpose(2, 0, 1)), **planes)
    tifffile.imwrite(tmp_path / "float.tif", deep.astype(np.float32), photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "white.tif", deep[..., 0].astype(">f8"), photometric="miniswhite", byteorder=">")
    pillow_heif.from_pillow(kinds()["rgba.png"][0]).save(tmp_path / "alpha.heic", quality=50)
    paths = [str(path) for path in tmp_path.iterdir()]
    asked = [sys.executable, "-c", CHILD, json.dumps(BUCKET), *paths]
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=200, check=True)
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(told) == len(paths)
    megabytes = {Path(path).name: (peak / 1e6, need / 1e6) for path, peak, need in told}
    assert {name: both for name, both in megabytes.items() if both[0] > both[1]} == {}
    # A picture of this size has a surcharge for holes in the heap of half its need; a large one has none to speak of.
    assert {name: both for name, both in megabytes.items() if both[1] > 2.6 * both[0] + 4} == {}


@pytest.mark.parametrize(("name", "most"), [("rgb.png", 4), ("deep.png", 7), ("plain.jpg", 4), ("float.tif", 5)])
def test_a_large_picture_takes_a_small_multiple_of_its_8_bit_size(tmp_path: Path, name: str, most: int) -> None:
    image, options = kinds()[name]
    image.save(tmp_path / name, **options)
    with open(tmp_path / name, "rb") as file:
        opened = open_image(file, name)
        opened._size = (40_000, 30_000)
        need = decoding_need(opened, 1000, is_turned=False)
    assert most * 1.2e9 < need.peak < 1.05 * most * 1.2e9 + (30 << 20)


def test_coefficients_count_where_several_scans_bring_them(tmp_path: Path) -> None:
    image, _ = kinds()["plain.jpg"]

    def need(name: str, **options: Any) -> int:
        image.save(tmp_path / name, **options)
        with open(tmp_path / name, "rb") as file:
            return decoding_need(open_image(file, name), 0, is_turned=False).peak

    plain, progressive = need("a.jpg"), need("b.jpg", progressive=True)
    assert progressive - plain > 2.5 * WIDTH * HEIGHT  # 4:2:0 has 1.5 coefficients a pixel
    assert need("c.jpg", progressive=True, subsampling=0) - progressive > 2.5 * WIDTH * HEIGHT
    data = (tmp_path / "a.jpg").read_bytes()
    scan = data.index(b"\xff\xda")
    # A plain JPEG whose first scan brings one component of three.
    (tmp_path / "d.jpg").write_bytes(data[:scan] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :])
    with open(tmp_path / "d.jpg", "rb") as file:
        assert decoding_need(open_image(file, "d"), 0, is_turned=False).peak - plain > 2.5 * WIDTH * HEIGHT


def deep_pictures() -> list[Image.Image]:
    dice = np.random.default_rng(1)
    words = dice.integers(0, 65_536, (37, 23), dtype=np.uint16)
    longs = dice.integers(-5, 2**31 - 1, (37, 23), dtype=np.int32)
    floats = dice.normal(100, 5000, (37, 23)).astype(np.float32)
    floats[3, 4], floats[30, 1], floats[36, 22] = np.nan, np.inf, -np.inf
    unit = dice.random((37, 23), dtype=np.float32)
    pictures = [Image.fromarray(part) for part in (words, words.astype(np.int32), longs, floats, unit)]
    pictures.append(Image.frombytes("I;16B", (23, 37), words.astype(">u2").tobytes()))
    late = words.astype(np.int32)
    late[36, 22] = 1 << 20  # one pixel in the last band decides the scale of all
    pictures.append(Image.fromarray(late))
    for picture in pictures[:3]:
        clear = picture.copy()
        clear.info["transparency"] = int(np.asarray(picture)[20, 20])
        pictures.append(clear)
    return pictures


@pytest.mark.parametrize("rows", [1, 2, 5, 36, 37])
def test_bands_give_the_same_pixels_as_the_whole_picture(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for image in deep_pictures():
        monkeypatch.setattr(colours, "BAND_PIXELS", 1 << 18)
        notes: list[str] = []
        whole = np.asarray(to_rgb(image, notes))
        monkeypatch.setattr(colours, "BAND_PIXELS", rows * image.width)
        again: list[str] = []
        assert np.array_equal(np.asarray(to_rgb(image, again)), whole), image.mode
        assert again == notes


def test_deep_pixels_are_scaled_by_the_formula_of_a_whole_array() -> None:
    image = deep_pictures()[0]
    wanted = (np.asarray(image).astype(np.int64) + 128) // 257
    assert np.array_equal(np.asarray(to_rgb(image, []))[..., 1], wanted)
