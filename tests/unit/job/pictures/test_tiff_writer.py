"""TIFF files that joyedit writes, as other readers see them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from joyedit.job.pictures import tiff_writer
from joyedit.job.pictures.exif_block import ExifBlock
from joyedit.job.pictures.tiff_writer import write_tiff


def written(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], exif: bytes = b"", **more: object) -> io.BytesIO:
    file = io.BytesIO()
    write_tiff(pixels, file, ExifBlock(exif), **more)  # type: ignore[arg-type]
    file.seek(0)
    return file


@pytest.mark.parametrize(("mode", "samples"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("CMYK", 4)])
def test_each_kind_of_colours(mode: str, samples: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (500, 700, samples)).astype(np.uint8)
    file = written(pixels, is_cmyk=mode == "CMYK", dpi=(300.0, 72.5), profile=b"profile", xmp=b"<x/>", iptc=b"iptc")
    with Image.open(file) as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)
        assert image.info["dpi"] == (300, 72.5)
        assert image.info["icc_profile"] == b"profile"
        tags = image.tag_v2  # type: ignore[attr-defined]
        assert (tags[700], tags[33723]) == (b"<x/>", b"iptc")
    file.seek(0)
    with tifffile.TiffFile(file) as opened:
        assert len(opened.pages) == 1
        assert np.array_equal(opened.asarray().reshape(pixels.shape), pixels)
        assert len(opened.pages[0].dataoffsets) > 1  # type: ignore[union-attr]


def test_the_exif_of_a_camera_keeps_its_places() -> None:
    """The makers' own data holds places counted from the beginning of the file."""
    note = b"MAKER" + bytes(range(40))
    exif = Image.Exif()
    exif[271], exif[256], exif[258], exif[306] = "Canon", 4000, (8, 8, 8), "2024:05:06 07:08:09"
    exif.get_ifd(ExifTags.IFD.Exif)[0x927C] = note
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    held = exif.tobytes()[6:]
    file = written(np.zeros((10, 20, 1), np.uint8), held)
    assert file.getvalue().index(note) == held.index(note)
    with Image.open(file) as image:
        assert (image.size, image.mode) == ((20, 10), "L")
        read = image.getexif()
        assert (read[271], read[306], read[258]) == ("Canon", "2024:05:06 07:08:09", 8)
        assert read.get_ifd(ExifTags.IFD.Exif)[0x927C] == note
        assert read.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


def test_more_than_a_tiff_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_writer, "_MOST", 100)
    with pytest.raises(OSError, match="at most 4 GiB"):
        written(np.random.default_rng(1).integers(0, 256, (100, 100, 1)).astype(np.uint8))


def test_the_head_leads_to_the_only_table() -> None:
    data = written(np.zeros((1, 1, 1), np.uint8)).getvalue()
    order, mark, place = struct.unpack("<2sHI", data[:8])
    assert (order, mark) == (b"II", 42)
    (count,) = struct.unpack_from("<H", data, place)
    assert data[place + 2 + 12 * count :] == bytes(4)
