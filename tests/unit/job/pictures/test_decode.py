from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from joyedit.errors import ItemError
from joyedit.job.hashing import HashCache
from joyedit.job.pictures import decode as images
from joyedit.job.pictures.decode import Picture, header_size, load_picture
from joyedit.job.pictures.encode import save_picture
from joyedit.job.pictures.fitted import cropped_to
from joyedit.job.spec import Stamp
from support.pictures import read_metadata

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corners(image: Image.Image) -> list[object]:
    w, h = image.size
    return [image.getpixel(at) for at in ((0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1))]


def four_corners(mode: str = "RGB") -> Image.Image:
    """40 wide, 20 high; red, green, blue and white quarters."""
    image = Image.new("RGB", (40, 20), "white")
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    image.paste(BLUE, (0, 10, 20, 20))
    return image.convert(mode)


def refused(path: Path, code: str = "unreadable_picture") -> str:
    """The message with which both ways of reading refuse the file."""
    with pytest.raises(ItemError) as loading:
        load_picture(path)
    assert loading.value.code == code
    return str(loading.value)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = four_corners()
    inverse = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"p.{kind}"
    lossless = {"lossless": True} if kind == "webp" else {"quality": 100, "subsampling": 0} if kind == "jpg" else {}
    stored.save(path, exif=exif, **lossless)
    assert header_size(path) == (20, 40)
    picture = load_picture(path)
    assert (picture.image.mode, picture.image.size) == ("RGB", (40, 20))
    difference = np.abs(np.asarray(picture.image).astype(int) - np.asarray(upright))
    assert difference.mean() < 4  # the JPEG's quarters bleed a little
    assert (orientation > 1 and kind != "tiff") == bool(picture.notes)


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    data = io.BytesIO()
    four_corners().save(data, "PNG")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + body))
    end = data.getvalue().index(b"IEND") - 4
    path = tmp_path / "late.png"
    path.write_bytes(data.getvalue()[:end] + chunk + data.getvalue()[end:])
    assert header_size(path) == (40, 20)
    picture = load_picture(path)
    assert picture.image.size == (20, 40)
    assert picture.notes == ("EXIF orientation 6 applied",)
    assert corners(picture.image) == [BLUE, RED, (255, 255, 255), GREEN]


@pytest.mark.parametrize("value", [0, 9, 77])
def test_a_senseless_orientation_is_passed_over(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    four_corners().save(tmp_path / "p.png", exif=exif)
    assert header_size(tmp_path / "p.png") == (20, 40)
    assert load_picture(tmp_path / "p.png").notes == ()


def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    four_corners().save(tmp_path / "p.jpg", exif=b"Exif\0\0nonsense that is no TIFF")
    assert header_size(tmp_path / "p.jpg") == (20, 40)
    assert load_picture(tmp_path / "p.jpg").image.size == (40, 20)


def grey_ramp() -> np.ndarray:
    return np.array([[0, 1, 128, 129, 257], [256, 32768, 65279, 65406, 65535]], dtype=np.uint16)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, kind: str) -> None:
    ramp = grey_ramp()
    Image.fromarray(ramp).save(tmp_path / f"p.{kind}")
    picture = load_picture(tmp_path / f"p.{kind}")
    wanted = np.floor(ramp / 257 + 0.5).astype(np.uint8)
    assert wanted.tolist() == [[0, 0, 0, 1, 1], [1, 128, 254, 254, 255]]
    assert np.array_equal(np.asarray(picture.image), np.stack([wanted] * 3, axis=-1))
    assert picture.notes == ("16 bits scaled to 8",)


def png_16_bit(path: Path, pixels: np.ndarray, colour_type: int) -> None:
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_16_bit_colour_is_scaled(tmp_path: Path) -> None:
    pixels = np.array([[[0, 257, 65535], [32768, 25700, 65021]]], dtype=np.uint16)
    png_16_bit(tmp_path / "p.png", pixels, 2)
    got = np.asarray(load_picture(tmp_path / "p.png").image).astype(int)
    assert np.abs(got - np.rint(pixels / 257)).max() <= 1
    assert got[0, 0].tolist() == [0, 1, 255]


def test_16_bit_grey_with_alpha(tmp_path: Path) -> None:
    png_16_bit(tmp_path / "p.png", np.array([[[0, 0], [0, 65535]]], dtype=np.uint16), 4)
    picture = load_picture(tmp_path / "p.png")
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]
    assert picture.notes == ("16 bits scaled to 8", "alpha flattened on white")


@pytest.mark.parametrize(
    ("top", "note"),
    [(1.0, "0..1"), (255.0, "0..255"), (65535.0, "0..65535"), (100000.0, "0..100000")],
)
def test_float_pixels_are_scaled(tmp_path: Path, top: float, note: str) -> None:
    Image.fromarray(np.array([[0, top / 2, top, np.nan, -5]], dtype=np.float32)).save(tmp_path / "p.tiff")
    picture = load_picture(tmp_path / "p.tiff")
    assert np.asarray(picture.image)[0, :, 0].tolist() == [0, 128, 255, 0, 0]
    assert picture.notes == (f"float pixels scaled from {note}",)


def test_32_bit_integers_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-5, 0, 2**30, 2**31 - 1]], dtype=np.int32)).save(tmp_path / "p.tiff")
    picture = load_picture(tmp_path / "p.tiff")
    assert np.asarray(picture.image)[0, :, 0].tolist() == [0, 0, 128, 255]
    assert picture.notes == ("signed 32 bits scaled to 8, and what is negative is black",)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "p.jpg", quality=100)
    picture = load_picture(tmp_path / "p.jpg")
    red, green, blue = picture.image.getpixel((8, 8))  # type: ignore[misc]
    assert red > 250
    assert max(green, blue) < 5
    assert picture.notes == ("CMYK converted to RGB",)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_flattened_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    if mode == "PA":
        image.quantize(8).save(tmp_path / "p.png")
    else:
        image.convert(mode).save(tmp_path / "p.png")
    picture = load_picture(tmp_path / "p.png")
    assert picture.image.mode == "RGB"
    assert [picture.image.getpixel((x, 0)) for x in (0, 1, 2)] == [(0,) * 3, (255,) * 3, (127,) * 3]
    assert picture.notes == ("alpha flattened on white",)


def test_alpha_without_a_clear_pixel_is_no_news(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (1, 2, 3, 255)).save(tmp_path / "p.png")
    assert load_picture(tmp_path / "p.png").notes == ()
    assert load_picture(tmp_path / "p.png").image.getpixel((0, 0)) == (1, 2, 3)


def test_a_transparent_palette_entry(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png", transparency=1)
    picture = load_picture(tmp_path / "p.png")
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1), "black")
    image.putpixel((1, 0), 9 if mode == "L" else (9, 9, 9))
    image.save(tmp_path / "p.png", transparency=9 if mode == "L" else (9, 9, 9))
    picture = load_picture(tmp_path / "p.png")
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_a_transparent_16_bit_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1000]], dtype=np.uint16)).save(tmp_path / "p.png", transparency=1000)
    picture = load_picture(tmp_path / "p.png")
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]
    assert picture.notes == ("16 bits scaled to 8", "alpha flattened on white")


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "gif", "pbm"])
def test_one_bit(tmp_path: Path, kind: str) -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    image.save(tmp_path / f"p.{kind}")
    picture = load_picture(tmp_path / f"p.{kind}")
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    path = tmp_path / f"p.{kind}"
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    picture = load_picture(path)
    assert picture.image.getpixel((4, 4)) == RED
    assert picture.notes == (f"only the first of 3 {'pages' if kind == 'tiff' else 'frames'} is used",)


def swapped_profile() -> bytes:
    """A profile whose primaries are sRGB's with red and blue exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    at = {bytes(data[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    data[at[b"rXYZ"] : at[b"rXYZ"] + 4] = b"bXYZ"
    data[at[b"bXYZ"] : at[b"bXYZ"] + 4] = b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB bui", b"swap bui")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_profile_is_followed(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4), "red").save(tmp_path / "p.png", icc_profile=swapped_profile())
    picture = load_picture(tmp_path / "p.png")
    red, green, blue = picture.image.getpixel((1, 1))  # type: ignore[misc]
    assert (red < 5, green < 5, blue > 250) == (True, True, True)
    assert picture.notes == ("colour profile swap built-in converted to sRGB",)


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    four_corners().save(tmp_path / "p.png", icc_profile=profile)
    picture = load_picture(tmp_path / "p.png")
    assert np.array_equal(np.asarray(picture.image), np.asarray(four_corners()))
    assert picture.notes == ()


def test_a_profile_of_another_colour_space_is_left(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("L", (4, 4), 77).save(tmp_path / "p.png", icc_profile=profile)
    picture = load_picture(tmp_path / "p.png")
    assert picture.image.getpixel((0, 0)) == (77, 77, 77)
    assert picture.notes == ()


def test_a_broken_profile_is_left_and_told(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "p.png", icc_profile=b"no profile at all")
    picture = load_picture(tmp_path / "p.png")
    assert picture.image.getpixel((0, 0)) == RED
    assert picture.notes == ("colour profile ignored: cannot open profile from string",)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "tiff", "bmp"])
def test_a_truncated_file_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"p.{kind}"
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path, "truncated_picture").startswith(f"{path}: ")
    if kind == "webp":  # whose decoder gives no reason
        assert f"truncated: {path.stat().st_size} of " in refused(path, "truncated_picture")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"\x01\x02\x03\x04 nothing known",
            "not a picture of a supported kind (PNG, JPEG, WebP, AVIF, HEIC, GIF, TIFF, BMP, PNM)",
        ),
        (
            b"error code: 502\n",
            "it holds text, which begins with 'error code: 502' (get it again from its source)",
        ),
        (b"\0\0\0\x18ftypqt  \0\0\0\0qt  ....", "it holds a video or sound (MP4, MOV), not a picture"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "it holds a pointer of Git LFS: run 'git lfs pull' in its repository",
        ),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBI\x50\0\x20\x02",
            "a PNG in the form of iOS apps (CgBI) cannot be read; save it anew as a plain PNG on a Mac",
        ),
    ],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(content)
    assert refused(path) == f"{path}: {reason}"
    with pytest.raises(ItemError, match=r"p\.png: ") as sizing:
        header_size(path)
    assert str(sizing.value) == f"{path}: {reason}"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert refused(tmp_path / "empty.png", "empty_picture") == f"{tmp_path}/empty.png: the file is empty"
    assert refused(tmp_path / "gone.png", "missing_picture") == f"{tmp_path}/gone.png: no such file"
    assert refused(tmp_path) == f"{tmp_path}: not a file"
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path / "pipe.png") == f"{tmp_path}/pipe.png: not a file"
    with pytest.raises(ItemError, match="null"):
        header_size("a\0b.png")


def png_header(path: Path, width: int, height: int) -> None:
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT")


def test_the_limit_of_pixels(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    png_header(path, 17_800, 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert header_size(path) == (10_000, 17_800)
        png_header(path, 178_001, 1_000)
        message = f"{path}: 178001 x 1000 is more than 178 million pixels (--max-pixels allows more)"
        assert refused(path, "picture_too_large") == message
        with pytest.raises(ItemError) as sizing:
            header_size(path)
        assert (sizing.value.code, str(sizing.value)) == ("picture_too_large", message)
        assert header_size(path, 178_001_000) == (1_000, 178_001)
        with pytest.raises(ItemError, match="is more than 99 pixels"):
            header_size(path, 99)
    assert Image.MAX_IMAGE_PIXELS is not None, "Pillow's own limit is left to the rest of the process"


@pytest.mark.parametrize("kind", ["png", "tiff", "jpg"])
def test_a_large_picture_gives_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    four_corners().save(tmp_path / f"p.{kind}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_picture(tmp_path / f"p.{kind}").image.size == (40, 20)


def test_the_size_is_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (10, 20)).save(path)
    assert header_size(path) == (20, 10)
    Image.new("RGB", (300, 20)).save(path)
    assert header_size(path) == (20, 300)


def test_the_size_takes_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (10, 20)).save(path)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _self: pytest.fail("decoded"))
    assert header_size(path) == (20, 10)


def test_the_picture_does_not_hold_the_file(tmp_path: Path) -> None:
    four_corners().save(tmp_path / "p.png")
    picture = load_picture(tmp_path / "p.png")
    assert isinstance(picture, Picture)
    assert type(picture.image) is Image.Image
    os.remove(tmp_path / "p.png")
    assert corners(picture.image) == [RED, GREEN, BLUE, (255, 255, 255)]


@pytest.mark.parametrize("bucket", [(64, 64), (32, 128), (128, 32), (48, 80)])
@pytest.mark.parametrize("size", [(40, 20), (64, 64), (7, 300), (301, 211)])
def test_fit_covers_and_crops(bucket: tuple[int, int], size: tuple[int, int]) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    height, width = bucket
    scale = max(height / size[1], width / size[0])
    wide, tall = int(np.ceil(size[0] * scale)), int(np.ceil(size[1] * scale))
    left, top = (wide - width) // 2, (tall - height) // 2
    wanted = image.resize((wide, tall), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    got = cropped_to(image, bucket)
    assert got.size == (width, height)
    difference = np.abs(np.asarray(got).astype(int) - np.asarray(wanted))
    assert difference.max() <= (0 if wide * tall <= 16 * width * height else 1)


def test_fit_of_a_hair_takes_no_memory() -> None:
    image = Image.new("RGB", (1, 60_000), "red")
    assert cropped_to(image, (2048, 512)).getpixel((5, 5)) == RED


METADATA = {
    "instruction": '把天空变成紫色,\n再加一只鸟 🐦 "quoted" \\n {x}',
    "seed": "42",
    "negative_prompt": "",
    "model": "tête <b>",
}


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_metadata_round_trip(tmp_path: Path, kind: str) -> None:
    with (tmp_path / f"p.{kind}").open("wb") as file:
        save_picture(four_corners(), file, kind, None, METADATA)
    assert read_metadata(tmp_path / f"p.{kind}") == METADATA
    assert load_picture(tmp_path / f"p.{kind}").image.size == (40, 20)


def test_png_is_lossless_and_its_text_is_itxt(tmp_path: Path) -> None:
    file = io.BytesIO()
    save_picture(four_corners(), file, "png", 10, METADATA)
    assert file.getvalue().count(b"iTXt") == len(METADATA)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(four_corners()))


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_the_comment_is_ascii_json_in_the_exif_folder(kind: str) -> None:
    file = io.BytesIO()
    save_picture(four_corners(), file, kind, 80, {"a": "天"})
    comment = Image.open(file).getexif().get_ifd(0x8769)[0x9286]
    assert comment == b'ASCII\0\0\0{"a": "\\u5929"}'


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_quality_counts_and_is_95_by_default(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 255, (64, 64, 3), dtype=np.uint8))

    def length(quality: int | None) -> int:
        file = io.BytesIO()
        save_picture(noise, file, kind, quality, {})
        return len(file.getvalue())

    assert length(None) == length(95) > length(30)


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_an_instruction_too_long_for_exif_is_shortened(tmp_path: Path, kind: str) -> None:
    with (tmp_path / f"p.{kind}").open("wb") as file:
        save_picture(four_corners(), file, kind, None, {"instruction": "天" * 50_000, "seed": "7"})
    got = read_metadata(tmp_path / f"p.{kind}")
    assert got["seed"] == "7"
    assert got["instruction"].startswith("天" * 1000)
    assert got["instruction"].endswith("天…")


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^format is one of png, jpg, webp, tiff, avif and heic, not 'bmp'$"):
        save_picture(four_corners(), io.BytesIO(), "bmp", None, {})


def test_supported_suffixes_are_lower_case() -> None:
    for suffix in images.SUPPORTED_SUFFIXES | images.UNREADABLE_SUFFIXES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")


def test_a_wrong_ending_is_noted(tmp_path: Path) -> None:
    for name in ("a.jpg", "a", "a.png", "a.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    notes = [load_picture(tmp_path / name).notes for name in ("a.jpg", "a", "a.png", "a.txt")]
    message = "a PNG picture, although its name ends in"
    assert notes == [(f"{message} .jpg",), (), (), (f"{message} .txt",)]


def test_the_hash_is_that_of_the_file_that_was_decoded(tmp_path: Path) -> None:
    path, hashes = tmp_path / "p.png", HashCache()
    for colour in (RED, RED, GREEN):
        Image.new("RGB", (4, 4), colour).save(path)
        seen = load_picture(path, hashes=hashes).seen
        assert seen is not None
        assert seen.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert seen.stamp == Stamp.of(path.stat())
        assert hashes.get(str(path), seen.stamp) == seen.sha256
    assert load_picture(path).seen is None


@pytest.mark.parametrize("torn", [False, True])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    path = tmp_path / "p.png"
    Image.effect_noise((64, 64), 50).save(path)
    if torn:
        path.write_bytes(path.read_bytes()[:2000])
    opened = images.open_image

    def write_on(*given: Any) -> Any:
        with open(path, "ab") as file:
            file.write(b"more")
        return opened(*given)

    monkeypatch.setattr(images, "open_image", write_on)
    assert refused(path, "picture_changed") == f"{path}: the file changed while it was read"
