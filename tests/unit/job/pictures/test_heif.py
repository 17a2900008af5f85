"""AVIF and HEIC: size, orientation, colours, depth and frames; cut files; what is said where a reader is missing."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from joyedit.errors import ItemError
from joyedit.job.pictures import heif, icc
from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES, header_size, load_picture
from joyedit.job.pictures.headers import open_image

QUARTERS = Image.new("RGB", (64, 48), (40, 200, 90))
QUARTERS.paste((220, 30, 30), (0, 0, 32, 24))
P3 = icc.profile(icc.PRIMARIES[12][1], icc.srgb_curve(np.linspace(0, 1, 1024)))


def avif(image: Image.Image = QUARTERS, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "AVIF", quality=100, speed=10, subsampling="4:4:4", **options)
    return file.getvalue()


def heic(image: Image.Image = QUARTERS, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("name", "make"), [("p.avif", avif), ("p.heic", heic), ("p.heif", avif)])
def test_it_is_read(tmp_path: Path, name: str, make: object) -> None:
    path = written(tmp_path / name, make())  # type: ignore[operator]
    assert header_size(path) == (48, 64)
    picture = load_picture(path)
    assert picture.notes == ()
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(QUARTERS)).max() <= 3


@pytest.mark.parametrize("make", [avif, heic])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, make: object, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = QUARTERS
    path = written(tmp_path / "p.avif", make(stored, exif=exif.tobytes()))  # type: ignore[operator]
    stored.save(tmp_path / "p.png", exif=exif)
    wanted = load_picture(tmp_path / "p.png").image
    got = load_picture(path).image
    assert header_size(path) == (wanted.height, wanted.width) == (got.height, got.width)
    assert np.abs(np.asarray(got).astype(int) - np.asarray(wanted)).max() <= 3


def recoloured(data: bytes, primaries: int, transfer: int) -> bytes:
    """The same file with other code points in its nclx box."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


@pytest.mark.parametrize("make", [avif, heic])
def test_code_points(tmp_path: Path, make: object) -> None:
    data = make()  # type: ignore[operator]
    plain = np.asarray(load_picture(written(tmp_path / "p.avif", data)).image).astype(int)
    if b"colrnclx" not in data:
        assert heif.code_points(io.BytesIO(data)) is None
        return
    wide = load_picture(written(tmp_path / "p.avif", recoloured(data, 9, 16)))
    assert "BT.2020, PQ: highlights clipped converted to sRGB" in wide.notes
    assert np.abs(np.asarray(wide.image) - plain).max() > 20
    same = load_picture(written(tmp_path / "p.avif", recoloured(data, 1, 1)))
    assert np.array_equal(np.asarray(same.image), plain)


@pytest.mark.parametrize("make", [avif, heic])
def test_a_profile_comes_before_code_points(tmp_path: Path, make: object) -> None:
    data = make(icc_profile=P3) if make is avif else make(with_profile())  # type: ignore[operator]
    picture = load_picture(written(tmp_path / "p.avif", data))
    assert "colour profile joyedit converted to sRGB" in picture.notes
    QUARTERS.save(tmp_path / "p.png", icc_profile=P3)
    wanted = np.asarray(load_picture(tmp_path / "p.png").image).astype(int)
    assert np.abs(np.asarray(picture.image) - wanted).max() <= 4


def with_profile() -> Image.Image:
    image = QUARTERS.copy()
    image.info["icc_profile"] = P3
    return image


def test_ten_bits_of_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    ramp = np.repeat(np.linspace(0, 65535, 64).astype("<u2")[None, :, None], 3, axis=-1).repeat(64, axis=0)
    file = io.BytesIO()
    pillow_heif.from_bytes(mode="RGB;16", size=(64, 64), data=ramp.tobytes()).save(file, quality=-1, chroma=444)
    got = np.asarray(load_picture(written(tmp_path / "p.heic", file.getvalue())).image).astype(int)
    assert np.abs(got - np.rint(ramp / 257)).max() <= 3


def test_alpha(tmp_path: Path) -> None:
    half = QUARTERS.convert("RGBA")
    half.putalpha(Image.fromarray(np.repeat(np.array([[0] * 32 + [255] * 32], np.uint8), 48, axis=0)))
    picture = load_picture(written(tmp_path / "p.avif", avif(half)))
    assert picture.notes == ("alpha flattened on white",)
    assert picture.image.getpixel((3, 3)) == (255, 255, 255)


def test_frames(tmp_path: Path) -> None:
    others = [Image.new("RGB", QUARTERS.size, colour) for colour in ("blue", "black")]
    picture = load_picture(written(tmp_path / "p.avif", avif(save_all=True, append_images=others)))
    assert picture.notes == ("only the first of 3 frames is used",)
    assert np.abs(np.subtract(picture.image.getpixel((3, 3)), (220, 30, 30))).max() <= 3
    pillow_heif = pytest.importorskip("pillow_heif")
    several = pillow_heif.from_pillow(others[0])
    several.add_from_pillow(QUARTERS)
    file = io.BytesIO()
    several.save(file, quality=-1, primary_index=1)
    picture = load_picture(written(tmp_path / "p.heic", file.getvalue()))
    assert picture.notes == ("only the main one of 2 pictures is used",)
    assert np.abs(np.subtract(picture.image.getpixel((3, 3)), (220, 30, 30))).max() <= 6


@pytest.mark.parametrize("make", [avif, heic])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.99])
def test_cut_files(tmp_path: Path, make: object, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = make(noise)  # type: ignore[operator]
    path = written(tmp_path / "p.avif", data[: int(len(data) * part)])
    with pytest.raises(ItemError) as caught:
        load_picture(path)
    assert caught.value.code == "truncated_picture"


def test_heic_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for read in (header_size, load_picture):
        with pytest.raises(ItemError) as caught:
            read(path)  # type: ignore[operator]
        assert caught.value.code == "unreadable_picture"
        told = 'HEIC pictures need an extra: pip install "joyedit[heif]", or convert it to PNG or JPEG'
        assert str(caught.value) == f"{path}: {told}"


def test_avif_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "p.avif", avif())
    monkeypatch.setattr(features, "modules", {})
    with pytest.raises(ItemError, match=r"AVIF pictures need Pillow 11\.3 or newer"):
        header_size(path)


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        ((b"avif", b"mif1"), "AVIF"), ((b"avis", b"avif"), "AVIF"), ((b"mif1", b"avif"), "AVIF"), ((b"heic",), "HEIC"),
        ((b"mif1", b"heic"), "HEIC"), ((b"heic", b"avif"), "HEIC"), ((b"qt  ",), None), ((b"isom", b"mp41"), None),
    ],
)  # fmt: skip
def test_the_kind_by_its_brands(brands: tuple[bytes, ...], kind: str | None) -> None:
    body = brands[0] + bytes(4) + b"".join(brands)
    assert heif.kind_of(struct.pack(">I", 8 + len(body)) + b"ftyp" + body + b"more") == kind


def test_damaged_boxes_have_no_code_points() -> None:
    data = avif()
    assert heif.code_points(io.BytesIO(data)) == (1, 13, 0, 1)
    dice = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data[:300])
        for place in dice.integers(0, 300, 5):
            damaged[place] = dice.integers(0, 256)
        codes = heif.code_points(io.BytesIO(bytes(damaged)))
        assert codes is None or len(codes) == 4


def test_the_endings_are_those_of_pictures() -> None:
    assert {".avif", ".heic", ".heif", ".hif"} <= SUPPORTED_SUFFIXES


def test_too_large_by_its_header(tmp_path: Path) -> None:
    path = written(tmp_path / "p.avif", avif())
    with open(path, "rb") as file, pytest.raises(ItemError, match="64 x 48 is more than 99 pixels") as caught:
        open_image(file, "p", 99)
    assert caught.value.code == "picture_too_large"
