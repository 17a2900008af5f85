"""Pictures come back as they went in: sizes, fits, formats and metadata of whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_command import Command
from PIL import ExifTags, Image

from joyedit.job.pictures import decode, icc
from joyedit.job.pictures.budget import DecodeBudget
from joyedit.job.results.records import final_records
from joyedit.runtime.pipeline import give_back, read

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1", "-p", "blue")
P3 = icc.profile(icc.PRIMARIES[12][1], icc.srgb_curve(np.linspace(0, 1, icc.ENTRIES)), name="Display P3")


def camera(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[271], exif[274] = "Canon", orientation
    exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return exif


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
    picture.save(folder / "wide.jpg", quality=80, subsampling=2, exif=camera(), dpi=(300, 300), icc_profile=P3)
    picture.save(folder / "turned.jpg", quality=70, exif=camera(6))
    picture.resize((1000, 100)).save(folder / "panorama.png", exif=camera())
    clear = picture.copy()
    clear.putalpha(Image.linear_gradient("L").resize((400, 300)))
    clear.save(folder / "clear.webp", lossless=True)
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    return folder


def records(folder: str) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in final_records(Path(folder) / "results.jsonl")}


def test_a_result_is_as_its_picture(joyedit: Command, photos: Path) -> None:
    ended = joyedit("run", "photos", *FAKE)
    assert ended.code == 0, ended.err
    sizes = {"wide": (400, 300), "turned": (300, 400), "panorama": (1000, 100), "clear": (400, 300), "cmyk": (400, 300)}
    found = records("edited")
    for name, size in sizes.items():
        with Image.open(f"edited/{name}.png") as image:
            assert image.size == size, name
            assert found[name]["size"] == [size[1], size[0]]
            if name not in ("clear", "cmyk"):
                exif = image.getexif()
                assert (exif[271], exif[274]) == ("Canon", 1)
                assert exif.get_ifd(ExifTags.IFD.Exif)[0x9003] == "2024:05:06 07:08:09"
                assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 31.0, 12.0)
            if name == "wide":
                assert image.info["icc_profile"] == P3
                assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    with Image.open("edited/clear.png") as image, Image.open(photos / "clear.webp") as before:
        assert image.getchannel("A").tobytes() == before.getchannel("A").tobytes()
    assert found["panorama"]["fit"]["mode"] == "pad"
    assert found["panorama"]["fit"]["padded"] == pytest.approx(0.6, abs=0.01)
    assert any("padded by reflection" in note for note in found["panorama"]["notes"])
    assert found["wide"]["fit"] == {"mode": "pad", "source": [300, 400], "lost": 0.0, "padded": 0.0357, "scale": 0.72}
    assert "the picture is CMYK, the result RGB" in found["cmyk"]["notes"]
    assert joyedit("verify", "edited").code == 0
    assert joyedit("run", "photos", *FAKE).messages == ["5 items are already done"]


def test_the_format_of_each_picture(joyedit: Command, photos: Path) -> None:
    assert joyedit("run", "photos", *FAKE, "--format", "same").code == 0
    names = sorted(path.name for path in Path("edited").iterdir() if path.suffix in (".png", ".jpg", ".webp"))
    assert names == ["clear.webp", "cmyk.jpg", "panorama.png", "turned.jpg", "wide.jpg"]
    for name in ("wide.jpg", "turned.jpg"):
        with Image.open(Path("edited") / name) as image, Image.open(photos / name) as before:
            assert image.quantization == before.quantization, "the same quality"  # type: ignore[attr-defined]
            assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 31.0, 12.0)
    with Image.open("edited/clear.webp") as image:
        assert image.mode == "RGBA"
    assert joyedit("run", "photos", *FAKE, "--format", "same").messages == ["5 items are already done"]
    assert joyedit("verify", "edited").code == 0
    # Another format leaves no second picture of an item behind.
    assert joyedit("run", "photos", *FAKE, "--update").code == 0
    assert not [*Path("edited").glob("*.jpg"), *Path("edited").glob("*.webp")]


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (("--size", "bucket"), (288, 216)),
        (("--size", "bucket", "--fit", "crop"), (288, 208)),
        (("--size", "long=1000"), (1000, 750)),
        (("--size", "640x480"), (640, 480)),
        (("--size", "200x200"), (200, 200)),
        (("--size", "bucket", "--fit", "stretch"), (288, 224)),
    ],
)
def test_sizes(joyedit: Command, photos: Path, flags: tuple[str, ...], size: tuple[int, int]) -> None:
    assert joyedit("run", "photos/wide.jpg", *FAKE, *flags).code == 0
    with Image.open("edited/wide.png") as image:
        assert image.size == size


def test_lines_say_their_own(joyedit: Command, photos: Path) -> None:
    lines = [
        {"id": "a", "image": "photos/wide.jpg"},
        {"id": "b", "image": "photos/wide.jpg", "size": "long=100"},
        {"id": "c", "image": "photos/wide.jpg", "width": 128, "height": 256, "fit": "pad"},
        {"id": "d", "image": "photos/wide.jpg", "size": "bucket", "width": 128, "height": 256},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert joyedit("run", "m.jsonl", *FAKE, "--size", "bucket").code == 0
    sizes = {}
    for name in "abcd":
        with Image.open(f"edited/{name}.png") as image:
            sizes[name] = image.size
    assert sizes == {"a": (288, 216), "b": (100, 75), "c": (176, 352), "d": (176, 352)}
    bad = [
        {"image": "photos/wide.jpg", "size": "long=100", "width": 128, "height": 256},
        {"image": "x", "size": "huge"},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bad))
    refused = joyedit("run", "m.jsonl", *FAKE, "-o", "new")
    assert refused.code == 2
    assert "m.jsonl:1: 'size' says another size than 'width' and 'height' (keep one of them)" in refused.err
    assert "m.jsonl:2: size must be input, bucket, WIDTHxHEIGHT or long=PIXELS" in refused.err


def test_a_large_crop_is_told_before_the_edit(joyedit: Command, photos: Path) -> None:
    ended = joyedit("run", "photos", *FAKE, "--fit", "crop")
    assert ended.code == 0
    told = "panorama loses 60% of its picture, which is cropped to 512 x 128 (--fit pad keeps all of it)"
    assert f"note: {told}" in ended.messages
    with Image.open("edited/panorama.png") as image:
        assert image.size == (400, 100), "what is left, at its own scale"


@pytest.mark.parametrize(("flag", "has_place", "has_date"), [("keep", 1, 1), ("no-gps", 0, 1), ("strip", 0, 0)])
def test_metadata(joyedit: Command, photos: Path, flag: str, has_place: int, has_date: int) -> None:
    assert joyedit("run", "photos/wide.jpg", *FAKE, "--metadata", flag, "--format", "jpg").code == 0
    with Image.open("edited/wide.jpg") as image:
        exif = image.getexif()
        assert (len(exif.get_ifd(ExifTags.IFD.GPSInfo)) > 0) == bool(has_place)
        assert (0x9003 in exif.get_ifd(ExifTags.IFD.Exif)) == bool(has_date)
        assert b"instruction" in exif.get_ifd(ExifTags.IFD.Exif)[0x9286]
        assert image.info["icc_profile"] == P3


def test_another_size_or_metadata_replaces_nothing_unasked(joyedit: Command, photos: Path) -> None:
    assert joyedit("run", "photos/wide.jpg", *FAKE).code == 0
    before = Path("edited/wide.png").read_bytes()
    for flags in (("--size", "bucket"), ("--fit", "pad"), ("--metadata", "strip")):
        refused = joyedit("run", "photos/wide.jpg", *FAKE, *flags)
        assert refused.code == 2, flags
        assert "--update" in refused.err
        assert Path("edited/wide.png").read_bytes() == before
    assert joyedit("run", "photos/wide.jpg", *FAKE, "--metadata", "strip", "--update").code == 0
    with Image.open("edited/wide.png") as image:
        assert not image.getexif()


def test_failed_items_keep_their_size(joyedit: Command, photos: Path) -> None:
    line = {"id": "a", "image": "photos/wide.jpg", "size": "100x50", "fit": "pad", "instruction": "FAIL-NAN"}
    Path("m.jsonl").write_text(json.dumps(line) + "\n")
    assert joyedit("run", "m.jsonl", *FAKE).code == 3
    [failed] = [json.loads(text) for text in Path("edited/failed.jsonl").read_text().splitlines()]
    assert (failed["size"], failed["fit"]) == ("100x50", "pad")
    assert "width" not in failed


def test_results_and_originals_share_little_memory(
    joyedit: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several writers each need the picture once more: none of them waits for room while it holds some."""
    budget = DecodeBudget(2_500_000)  # one result, or one picture
    for module in (decode, read, give_back):
        monkeypatch.setattr(module, "shared_budget", lambda: budget)
    for number in range(12):
        (photos / f"more{number}.jpg").write_bytes((photos / "wide.jpg").read_bytes())
    assert joyedit("run", "photos", *FAKE, "--keep-unedited", "--register").code == 0
    assert len(list(Path("edited").glob("*.png"))) == 17
    assert budget.used == 0
    with Image.open("edited/panorama.png") as image:
        assert image.size == (1000, 100)
