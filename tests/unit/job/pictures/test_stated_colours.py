"""Colours that a file states outside of Pillow's sight: GIF, BMP, EXIF."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from joyedit.job.pictures import icc
from joyedit.job.pictures.decode import load_picture

P3: icc.Primaries = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
SIGNAL = np.linspace(0, 1, 4096)
PICTURE = Image.linear_gradient("L").resize((32, 8))
COLOURS = Image.merge("RGB", [PICTURE, PICTURE.rotate(180), Image.new("L", PICTURE.size, 90)])


def by_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """What littleCMS makes of the picture, in sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.profileToProfile(image.convert("RGB"), source, ImageCms.createProfile("sRGB"))
    assert made is not None
    return made


def off(path: Path, wanted: Image.Image) -> int:
    got = np.asarray(load_picture(path).image).astype(int)
    return int(np.abs(got - np.asarray(wanted).astype(int)).max())


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# ---- GIF ----


def blocks(data: bytes) -> bytes:
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def with_extension(gif: bytes, extension: bytes) -> bytes:
    """`extension` behind the palette."""
    end = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0)
    return gif[:end] + extension + gif[end:]


PROFILE = icc.profile(P3, SIGNAL**1.8)
ICC = b"!\xff\x0bICCRGBG1012" + blocks(PROFILE)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("before", [b"", b"!\xfe" + blocks(b"hello" * 99), b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"])
def test_the_profile_of_a_gif(tmp_path: Path, before: bytes, grey: bool) -> None:
    image = PICTURE if grey else COLOURS.quantize(200)
    (tmp_path / "p.gif").write_bytes(with_extension(saved(image, "GIF"), before + ICC))
    assert off(tmp_path / "p.gif", by_profile(image, PROFILE)) <= 3
    assert load_picture(tmp_path / "p.gif").notes[-1] == "colour profile joyedit converted to sRGB"
    (tmp_path / "plain.gif").write_bytes(saved(image, "GIF"))
    assert off(tmp_path / "plain.gif", image.convert("RGB")) == 0


@pytest.mark.parametrize(
    "extension",
    [
        ICC[:500],
        ICC.replace(b"ICCRGBG1012", b"ICCRGBG1013"),
        b"!\xff\x0bICCRGBG1012\0",
        ICC.replace(b"!\xff", b"!\xfe"),
    ],
    ids=["cut", "other", "empty", "comment"],
)
def test_what_is_no_profile_of_a_gif(tmp_path: Path, extension: bytes) -> None:
    gif = saved(COLOURS.quantize(200), "GIF")
    if len(extension) == 500:  # the length of the first block reaches into the picture: nobody can read it
        gif, extension = gif[:-1] + extension + b";", b""
    (tmp_path / "p.gif").write_bytes(with_extension(gif, extension))
    assert off(tmp_path / "p.gif", COLOURS.quantize(200).convert("RGB")) == 0
    assert not load_picture(tmp_path / "p.gif").notes


def test_a_profile_of_a_gif_that_is_damaged_is_noted(tmp_path: Path) -> None:
    damaged = b"!\xff\x0bICCRGBG1012" + blocks(PROFILE[:200])
    (tmp_path / "p.gif").write_bytes(with_extension(saved(COLOURS.quantize(200), "GIF"), damaged))
    assert off(tmp_path / "p.gif", COLOURS.quantize(200).convert("RGB")) == 0
    [note] = load_picture(tmp_path / "p.gif").notes
    assert note.startswith("colour profile ignored: ")


def test_the_profile_of_a_gif_holds_for_the_frame_that_is_taken(tmp_path: Path) -> None:
    clear = Image.new("RGBA", COLOURS.size, (0, 0, 0, 0))
    gif = saved(clear, "GIF", save_all=True, append_images=[COLOURS.convert("RGBA")])
    (tmp_path / "p.gif").write_bytes(with_extension(gif, ICC))
    with Image.open(io.BytesIO(gif)) as plain:
        plain.seek(1)
        assert off(tmp_path / "p.gif", by_profile(plain.convert("RGB"), PROFILE)) <= 3


# ---- BMP ----


def bmp(image: Image.Image, kind: bytes, *, version: int = 124, profile: bytes = b"", ends: Any = None,
        gammas: tuple[float, float, float] = (0, 0, 0), offset: int | None = None) -> bytes:  # fmt: skip
    """A BMP of version 4 or 5 with this colour space."""
    old = saved(image, "BMP")
    (at,) = struct.unpack_from("<I", old, 10)
    head, palette, pixels = old[14:54], old[54:at], old[at:]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0)
    places = struct.pack(
        "<9i", *(round(value * 2**30) for value in np.ravel(np.zeros((3, 3)) if ends is None else ends))
    )
    new = struct.pack("<I", version) + head[4:] + masks + kind + places
    new += struct.pack("<3I", *(round(gamma * 65536) for gamma in gammas))
    start = version + len(palette) + len(pixels) if offset is None else offset
    if version == 124:
        new += struct.pack("<4I", 4, start if profile else 0, len(profile), 0)
    assert len(new) == version
    whole = 14 + version + len(palette) + len(pixels) + len(profile)
    return b"BM" + struct.pack("<IHHI", whole, 0, 0, 14 + version + len(palette)) + new + palette + pixels + profile


def ends_of(places: icc.Primaries) -> np.ndarray[Any, Any]:
    xy = np.array(places[2:]).reshape(3, 2)
    return np.column_stack([xy, 1 - xy.sum(axis=1)])


IMAGES = {"rgb": COLOURS, "palette": COLOURS.quantize(100), "grey": PICTURE}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_the_profile_of_a_bmp(tmp_path: Path, image: Image.Image) -> None:
    (tmp_path / "p.bmp").write_bytes(bmp(image, b"DEBM", profile=PROFILE))
    assert off(tmp_path / "p.bmp", by_profile(image, PROFILE)) <= 3
    assert load_picture(tmp_path / "p.bmp").notes == ("colour profile joyedit converted to sRGB",)


@pytest.mark.parametrize("version", [108, 124])
@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("gamma", [1.8, 1 / 1.8, 1.0])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_a_calibrated_bmp(tmp_path: Path, version: int, scale: float, gamma: float, image: Image.Image) -> None:
    data = bmp(image, bytes(4), version=version, ends=ends_of(P3) * scale, gammas=(gamma,) * 3)
    (tmp_path / "p.bmp").write_bytes(data)
    shown = gamma if gamma >= 1 else 1 / gamma
    assert off(tmp_path / "p.bmp", by_profile(image, icc.profile(P3, SIGNAL**shown))) <= 3
    assert load_picture(tmp_path / "p.bmp").notes == (f"gamma {shown:.3g}, own primaries converted to sRGB",)


def test_a_bmp_with_x_and_y_alone(tmp_path: Path) -> None:
    ends = ends_of(P3)
    ends[:, 2] = 0
    (tmp_path / "p.bmp").write_bytes(bmp(COLOURS, bytes(4), ends=ends, gammas=(1.8, 1.8, 1.8)))
    assert off(tmp_path / "p.bmp", by_profile(COLOURS, PROFILE)) <= 3


def test_a_bmp_with_three_gammas(tmp_path: Path) -> None:
    (tmp_path / "p.bmp").write_bytes(bmp(COLOURS, bytes(4), ends=ends_of(P3), gammas=(1.0, 1.8, 2.6)))
    profile = icc.profile(P3, SIGNAL, SIGNAL**1.8, SIGNAL**2.6)
    assert off(tmp_path / "p.bmp", by_profile(COLOURS, profile)) <= 3
    assert load_picture(tmp_path / "p.bmp").notes == ("colour profile of three gammas converted to sRGB",)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (bmp(COLOURS, b"BGRs", ends=ends_of(P3), gammas=(1, 1, 1)), None),
        (bmp(COLOURS, b" niW", ends=ends_of(P3), gammas=(1, 1, 1)), None),
        (bmp(COLOURS, bytes(4)), None),
        (bmp(COLOURS, bytes(4), ends=ends_of(icc.SRGB), gammas=(2.2, 2.2, 2.2)), None),
        (bmp(COLOURS, bytes(4), ends=-ends_of(P3), gammas=(2, 2, 2)),
         "colours of the header ignored: its primaries make no sense"),
        (bmp(COLOURS, bytes(4), ends=ends_of(P3), gammas=(9999, 1, 1)),
         "colours of the header ignored: a gamma of 9999 makes no sense"),
        (bmp(COLOURS, bytes(4), ends=np.full((3, 3), 1 / 3), gammas=(2, 2, 2)),
         "gAMA and cHRM ignored: its primaries make no sense"),
        (bmp(COLOURS, b"KNIL", profile=b"C:\\a.icc"), "its colour profile is in another file, and is ignored"),
        (bmp(COLOURS, b"DEBM", profile=PROFILE, offset=1 << 30), None),
        (bmp(COLOURS, b"DEBM", profile=PROFILE[:300]), "colour profile ignored: "),
    ],
)  # fmt: skip
def test_a_bmp_that_stays_as_it_is(tmp_path: Path, data: bytes, note: str | None) -> None:
    (tmp_path / "p.bmp").write_bytes(data)
    assert off(tmp_path / "p.bmp", COLOURS) == 0
    notes = load_picture(tmp_path / "p.bmp").notes
    assert [text.startswith(note or "?") for text in notes] == [True] * (note is not None)


# ---- EXIF ----


def exif(space: int | None, index: str | None) -> Image.Exif:
    made = Image.Exif()
    tags: dict[int, Any] = {} if space is None else {0xA001: space}
    if index is not None:
        tags[0xA005] = {1: index, 2: b"0100"}
    made.get_ifd(ExifTags.IFD.Exif).update(tags)  # writers of some kinds look here, others there
    made[ExifTags.IFD.Exif] = tags
    return made


ADOBE = icc.profile(icc.ADOBE_RGB, SIGNAL ** (563 / 256))
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 100, "subsampling": 0}}


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize(("space", "index"), [(0xFFFF, "R03"), (2, None), (2, "R03")])
def test_adobe_rgb_is_told_by_exif(tmp_path: Path, kind: str, space: int, index: str | None) -> None:
    path = tmp_path / f"p.{kind.lower()}"
    path.write_bytes(saved(COLOURS, kind, exif=exif(space, index), **LOSSLESS[kind]))
    with Image.open(path) as plain:
        wanted = by_profile(plain.convert("RGB"), ADOBE)
    assert off(path, wanted) <= 3
    assert load_picture(path).notes == ("Adobe RGB (by EXIF) converted to sRGB",)


@pytest.mark.parametrize(
    ("space", "index"), [(1, "R03"), (1, None), (0xFFFF, None), (0xFFFF, "R98"), (None, "R03"), (None, None)]
)
def test_exif_that_says_no_adobe_rgb(tmp_path: Path, space: int | None, index: str | None) -> None:
    (tmp_path / "p.png").write_bytes(saved(COLOURS, "PNG", exif=exif(space, index)))
    assert off(tmp_path / "p.png", COLOURS) == 0
    assert not load_picture(tmp_path / "p.png").notes


def test_a_profile_is_stronger_than_exif(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "p.png").write_bytes(saved(COLOURS, "PNG", exif=exif(2, None), icc_profile=srgb))
    assert off(tmp_path / "p.png", COLOURS) == 0


@pytest.mark.parametrize("damage", [b"\xff" * 40, b"Exif\0\0II*\0\x08\0\0\0"])
def test_damaged_exif_says_nothing(tmp_path: Path, damage: bytes) -> None:
    options = {"quality": 100, "subsampling": 0}
    (tmp_path / "p.jpg").write_bytes(saved(COLOURS, "JPEG", exif=damage, **options))
    with Image.open(io.BytesIO(saved(COLOURS, "JPEG", **options))) as plain:
        assert off(tmp_path / "p.jpg", plain) == 0
