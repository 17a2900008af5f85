"""Pictures come back in their own format, with 16 bits where nothing was edited, in their inks, with their captions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli_command import Command
from PIL import ExifTags, Image, ImageCms

from joyedit.job.pictures import can_write, icc
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.deep import load_deep
from joyedit.job.pictures.embedded import read_embedded
from joyedit.job.pictures.iptc import segment_of
from joyedit.job.results.records import final_records
from joyedit.runtime.fake import FakeBackend, FakeLatents
from support.png import png

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1", "-p", "blue")
P3 = icc.profile(icc.PRIMARIES[12][1], icc.srgb_curve(np.linspace(0, 1, icc.ENTRIES)), name="Display P3")
IPTC = b"\x1c\x02\x05\x00\x05title\x1c\x02\x5a\x00\x06Berlin\x1c\x02\x78\x00\x07caption"
NO_PLACE = b"\x1c\x02\x05\x00\x05title\x1c\x02\x78\x00\x07caption"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><photoshop:City>Berlin</photoshop:City></x:xmpmeta>'

Edit = Callable[[], None]


def camera() -> Image.Exif:
    exif = Image.Exif()
    exif[271], exif[274] = "Canon", 1
    exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
    return exif


def ramp(width: int = 160, height: int = 120) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def records(folder: str = "edited") -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in final_records(Path(folder) / "results.jsonl")}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def small_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake paints a square in the middle, and leaves the rest alone."""

    def decode(self: FakeBackend, latents: FakeLatents) -> list[Image.Image]:
        made = []
        for ready in latents.batch.items:
            picture = ready.pictures[-1].copy()
            middle = (picture.width // 2, picture.height // 2)
            picture.paste((230, 230, 230), (middle[0] - 30, middle[1] - 30, middle[0] + 30, middle[1] + 30))
            made.append(picture)
        return made

    monkeypatch.setattr(FakeBackend, "decode", decode)


def test_tiff_avif_and_heic_come_back_as_such(joyedit: Command, photos: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    ramp().save(photos / "t.tiff", tiffinfo={270: "a caption", 282: 200.0, 283: 200.0, 296: 2}, icc_profile=P3)
    ramp().save(photos / "a.avif", exif=camera(), icc_profile=P3)
    heif.from_pillow(ramp()).save(photos / "h.heic", exif=camera().tobytes())
    assert joyedit("run", "photos", *FAKE, "--format", "same").code == 0
    assert sorted(one["output"] for one in records().values()) == ["a.avif", "h.heic", "t.tif"]
    for name in ("a.avif", "h.heic", "t.tif"):
        picture = load_picture(Path("edited") / name)
        assert picture.image.size == (160, 120)
        assert read_embedded(f"edited/{name}")["instruction"] == "blue"
    with Image.open("edited/t.tif") as image:
        assert (image.format, image.mode, image.info["compression"]) == ("TIFF", "RGB", "tiff_adobe_deflate")
        assert (image.info["icc_profile"], image.info["dpi"]) == (P3, (200, 200))
        assert image.getexif()[270] == "a caption"
    with Image.open("edited/a.avif") as image:
        assert (image.format, image.info["icc_profile"]) == ("AVIF", P3)
        assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 31.0, 12.0)
    held = load_picture("edited/h.heic").properties
    assert b"Canon" in held.exif
    assert joyedit("verify", "edited").code == 0
    assert joyedit("run", "photos", *FAKE, "--format", "same").messages == ["3 items are already done"]
    shown = joyedit("show", "edited/h.heic", "--json")
    assert "blue" in json.dumps(json.loads(shown.out)["embedded"])
    # Another format leaves no second picture behind.
    assert joyedit("run", "photos", *FAKE, "--format", "tiff", "--update").code == 0
    names = sorted(path.name for path in Path("edited").iterdir() if path.suffix in (".tif", ".avif", ".heic"))
    assert names == ["a.tif", "h.tif", "t.tif"]


@pytest.mark.parametrize("name", ["again.tif", "again.avif", "again.heic"])
def test_they_are_made_again(joyedit: Command, photos: Path, name: str) -> None:
    """From what is in the file alone: it lies in no output folder."""
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif")
    ramp().save(photos / "x.png")
    assert joyedit("run", "photos/x.png", *FAKE, "--seed", "5", "-o", name).code == 0
    assert joyedit("run", name, "-m", "fake", "--input", "photos/x.png", "-o", "second").code == 0
    [record] = records("second").values()
    assert (record["settings"]["seed"], record["instruction"]) == (5, "blue")
    first, second = load_picture(name).image, load_picture(f"second/{record['output']}").image
    assert Path(record["output"]).suffix == Path(name).suffix
    assert first.tobytes() == second.tobytes()


def test_a_picture_that_somebody_changed_stays(joyedit: Command, photos: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    ramp().save(photos / "x.png")
    for form, ending in (("heic", ".heic"), ("avif", ".avif"), ("tiff", ".tif")):
        flags = ("--format", form, "-o", form)
        assert joyedit("run", "photos", *FAKE, *flags).code == 0
        mine = Path(form) / f"x{ending}"
        if form == "heic":
            heif.from_pillow(ramp(40, 40)).save(mine)
        else:
            ramp(40, 40).save(mine)
        before = mine.read_bytes()
        joyedit("run", "photos", *FAKE, *flags)
        assert mine.read_bytes() == before, "a whole picture of somebody else"
        mine.write_bytes(before[:-20])
        joyedit("run", "photos", *FAKE, *flags, "--update")
        assert joyedit("verify", form).code == 0, "what is cut is made anew"


def test_a_format_that_cannot_be_written(joyedit: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")

    def fails(*_: object, **__: object) -> None:
        raise OSError("no encoder")

    monkeypatch.setattr("joyedit.job.pictures.heif_writer.write_heic", fails)
    can_write.can_write.cache_clear()
    try:
        heif.from_pillow(ramp()).save(photos / "h.heic")
        refused = joyedit("run", "photos", *FAKE, "--format", "heic")
        assert refused.code == 2
        assert '--format heic: HEIC needs an extra: pip install "joyedit[heif]"' in refused.err
        assert joyedit("run", "photos", *FAKE, "--format", "same").code == 0
        [record] = records().values()
        assert record["output"] == "h.jpg"
        assert "the picture is HEIC, and nothing here writes that" in record["notes"]
    finally:
        can_write.can_write.cache_clear()


def deep_ramp(channels: int) -> np.ndarray[Any, Any]:
    grid = np.add.outer(np.arange(120) * 7, np.arange(160) * 90) + 9000
    values = np.stack([grid + 11 * number for number in range(channels)], axis=-1).astype(np.uint16)
    if channels == 4:
        values[..., 3] = 65535 - grid // 9
    return values


@pytest.mark.usefixtures("small_edit")
@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_stay_where_nothing_was_edited(joyedit: Command, photos: Path, kind: str, channels: int) -> None:
    values = deep_ramp(channels)
    path = photos / f"x.{'png' if kind == 'png' else 'tif'}"
    if kind == "png":
        path.write_bytes(png(values.astype(">u2").view(np.uint8).reshape(120, -1), 16, {1: 0, 3: 2, 4: 6}[channels]))
    else:
        more = {"extrasamples": [2]} if channels == 4 else {}
        tifffile.imwrite(path, values.squeeze(), photometric="minisblack" if channels == 1 else "rgb", **more)
    assert joyedit("run", "photos", *FAKE, "--format", "same", "--keep-unedited").code == 0
    [record] = records().values()
    assert {"16 bits scaled to 8", "kept: 16 bits outside the edit"} <= set(record["notes"])
    found = load_deep(f"edited/{record['output']}", 1 << 40)
    assert found is not None
    assert found.shape == values.shape
    same = (found == values).all(axis=-1)
    assert same[:20].all(), "far from the edit each value is that of the picture"
    assert same.mean() > 0.5
    assert not same[60, 80]
    assert (found[60, 80, :3] % 257 == 0).all(), "the edit has 8 bits"
    if channels == 4:
        assert (found[..., 3] == values[..., 3]).all(), "its transparency is its own everywhere"
    assert joyedit("verify", "edited").code == 0


@pytest.mark.parametrize("unedited", [False, True])
@pytest.mark.parametrize(("kind", "channels"), [("png", 3), ("tiff", 1), ("tiff", 4)])
def test_16_bits_stay_where_a_mask_is_black(
    joyedit: Command, photos: Path, kind: str, channels: int, unedited: bool
) -> None:
    values = deep_ramp(channels)
    path = photos / f"x.{'png' if kind == 'png' else 'tif'}"
    if kind == "png":
        path.write_bytes(png(values.astype(">u2").view(np.uint8).reshape(120, -1), 16, 2))
    else:
        more = {"extrasamples": [2]} if channels == 4 else {}
        tifffile.imwrite(path, values.squeeze(), photometric="minisblack" if channels == 1 else "rgb", **more)
    mask = Image.new("L", (160, 120))
    mask.paste(128, (40, 30, 44, 90))
    mask.paste(255, (44, 30, 100, 90))
    mask.save("mask.png")
    flags = ("--format", "same", "--mask", "mask.png", *(("--keep-unedited",) if unedited else ()))
    assert joyedit("run", "photos", *FAKE, *flags).code == 0
    [record] = records().values()
    assert "kept: 16 bits outside the edit" in record["notes"]
    found = load_deep(f"edited/{record['output']}", 1 << 40)
    assert found is not None
    assert found.shape == values.shape
    black = np.asarray(mask) == 0
    assert (found[black] == values[black]).all()
    inside = found[~black][..., : 3 if channels > 1 else 1]
    if not unedited:
        assert (inside % 257 == 0).all(), "the edit has 8 bits"
        assert not (inside == values[~black][..., : inside.shape[-1]]).all()


@pytest.mark.usefixtures("small_edit")
def test_no_depth_is_claimed_that_is_not_there(joyedit: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(photos / "x.tif", deep_ramp(3), photometric="rgb")
    for flags in (("--format", "same"), ("--format", "jpg", "--keep-unedited"), ("--size", "80x60", "--keep-unedited")):
        assert joyedit("run", "photos", *FAKE, *flags, "-o", "-".join(flags).strip("-")).code == 0
        [record] = records("-".join(flags).strip("-")).values()
        assert "16 bits scaled to 8" in record["notes"]
        assert not any("kept" in note for note in record["notes"])
        with Image.open(Path("-".join(flags).strip("-")) / record["output"]) as image:
            assert image.mode == "RGB"
            assert getattr(image, "tag_v2", {}).get(258, (8, 8, 8)) == (8, 8, 8)
    monkeypatch.setattr(
        FakeBackend,
        "decode",
        lambda _, latents: [Image.new("RGB", one.pictures[-1].size, "white") for one in latents.batch.items],
    )
    assert joyedit("run", "photos", *FAKE, "--format", "same", "--keep-unedited", "-o", "whole").code == 0
    [record] = records("whole").values()
    assert not any("kept" in note for note in record["notes"]), "an edit of the whole picture keeps nothing"


@pytest.mark.usefixtures("small_edit")
def test_16_bits_in_a_profile_and_turned(joyedit: Command, photos: Path) -> None:
    """The values are kept as they stand in the file, so not even a conversion of colours rounds them."""
    values = deep_ramp(3)
    tifffile.imwrite(photos / "x.tif", values, photometric="rgb", iccprofile=P3, extratags=[(274, 3, 1, 6, True)])
    assert joyedit("run", "photos", *FAKE, "--format", "same", "--keep-unedited").code == 0
    with Image.open("edited/x.tif") as image:
        assert image.info["icc_profile"] == P3
        assert image.size == (120, 160)
    found = load_deep("edited/x.tif", 1 << 40)
    assert found is not None
    assert (found == np.rot90(values, -1)).all(axis=-1)[:20].all()


def cmyk_profile() -> bytes:
    """A profile of CMYK (version 2, `lut8` both ways): the inks of the naive formula."""

    def table(inputs: int, outputs: int, grid: np.ndarray[Any, Any]) -> bytes:
        curve = bytes(range(256))
        matrix = b"".join(int(value * 65536).to_bytes(4, "big") for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
        head = b"mft1\0\0\0\0" + bytes([inputs, outputs, 2, 0]) + matrix
        return head + curve * inputs + grid.astype(np.uint8).tobytes() + curve * outputs

    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    rgb = ((1 - corners[:, :3]) * (1 - corners[:, 3:]) * 255).astype(np.uint8)
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(Image.fromarray(rgb[None]), lab)
    assert image is not None
    to_lab = np.asarray(image)[0].astype(np.uint8)
    to_lab = to_lab ^ np.array([0, 128, 128], np.uint8)  # Pillow's a and b are signed
    light = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:, :1]
    to_inks = np.concatenate([(1 - light) * 0, (1 - light) * 0, (1 - light) * 0, (1 - light) * 255], axis=1)
    text = b"desc\0\0\0\0" + (5).to_bytes(4, "big") + b"inks\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d",
            b"A2B0": table(4, 3, to_lab), b"B2A0": table(3, 4, to_inks)}  # fmt: skip
    place = 132 + 12 * len(tags)
    head, body = len(tags).to_bytes(4, "big"), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        head += name + (place + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    size = (128 + len(head) + len(body)).to_bytes(4, "big")
    top = size + b"lcms\x02\x10\0\0prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28) + b"\0\0\xf6\xd6\0\1\0\0\0\0\xd3\x2d"
    return top.ljust(128, b"\0") + head + body


@pytest.mark.parametrize("name", ["c.jpg", "c.tif"])
def test_inks_come_back_with_their_profile(joyedit: Command, photos: Path, name: str) -> None:
    profile = cmyk_profile()
    inks = Image.merge("CMYK", [Image.new("L", (160, 120), value) for value in (0, 0, 0)] + [ramp().convert("L")])
    inks.save(photos / name, icc_profile=profile, **({"quality": 90} if name == "c.jpg" else {}))
    assert joyedit("run", "photos", *FAKE, "--format", "same").code == 0
    with Image.open(Path("edited") / name) as image:
        assert (image.mode, image.info["icc_profile"]) == ("CMYK", profile)
    [record] = records().values()
    assert not any("the result RGB" in note for note in record["notes"])
    assert joyedit("verify", "edited").code == 0
    inks.save(photos / name)
    assert joyedit("run", "photos", *FAKE, "--format", "same", "-o", "plain").code == 0
    with Image.open(Path("plain") / name) as image:
        assert image.mode == "RGB"
    [record] = records("plain").values()
    assert "the picture is CMYK without a profile, the result RGB" in record["notes"]


@pytest.mark.parametrize(("flag", "wanted"), [("keep", IPTC), ("no-gps", NO_PLACE), ("strip", b"")])
@pytest.mark.parametrize("name", ["x.jpg", "x.tif"])
def test_captions(joyedit: Command, photos: Path, name: str, flag: str, wanted: bytes) -> None:
    if name == "x.jpg":
        ramp().save(photos / name, extra=segment_of(IPTC), xmp=XMP)
    else:
        ramp().save(photos / name, tiffinfo={33723: IPTC, 700: XMP})
    for form in ("same", "tiff", "jpg"):
        assert joyedit("run", "photos", *FAKE, "--format", form, "--metadata", flag, "-o", form).code == 0
        [record] = records(form).values()
        held = load_picture(Path(form) / record["output"]).properties
        assert held.iptc == wanted
        assert (b"Berlin" in held.xmp) == (flag == "keep")
        assert bool(held.xmp) == (flag != "strip")
    assert joyedit("run", "photos", *FAKE, "--metadata", flag, "-o", "png").code == 0
    [record] = records("png").values()
    assert ("IPTC left out: a PNG has no place for it" in record["notes"]) == (flag != "strip")


def test_the_page_shows_what_browsers_do_not(joyedit: Command, photos: Path) -> None:
    ramp().save(photos / "x.tif")
    assert joyedit("run", "photos", *FAKE, "--format", "same").code == 0
    data = "".join(path.read_text() for path in Path("edited/index.files").glob("items-*.js"))
    assert '\\"raw\\": 1' in data or '"raw":1' in data.replace("\\", "")
    views = list(Path("edited/index.files/pictures").glob("v-*.jpg"))
    assert len(views) == 2, "of the picture before, and of the result"
    for path in views:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert image.size == (160, 120)
