"""Results in the colours, the grey and the transparency of their pictures."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from joyedit.job.fit import Box
from joyedit.job.pictures import icc
from joyedit.job.pictures.alpha import StoredAlpha, without_white
from joyedit.job.pictures.as_given import AsGiven, as_given, is_grey
from joyedit.job.pictures.decode import Picture, load_picture
from joyedit.job.pictures.jpeg_quality import quality_of

P3 = icc.profile(icc.PRIMARIES[12][1], icc.srgb_curve(np.linspace(0, 1, icc.ENTRIES)), name="Display P3")
SIZE = (60, 80)
WHOLE: Box = (0.0, 0.0, 80.0, 60.0)


def coloured(seed: int = 0) -> Image.Image:
    """Soft colours that lie inside of sRGB and of Display P3."""
    y, x = np.mgrid[0:60, 0:80]
    planes = [110 + x // 2, 150 - y // 2, 120 + (x + y + seed) // 4]
    return Image.fromarray(np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8))


def given_back(path: Path, image: Image.Image, format: str = "png", **more: object) -> tuple[AsGiven, Picture]:
    image.save(path, **more)
    picture = load_picture(path)
    return as_given(picture.image, picture.properties, WHOLE, format=format), picture


def away(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


def test_a_profile_comes_back(tmp_path: Path) -> None:
    """An edit that changes nothing gives the numbers of the picture."""
    image = coloured()
    result, picture = given_back(tmp_path / "p.png", image, icc_profile=P3)
    assert away(picture.image, image) > 3, "the model saw other numbers"
    assert result.profile == P3
    assert away(result.image, image) <= 2


def test_adobe_rgb_by_exif_gets_a_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    result, picture = given_back(tmp_path / "p.jpg", coloured(), exif=exif, quality=100, subsampling=0)
    assert any("Adobe RGB" in note for note in picture.notes)
    assert away(result.image, coloured()) <= 4
    opened = ImageCms.ImageCmsProfile(io.BytesIO(result.profile))
    assert opened.profile.xcolor_space.strip() == "RGB"


def test_a_profile_that_is_srgb_stays(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    result, _ = given_back(tmp_path / "p.png", coloured(), icc_profile=profile)
    assert result.profile == profile
    assert away(result.image, coloured()) == 0


def test_grey_stays_grey(tmp_path: Path) -> None:
    grey = coloured().convert("L")
    result, _ = given_back(tmp_path / "p.png", grey)
    assert result.image.mode == "L"
    assert away(result.image, grey) == 0
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    result, _ = given_back(tmp_path / "d.png", deep)
    assert (result.image.mode, away(result.image, grey)) == ("L", 0)


def test_an_edit_may_colour_a_grey_picture(tmp_path: Path) -> None:
    coloured().convert("L").save(tmp_path / "p.png")
    picture = load_picture(tmp_path / "p.png")
    result = as_given(coloured(), picture.properties, WHOLE, format="png")
    assert (result.image.mode, result.profile) == ("RGB", b"")
    assert is_grey(picture.image)
    assert not is_grey(coloured())


def test_the_profile_of_a_grey_picture(tmp_path: Path) -> None:
    profile = _grey_profile(1.8)
    grey = coloured().convert("L")
    result, picture = given_back(tmp_path / "p.png", grey, icc_profile=profile)
    assert away(picture.image.convert("L"), grey) > 3
    assert (result.image.mode, result.profile) == ("L", profile)
    assert away(result.image, grey) <= 1
    as_webp, _ = given_back(tmp_path / "p.png", grey, "webp", icc_profile=profile)
    assert (as_webp.image.mode, as_webp.profile) == ("RGB", b"")


def _grey_profile(gamma: float) -> bytes:
    """A profile of version 2 for grey, with one gamma."""
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + b"\0\0"
    white = struct.pack(">4sI3i", b"XYZ ", 0, 63190, 65536, 54061)
    text = struct.pack(">4sII", b"desc", 0, 5) + b"grey\0" + bytes(79)
    tags = [(b"desc", text), (b"wtpt", white), (b"kTRC", curve)]
    offset = 128 + 4 + 12 * len(tags)
    heads, bodies = b"", b""
    for name, body in tags:
        heads += struct.pack(">4sII", name, offset + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", offset + len(bodies), bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp"
    )
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + heads + bodies


def test_cmyk_without_a_profile_is_rgb_and_told(tmp_path: Path) -> None:
    result, _ = given_back(tmp_path / "p.jpg", coloured().convert("CMYK"), "jpg")
    assert (result.image.mode, result.notes) == ("RGB", ("the picture is CMYK without a profile, the result RGB",))
    result, _ = given_back(tmp_path / "p.jpg", coloured().convert("CMYK"), "png")
    assert (result.image.mode, result.notes) == ("RGB", ("the picture is CMYK, the result RGB",))


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_alpha_comes_back(tmp_path: Path, kind: str) -> None:
    image = coloured()
    covers = np.clip((np.mgrid[0:60, 0:80][1] - 20) * 8, 0, 255).astype(np.uint8)
    image.putalpha(Image.fromarray(covers))
    result, picture = given_back(tmp_path / "p.png", image, kind)
    assert picture.properties.alpha is not None
    assert result.image.mode == "RGBA"
    assert np.array_equal(np.asarray(result.image)[..., 3], covers)
    seen = covers >= 64
    difference = np.abs(np.asarray(result.image)[..., :3].astype(int) - np.asarray(image)[..., :3])[seen]
    assert difference.max() <= 3, "no white shines through half-transparent edges"
    flat, _ = given_back(tmp_path / "p.png", image, "jpg")
    assert flat.image.mode == "RGB"


def test_alpha_of_a_part_and_of_another_size(tmp_path: Path) -> None:
    alpha = Image.fromarray(np.repeat(np.arange(0, 240, 3, dtype=np.uint8)[None], 60, axis=0))
    stored = StoredAlpha.of(alpha)
    assert len(stored.data) < 400
    half = np.asarray(stored.channel((40.0, 0.0, 80.0, 60.0), (30, 40)))
    assert half.shape == (30, 40)
    assert abs(int(half[0, 0]) - 120) <= 3
    assert abs(int(half[0, -1]) - 237) <= 3
    assert stored.channel(WHOLE, SIZE).tobytes() == alpha.tobytes()


def test_palettes_and_grey_without_white(tmp_path: Path) -> None:
    grey = coloured().convert("LA")
    grey.putalpha(Image.new("L", (80, 60), 200))
    result, _ = given_back(tmp_path / "p.png", grey)
    assert result.image.mode == "LA"
    palette = coloured().quantize(8)
    result, picture = given_back(tmp_path / "q.png", palette, transparency=0)
    assert picture.properties.alpha is not None
    assert result.image.mode == "RGBA"
    assert set(np.asarray(result.image)[..., 3].flatten().tolist()) == {0, 255}


def test_white_is_taken_out_of_every_cover() -> None:
    colour = np.zeros((1, 256, 3), dtype=np.uint8) + np.array([10, 120, 250], dtype=np.uint8)
    covers = np.arange(256, dtype=np.uint8)[None]
    flat = Image.new("RGB", (256, 1), "white")
    flat.paste(Image.fromarray(colour), mask=Image.fromarray(covers))
    got = np.asarray(without_white(flat, Image.fromarray(covers)))
    assert np.abs(got[0, 32:, :3].astype(int) - colour[0, 32:]).max() <= 8
    assert np.array_equal(got[0, 255, :3], colour[0, 255])


@pytest.mark.parametrize("quality", [5, 30, 49, 50, 75, 82, 95, 100])
def test_the_quality_of_a_jpeg(tmp_path: Path, quality: int) -> None:
    coloured().save(tmp_path / "p.jpg", quality=quality, subsampling=1)
    found = load_picture(tmp_path / "p.jpg").properties
    assert (found.quality, found.sampling) == (quality, 1)


def test_no_tables_no_quality() -> None:
    assert quality_of(None) is None
    assert quality_of({}) is None
    assert quality_of({0: [1, 2, 3]}) is None
    assert quality_of({0: [1] * 64}) == 100
