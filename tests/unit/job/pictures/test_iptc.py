"""IPTC blocks: found in JPEG and TIFF, without their place, and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.encode import Beside, save_picture
from joyedit.job.pictures.iptc import iptc_of, segment_of, without_place
from joyedit.job.pictures.metadata import Metadata

TITLE = b"\x1c\x02\x05\x00\x05title"
LONG = b"\x1c\x02\x78\x80\x04\x00\x01\x00\x00" + b"x" * 65536
CITY, COUNTRY = b"\x1c\x02\x5a\x00\x04Bonn", b"\x1c\x02\x65\x00\x00"


def held(path: Path) -> tuple[bytes, list[str]]:
    picture = load_picture(path)
    return picture.properties.iptc, [note for note in picture.notes if "IPTC" in note]


@pytest.mark.parametrize("block", [TITLE, TITLE + CITY, LONG + TITLE, TITLE + bytes(3), b""])
def test_a_block_in_a_tiff(tmp_path: Path, block: bytes) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.tif", tiffinfo={33723: block} if block else {})
    assert held(tmp_path / "x.tif") == (block.rstrip(b"\0"), [])


def test_numbers_are_the_bytes_that_they_are(tmp_path: Path) -> None:
    """Some programs declare the block as numbers of four bytes, and fill it up with zeros."""
    block = (TITLE + CITY).ljust(24, b"\0")
    numbers = np.frombuffer(block, "<u4")
    pixels = np.zeros((8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", pixels, byteorder="<", extratags=[(33723, 4, len(numbers), numbers, True)])
    assert held(tmp_path / "x.tif") == (TITLE + CITY, [])


def test_resources_of_photoshop_in_a_tiff(tmp_path: Path) -> None:
    resources = b"8BIM\x03\xed\x03abc\0\0\0\x03xyz\0" + b"8BIM\x04\x04\0\0\0\0\0\x0a" + TITLE
    Image.new("RGB", (8, 8)).save(tmp_path / "x.tif", tiffinfo={34377: resources})
    assert held(tmp_path / "x.tif") == (TITLE, [])


@pytest.mark.parametrize("block", [b"no", TITLE[:-1], TITLE + b"\x1c\x02", b"\x1c", b"x" * (2 << 20)])
def test_damage_is_left_out_with_a_note(tmp_path: Path, block: bytes) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.tif", tiffinfo={33723: block})
    assert held(tmp_path / "x.tif") == (b"", ["damaged IPTC left out"])


def test_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (8, 8)).save(path, extra=segment_of(TITLE + CITY))
    assert held(path) == (TITLE + CITY, [])
    with Image.open(path) as image:
        assert image.info["photoshop"] == {0x0404: TITLE + CITY}
        image.info["photoshop"] = {0x0404: {"no": "bytes"}}
        assert iptc_of(image, []) == b""  # type: ignore[arg-type]


def test_the_place_goes() -> None:
    assert without_place(TITLE + CITY + LONG + COUNTRY) == TITLE + LONG
    assert without_place(b"") == b""


def test_what_no_jpeg_can_hold_is_told(tmp_path: Path) -> None:
    assert segment_of(LONG) is None
    with (tmp_path / "x.jpg").open("wb") as file:
        notes = save_picture(Image.new("RGB", (8, 8)), file, "jpg", None, {}, Beside(Metadata(iptc=LONG)))
    assert notes == ("IPTC left out: it is too large for a JPEG",)
    assert held(tmp_path / "x.jpg") == (b"", [])
