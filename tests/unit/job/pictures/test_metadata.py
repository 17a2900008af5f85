"""What a result keeps of its picture's EXIF and XMP, and how it is written."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.encode import Beside, save_picture
from joyedit.job.pictures.metadata import Metadata, metadata_of
from joyedit.job.pictures.properties import PictureProperties
from joyedit.job.spec import MetadataName
from support.pictures import read_metadata

XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 tiff:Orientation="6" tiff:ImageWidth='4000' exif:GPSLatitude="52,31.2N" xmp:Rating="5"
 GCamera:MotionPhoto="1" hdrgm:Version="1.0">
 <exif:PixelXDimension>4000</exif:PixelXDimension><tiff:Orientation>6</tiff:Orientation>
 <exif:GPSLongitude>13,24.3E</exif:GPSLongitude>
 <xmp:Thumbnails><rdf:Alt><rdf:li>BEFORE</rdf:li></rdf:Alt></xmp:Thumbnails>
 <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Stra\xc3\x9fe</rdf:li></rdf:Alt></dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "Canon", 6, "2024:05:06 07:08:09"
    exif.get_ifd(ExifTags.IFD.Exif).update({0x9003: "2024:05:06 07:08:09", 0x9286: b"ASCII\0\0\0hello"})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
    return exif


def properties(*, exif: bytes = b"", xmp: bytes = b"") -> PictureProperties:
    return PictureProperties(kind="JPEG", size=(30, 20), mode="RGB", colours={}, exif=exif, xmp=xmp, dpi=(300.0, 300.0))


def kept(wish: MetadataName, **given: bytes) -> tuple[Metadata, list[str]]:
    notes: list[str] = []
    return metadata_of(properties(**given), wish, (1500, 2000), notes), notes


def test_xmp_says_what_is_true_now() -> None:
    metadata, notes = kept("keep", xmp=XMP)
    text = metadata.xmp.decode()
    for held in ('tiff:Orientation="1"', "tiff:ImageWidth='2000'", "<exif:PixelXDimension>2000<", 'xmp:Rating="5"',
                 "<tiff:Orientation>1<", "Straße", "52,31.2N", "13,24.3E"):  # fmt: skip
        assert held in text
    for gone in ("MotionPhoto", "hdrgm", "BEFORE", "4000", "6"):
        assert gone not in text.replace("W5M0MpCehiHzreSzNTczkc9d", "")
    assert not notes


def test_the_place_can_be_left_out() -> None:
    metadata, notes = kept("no-gps", xmp=XMP, exif=camera_exif().tobytes()[6:])
    assert b"GPS" not in metadata.xmp
    assert b"52,31" not in metadata.xmp
    assert b"xmp:Rating" in metadata.xmp
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + metadata.exif)
    assert 0x8825 not in exif
    assert exif[306] == "2024:05:06 07:08:09"
    assert not notes
    unusual, notes = kept("no-gps", xmp=b"<x><y>GPS 52 N</y></x>")
    assert unusual.xmp == b""
    assert notes == ["XMP left out: it says in an unusual way where the picture was taken"]


def test_all_of_it_can_be_left_out() -> None:
    metadata, notes = kept("strip", xmp=XMP, exif=camera_exif().tobytes()[6:])
    assert (metadata, notes) == (Metadata(b"", b"", (300.0, 300.0)), [])


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"exif": b"II*\0\xff\xff\xff\xff"}, "EXIF left out: a table lies outside of the block"),
        ({"xmp": "<x>ü</x>".encode("utf-16")}, "XMP left out: it is not in UTF-8"),
        ({"xmp": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}, "XMP left out: it holds a document type"),
    ],
)
def test_what_cannot_be_kept_is_a_note(given: dict[str, bytes], note: str) -> None:
    metadata, notes = kept("keep", **given)
    assert (metadata.exif, metadata.xmp, notes) == (b"", b"", [note])


SETTINGS = {"instruction": "make it blue", "seed": "7"}


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_files_hold_both_the_settings_and_the_metadata(tmp_path: Path, kind: str) -> None:
    metadata, _ = kept("keep", xmp=XMP, exif=camera_exif().tobytes()[6:])
    path = tmp_path / f"p.{kind}"
    with open(path, "wb") as file:
        save_picture(Image.new("RGB", (20, 30)), file, kind, None, SETTINGS, Beside(metadata))
    wanted = SETTINGS if kind == "png" else SETTINGS | {"comment": "hello"}
    assert {key: value for key, value in read_metadata(path).items() if not key.startswith("XML")} == wanted
    with Image.open(path) as image:
        image.load()
        exif = image.getexif()
        assert (exif[271], exif[274], exif[306]) == ("Canon", 1, "2024:05:06 07:08:09")
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 31.0, 12.0)
        assert image.info["xmp"] == metadata.xmp
        if kind != "webp":  # which has no resolution of its own
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    # A second edit of the result keeps all of it once more.
    again = load_picture(path).properties
    assert again.xmp == metadata.xmp
    assert again.dpi == (None if kind == "webp" else pytest.approx((300, 300), abs=0.01))
    assert metadata_of(again, "keep", (30, 20), []).exif


def test_metadata_too_large_for_a_jpeg() -> None:
    large = Metadata(exif=b"II*\0" + bytes(63_000), xmp=b"x" * 63_000)
    file = io.BytesIO()
    told = save_picture(Image.new("RGB", (8, 8)), file, "jpg", None, SETTINGS, Beside(large))
    assert told == ("XMP left out: it is too large for a JPEG", "EXIF left out: it is too large beside the settings")
    with Image.open(file) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[0x9286]
        assert json.loads(comment[8:]) == SETTINGS
    png = io.BytesIO()
    assert save_picture(Image.new("RGB", (8, 8)), png, "png", None, SETTINGS, Beside(large._replace(exif=b""))) == ()


@pytest.mark.parametrize("taken", [40_000, 55_000, 59_900])
def test_long_settings_beside_large_exif(taken: int) -> None:
    """Both fit into the one segment that a JPEG has for them."""
    exif = Image.Exif()
    exif[271] = "C" * taken
    beside = Beside(Metadata(exif=exif.tobytes()[6:]))
    file = io.BytesIO()
    told = save_picture(
        Image.new("RGB", (8, 8)), file, "jpg", None, {"instruction": "天" * 50_000, "seed": "7"}, beside
    )
    assert told == ()
    with Image.open(file) as image:
        held = image.getexif()
        assert held[271] == "C" * taken
        assert json.loads(held.get_ifd(ExifTags.IFD.Exif)[0x9286][8:])["seed"] == "7"
