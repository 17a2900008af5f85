"""Colours by content: what a profile does counts, not what it is called; PNG's order of precedence; CMYK and grey."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from joyedit.job.pictures import icc
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.profiles import source_of, to_srgb
from support.png import chunk, with_chunks

P3 = icc.PRIMARIES[12][1]
ADOBE: icc.Primaries = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
SIGNAL = np.linspace(0, 1, 4096)
DICE = np.random.default_rng(0)
PICTURE = Image.fromarray(DICE.integers(0, 255, (20, 40, 3), dtype=np.uint8))
BUILT_IN = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def called(profile: bytes, name: str) -> bytes:
    """The same profile under another name of at most seven letters."""
    return profile.replace(b"joyedit", name.encode().ljust(7, b"\0"))


def matrix(places: icc.Primaries) -> np.ndarray[Any, Any]:
    """RGB of these primaries -> XYZ, without adaptation; by the definition of primaries."""
    xy = np.array(places).reshape(4, 2)
    xyz = np.stack([xy[:, 0], xy[:, 1], 1 - xy.sum(axis=1)])
    return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0] / xy[0, 1])


def wanted(pixels: Image.Image, places: icc.Primaries, light: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The pixels in sRGB, in floating point. `light` is the curve at 256 levels; the white point is that of sRGB."""
    linear = light[np.asarray(pixels)] @ (np.linalg.inv(matrix(icc.SRGB)) @ matrix(places)).T
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


def off(data: bytes | Path, target: np.ndarray[Any, Any], path: Path | None = None) -> float:
    if isinstance(data, bytes):
        assert path is not None
        path.write_bytes(data)
    else:
        path = data
    return float(np.abs(np.asarray(load_picture(path).image) - target).max())


LEVELS = np.arange(256) / 255
CURVES = {"srgb": icc.srgb_curve(LEVELS), "linear": LEVELS, "gamma": LEVELS**2.2, "steep": LEVELS**1.8}


@pytest.mark.parametrize("name", ["sRGB", "sRGB-g1", "camera", ""])
@pytest.mark.parametrize("curve", ["linear", "gamma", "steep"])
@pytest.mark.parametrize("places", [icc.SRGB, P3, ADOBE])
@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_the_curve_and_the_primaries_count(
    tmp_path: Path, name: str, curve: str, places: icc.Primaries, kind: str
) -> None:
    light = {"linear": SIGNAL, "gamma": SIGNAL**2.2, "steep": SIGNAL**1.8}[curve]
    profile = called(icc.profile(places, light), name)
    PICTURE.save(tmp_path / f"p.{kind}", icc_profile=profile, **({"lossless": True} if kind == "webp" else {}))
    # littleCMS rounds to eight bits on its way through a table of its own.
    assert off(tmp_path / f"p.{kind}", wanted(PICTURE, places, CURVES[curve])) <= 3
    assert load_picture(tmp_path / f"p.{kind}").notes == (f"colour profile {name or 'unnamed'} converted to sRGB",)


@pytest.mark.parametrize("name", ["sRGB", "camera"])
@pytest.mark.parametrize("entries", [1024, 4096])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_profile_of_srgb_changes_no_byte(tmp_path: Path, name: str, entries: int, kind: str) -> None:
    profile = called(icc.profile(icc.SRGB, icc.srgb_curve(np.linspace(0, 1, entries))), name)
    for data in (profile, BUILT_IN):
        PICTURE.save(tmp_path / f"p.{kind}", icc_profile=data, **({"lossless": True} if kind == "webp" else {}))
        picture = load_picture(tmp_path / f"p.{kind}")
        assert np.array_equal(np.asarray(picture.image), np.asarray(PICTURE))
        assert picture.notes == ()


def iccp(curve: np.ndarray[Any, Any], places: icc.Primaries = icc.SRGB) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(icc.profile(places, curve)))


def gama(value: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", value))


def chrm(places: icc.Primaries) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in places)))


SRGB_CHUNK = chunk(b"sRGB", b"\0")
BROKEN = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
CICP_P3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
CICP_SRGB = chunk(b"cICP", bytes([1, 13, 0, 1]))


@pytest.mark.parametrize(
    ("chunks", "places", "curve"),
    [
        ([gama(45_455)], icc.SRGB, "srgb"),
        ([gama(45_455), chrm(icc.SRGB)], icc.SRGB, "srgb"),
        ([gama(100_000)], icc.SRGB, "linear"),
        ([gama(55_556)], icc.SRGB, "steep"),
        ([gama(45_455), chrm(ADOBE)], ADOBE, "gamma"),
        ([chrm(P3)], P3, "srgb"),
        ([SRGB_CHUNK, gama(100_000), chrm(P3)], icc.SRGB, "srgb"),
        ([iccp(SIGNAL), gama(45_455)], icc.SRGB, "linear"),
        ([iccp(SIGNAL), SRGB_CHUNK], icc.SRGB, "linear"),
        ([BROKEN, SRGB_CHUNK], icc.SRGB, "srgb"),
        ([BROKEN, gama(100_000)], icc.SRGB, "linear"),
        ([BROKEN], icc.SRGB, "srgb"),
        ([CICP_P3], P3, "srgb"),
        ([CICP_P3, iccp(SIGNAL), SRGB_CHUNK, gama(100_000)], P3, "srgb"),
        ([CICP_SRGB, iccp(SIGNAL, P3)], icc.SRGB, "srgb"),
        ([chunk(b"cICP", bytes([1, 8, 0, 1]))], icc.SRGB, "linear"),
        ([chunk(b"cICP", bytes([1, 1, 0, 1]))], icc.SRGB, "srgb"),
        ([chunk(b"cICP", bytes([2, 2, 0, 1])), iccp(SIGNAL)], icc.SRGB, "linear"),
        ([chunk(b"cICP", bytes([99, 13, 0, 1])), iccp(SIGNAL)], icc.SRGB, "linear"),
        ([gama(0)], icc.SRGB, "srgb"),
        ([chrm((0.0,) * 8)], icc.SRGB, "srgb"),
    ],
)
def test_the_order_of_png_chunks(tmp_path: Path, chunks: list[bytes], places: icc.Primaries, curve: str) -> None:
    target = wanted(PICTURE, places, CURVES[curve])
    is_srgb = (places, curve) == (icc.SRGB, "srgb")
    for order in (chunks, chunks[::-1]):
        assert off(with_chunks(PICTURE, *order), target, tmp_path / "p.png") <= (0.01 if is_srgb else 3)


@pytest.mark.parametrize(
    ("chunks", "note"),
    [
        ([gama(100_000)], "gamma 1 converted to sRGB"),
        ([gama(45_455), chrm(ADOBE)], "gamma 2.2, own primaries converted to sRGB"),
        ([chunk(b"cICP", bytes([9, 16, 0, 1]))], "BT.2020, PQ: highlights clipped converted to sRGB"),
        ([chunk(b"cICP", bytes([99, 13, 0, 1]))], "colour code points ignored: colour primaries 99 are not known"),
        ([chunk(b"cICP", bytes([1, 9, 0, 1]))], "colour code points ignored: transfer characteristics 9 are not known"),
        ([gama(0)], "gAMA and cHRM ignored: a gamma of 0 makes no sense"),
        ([chrm((0.3, 0.3) * 4)], "gAMA and cHRM ignored: its primaries make no sense"),
        ([BROKEN], "colour profile ignored: cannot open profile from string"),
    ],
)
def test_notes_about_png_chunks(tmp_path: Path, chunks: list[bytes], note: str) -> None:
    (tmp_path / "p.png").write_bytes(with_chunks(PICTURE, *chunks))
    assert load_picture(tmp_path / "p.png").notes == (note,)


@pytest.mark.parametrize(("transfer", "white"), [(16, 148), (18, 191)])
def test_hdr_has_its_reference_white_at_white(tmp_path: Path, transfer: int, white: int) -> None:
    greys = Image.fromarray(np.repeat(np.array([[0, white, 255]], np.uint8)[..., None], 3, axis=-1))
    side = chunk(b"cICP", bytes([9, transfer, 0, 1]))
    (tmp_path / "p.png").write_bytes(with_chunks(greys, side))
    black, middle, above = np.asarray(load_picture(tmp_path / "p.png").image)[0, :, 0].tolist()
    assert (black, above) == (0, 255)
    assert middle >= 251


def test_narrow_range(tmp_path: Path) -> None:
    greys = Image.fromarray(np.repeat(np.array([[16, 126, 235]], np.uint8)[..., None], 3, axis=-1))
    (tmp_path / "p.png").write_bytes(with_chunks(greys, chunk(b"cICP", bytes([1, 13, 0, 0]))))
    got = np.asarray(load_picture(tmp_path / "p.png").image)[0, :, 0].astype(int)
    assert np.abs(got - [0, 128, 255]).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "P", "1"])
def test_a_gamma_holds_for_every_mode(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(3, axis=0))
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    plain = np.asarray(grey.convert(mode).convert("L"))
    (tmp_path / "p.png").write_bytes(with_chunks(image, gama(100_000)))
    got = np.asarray(load_picture(tmp_path / "p.png").image)[..., 0]
    assert np.abs(got - wanted(Image.fromarray(np.stack([plain] * 3, axis=-1)), icc.SRGB, LEVELS)[..., 0]).max() <= 1


def grey_profile(curve: np.ndarray[Any, Any]) -> bytes:
    """A grey profile by its curve: white point, curve and names."""
    table = struct.pack(">4sII", b"curv", 0, curve.size) + np.rint(curve * 65535).astype(">u2").tobytes()
    tags = {b"desc": icc._description("grey"), b"wtpt": icc._xyz(icc._D50), b"kTRC": table}
    heads, bodies, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        heads += struct.pack(">4sII", name, offset + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = bytearray(icc.profile(icc.SRGB, SIGNAL)[:128])
    head[0:4], head[16:20] = struct.pack(">I", offset + len(bodies)), b"GRAY"
    return bytes(head) + struct.pack(">I", len(tags)) + heads + bodies


@pytest.mark.parametrize(("curve", "is_srgb"), [("linear", False), ("steep", False), ("srgb", True)])
def test_grey_profiles(tmp_path: Path, curve: str, is_srgb: bool) -> None:
    light = {"linear": SIGNAL, "steep": SIGNAL**1.8, "srgb": icc.srgb_curve(SIGNAL)}[curve]
    grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    grey.save(tmp_path / "p.png", icc_profile=grey_profile(light))
    target = wanted(grey.convert("RGB"), icc.SRGB, CURVES[curve])
    assert off(tmp_path / "p.png", target) <= (0.01 if is_srgb else 2)
    assert load_picture(tmp_path / "p.png").notes == (() if is_srgb else ("colour profile grey converted to sRGB",))


def cmyk_profile() -> bytes:
    """A printer's profile whose table makes each ink lighten differently: at each corner, Lab of 16 bits."""
    lab = []
    for corner in np.ndindex(2, 2, 2, 2):
        cyan, magenta, yellow, black = corner
        lightness = 100 - 20 * cyan - 30 * magenta - 5 * yellow - 60 * black
        lab += [lightness * 65280 / 100, (128 - 30 * cyan + 60 * magenta) * 256, (128 - 40 * cyan + 70 * yellow) * 256]
    table = struct.pack(">4sIBBBB9i", b"mft2", 0, 4, 3, 2, 0, 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table += struct.pack(">HH", 2, 2) + struct.pack(">HH", 0, 65535) * 4
    table += np.clip(np.array(lab), 0, 65535).astype(">u2").tobytes() + struct.pack(">HH", 0, 65535) * 3
    tags = {b"desc": icc._description("inks"), b"wtpt": icc._xyz(icc._D50), b"A2B0": table}
    heads, bodies, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        heads += struct.pack(">4sII", name, offset + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = bytearray(icc.profile(icc.SRGB, SIGNAL)[:128])
    head[0:4], head[12:16], head[16:20] = struct.pack(">I", offset + len(bodies)), b"prtr", b"CMYK"
    head[20:24] = b"Lab "
    return bytes(head) + struct.pack(">I", len(tags)) + heads + bodies


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_cmyk_by_its_profile(tmp_path: Path, kind: str) -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 0, 0))
    inks.save(tmp_path / f"p.{kind}", icc_profile=cmyk_profile(), **({"quality": 100} if kind == "jpg" else {}))
    picture = load_picture(tmp_path / f"p.{kind}")
    # Lab (70, 60, 0), by littleCMS itself from Lab.
    lab = ImageCms.profileToProfile(
        Image.frombytes("LAB", (1, 1), bytes([round(70 * 2.55), 60, 0])),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), ImageCms.createProfile("sRGB"), outputMode="RGB",
    )  # fmt: skip
    assert lab is not None
    assert np.abs(np.subtract(picture.image.getpixel((8, 8)), lab.getpixel((0, 0)))).max() <= 4
    assert picture.notes == ("colour profile inks converted to sRGB",)


@pytest.mark.parametrize("at", range(0, 600, 37))
def test_a_damaged_profile_is_noted_or_changes_nothing(tmp_path: Path, at: int) -> None:
    profile = bytearray(icc.profile(P3, icc.srgb_curve(np.linspace(0, 1, 64))))
    profile[at : at + 6] = b"\xff" * 6
    PICTURE.save(tmp_path / "p.png", icc_profile=bytes(profile))
    picture = load_picture(tmp_path / "p.png")
    assert picture.image.size == PICTURE.size
    changed = not np.array_equal(np.asarray(picture.image), np.asarray(PICTURE))
    assert bool(picture.notes) or not changed


def test_a_ycbcr_tiff_with_a_profile(tmp_path: Path) -> None:
    pixels = PICTURE.convert("YCbCr")
    options = {"photometric": "ycbcr", "subsampling": (1, 1), "iccprofile": icc.profile(P3, icc.srgb_curve(SIGNAL))}
    tifffile.imwrite(tmp_path / "p.tif", np.asarray(pixels), metadata=None, **options)
    plain = pixels.convert("RGB")
    assert off(tmp_path / "p.tif", wanted(plain, P3, CURVES["srgb"])) <= 6  # libtiff rounds in another way
    assert load_picture(tmp_path / "p.tif").notes[-1] == "colour profile joyedit converted to sRGB"


def test_made_profiles_are_valid() -> None:
    for codes in (
        (12, 13, 0, 1),
        (9, 16, 0, 1),
        (9, 18, 0, 1),
        (11, 17, 0, 1),
        (5, 5, 0, 1),
        (6, 4, 0, 1),
        (4, 8, 0, 1),
    ):
        made = icc.of_code_points(codes)
        assert made is not None
        opened = ImageCms.ImageCmsProfile(io.BytesIO(made[0]))
        assert opened.profile.version == 2.4
        source = source_of({"cicp": codes}, "RGB", [])
        assert source is not None
        assert to_srgb(Image.new("RGB", (2, 2), "white"), source).getpixel((0, 0)) == (255, 255, 255)
