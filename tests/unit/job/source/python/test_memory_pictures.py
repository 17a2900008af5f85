"""Pictures in memory as references: their hash, their bytes, and what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from joyedit.job.data_picture import DataPicture
from joyedit.job.pictures.decode import load_picture
from joyedit.job.source.python.pictures import NoPictureError, content_hash, is_held, reference_of


def drawn(mode: str = "RGB") -> Image.Image:
    numbers = np.random.default_rng(3).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(numbers).convert(mode)


def held(image: Image.Image) -> DataPicture:
    found = reference_of(image)
    assert isinstance(found, DataPicture)
    return found


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "YCbCr", "HSV", "CMYK", "La", "RGBa"])
def test_the_pixels_are_those_of_a_file_of_the_same_picture(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.full((20, 30), 40_000, np.uint16)) if mode == "I;16" else drawn()
    if mode == "La":
        image = drawn("LA").convert("La")
    elif mode == "RGBa":
        image = drawn("RGBA").convert("RGBa")
    elif mode != "I;16":
        image = drawn(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    alike = {"YCbCr": "RGB", "HSV": "RGB", "La": "LA", "RGBa": "RGBA"}
    image.convert(alike.get(mode, mode)).save(tmp_path / f"a.{kind.lower()}")
    from_memory, from_file = load_picture(held(image)), load_picture(tmp_path / f"a.{kind.lower()}")
    assert from_memory.image.tobytes() == from_file.image.tobytes()
    assert held(image).sha256 == content_hash(image)


def test_the_hash_is_of_the_content_and_not_of_the_object() -> None:
    image = drawn()
    assert content_hash(image) == content_hash(image.copy()) == content_hash(drawn())
    changed = drawn()
    changed.putpixel((0, 0), (1, 2, 3))
    assert content_hash(changed) != content_hash(image)
    assert content_hash(image.convert("RGBA")) != content_hash(image)
    assert content_hash(Image.new("L", (2, 8))) != content_hash(Image.new("L", (8, 2)))


def test_the_hash_is_the_same_in_another_process() -> None:
    code = (
        "import numpy as np; from PIL import Image; from joyedit.job.source.python.pictures import content_hash;"
        "n = np.random.default_rng(3).integers(0, 255, (20, 30, 3), dtype=np.uint8);"
        "print(content_hash(Image.fromarray(n)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == content_hash(drawn())


def test_an_opened_file_and_its_pixels_are_one_picture(tmp_path: Path) -> None:
    drawn().save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert content_hash(opened) == content_hash(drawn())


@pytest.mark.parametrize("more", [{}, {"compression": "tiff_lzw", "dpi": (300, 300)}])
def test_the_layout_of_a_tiff_is_no_content(tmp_path: Path, more: dict[str, Any]) -> None:
    drawn().save(tmp_path / "a.tif", **more)
    with Image.open(tmp_path / "a.tif") as opened:
        assert content_hash(opened) == content_hash(opened.copy()) == content_hash(drawn())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    drawn().save(tmp_path / "b.tif", exif=exif.tobytes())
    with Image.open(tmp_path / "b.tif") as opened:
        assert content_hash(opened) != content_hash(drawn())
        there, here = load_picture(tmp_path / "b.tif"), load_picture(held(opened))
    assert here.image.size == there.image.size == (20, 30)
    assert here.image.tobytes() == there.image.tobytes()
    read = Image.Exif()
    read.load(here.properties.exif)
    assert read[ExifTags.Base.Make] == "Maker"
    assert read.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"}
    assert set(read) == {ExifTags.Base.Make, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}


def test_profile_and_orientation_count_and_are_kept() -> None:
    plain, turned, coloured = drawn(), drawn(), drawn()
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.info["exif"] = exif.tobytes()
    coloured.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert len({content_hash(one) for one in (plain, turned, coloured)}) == 3
    assert load_picture(held(turned)).image.size == (20, 30)
    with Image.open(io.BytesIO(held(coloured).data)) as read:
        assert read.info["icc_profile"] == coloured.info["icc_profile"]


def test_bytes_and_cells_of_datasets_are_the_file_itself(tmp_path: Path) -> None:
    drawn().save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    for value in (data, bytearray(data), {"bytes": data, "path": "a.jpg"}):
        found = reference_of(value)
        assert is_held(value)
        assert isinstance(found, DataPicture)
        assert found.data == data
    assert reference_of({"bytes": None, "path": "a.jpg"}) == "a.jpg"
    assert reference_of(tmp_path / "a.jpg") == str(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3.5, "a picture is a path or a picture of Pillow, not float"),
        (b"", "the bytes of this picture are empty"),
        (np.zeros((3, 3)), "not numpy.ndarray"),
        (Image.new("RGB", (0, 5)), "it has no pixels"),
    ],
)
def test_what_is_no_picture_is_refused(value: object, told: str) -> None:
    with pytest.raises(NoPictureError, match=told):
        reference_of(value)


def test_a_broken_file_behind_a_picture_is_told(tmp_path: Path) -> None:
    drawn().save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with Image.open(tmp_path / "a.png") as opened, pytest.raises(NoPictureError, match="cannot be read"):
        reference_of(opened)
