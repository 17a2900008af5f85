"""What joyedit embeds in its pictures, read back without a look at a pixel; also from files that mean harm."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from joyedit.job.pictures.embedded import is_cut, read_embedded
from joyedit.job.pictures.encode import save_picture
from joyedit.job.results.made_picture import how_made, is_whole

HELD = {"instruction": "Make it réd.", "seed": "7", "steps": "3", "guidance_scale": "2.5", "software": "joyedit 0.1.0"}


def save(path: Path, form: str, held: dict[str, str], size: tuple[int, int] = (8, 8)) -> Path:
    file = io.BytesIO()
    save_picture(Image.new("RGB", size), file, form, None, held)
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "tiff", "avif", "heic"])
def test_each_format_gives_it_back(tmp_path: Path, form: str) -> None:
    if form == "heic":
        pytest.importorskip("pillow_heif")
    path = save(tmp_path / f"x.{form}", form, HELD)
    assert read_embedded(str(path)) == HELD
    made = how_made(path)
    assert (made.instruction, made.settings, made.inputs) == (
        "Make it réd.",
        {"steps": 3, "guidance_scale": 2.5, "seed": 7, "size": "bucket", "fit": "crop"},
        None,
    )


def test_a_text_that_was_cut_is_known_as_cut(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jpg", "jpg", HELD | {"instruction": "a" * 80_000})
    made = how_made(path)
    assert is_cut(made.instruction)
    assert not is_whole(made)
    for form in ("png", "tiff", "avif"):
        assert is_whole(how_made(save(tmp_path / f"x.{form}", form, HELD | {"instruction": "a" * 80_000})))
    assert not is_cut("And so on…")


@pytest.mark.parametrize(
    "held",
    [
        {"instruction": "x"},
        {"instruction": "x", "software": "another program"},
        {"software": "joyedit 0.1.0"},
        {"instruction": "x" * (9 << 20), "software": "joyedit 0.1.0"},
    ],
)
def test_pictures_of_others(tmp_path: Path, held: dict[str, str]) -> None:
    assert read_embedded(str(save(tmp_path / "x.png", "png", held))) == {}


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    (tmp_path / "y.jpg").write_bytes(b"")
    os.mkfifo(tmp_path / "z.png")
    for name in ("x.png", "y.jpg", "z.png"):
        assert read_embedded(str(tmp_path / name)) == {}
    with pytest.raises(OSError, match="No such file"):
        read_embedded(str(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    "comment", [b"ASCII\0\0\0{", b"ASCII\0\0\0[1]", b"ASCII\0\0\0" + b"[" * 5000, b"\xff\xfe", b""]
)
def test_comments_of_strangers(tmp_path: Path, comment: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=exif.tobytes())
    assert read_embedded(str(tmp_path / "x.jpg")) == {}


def test_values_that_are_none_are_passed_over(tmp_path: Path) -> None:
    held = HELD | {"seed": "x", "steps": "1.5", "lora": "{", "inputs": json.dumps([3, {"name": "a.png"}]), "box": "1,2"}
    made = how_made(save(tmp_path / "x.png", "png", held))
    assert made.settings == {"guidance_scale": 2.5, "size": "bucket", "fit": "crop"}
    assert (made.loras, made.box) == ((), None)
    assert made.inputs is not None
    assert [one.name for one in made.inputs] == ["a.png"]


def test_no_pixel_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.png", "png", HELD)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("the pixels were read"))
    assert read_embedded(str(path)) == HELD
