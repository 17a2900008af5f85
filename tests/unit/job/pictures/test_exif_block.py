"""EXIF that is changed in place: what goes, what stays byte by byte, and blocks that are damaged."""

from __future__ import annotations

import random
import struct

import pytest
from PIL import ExifTags, Image

from joyedit.job.pictures.exif_block import ExifBlock

NOTE = b"MakerNote with places inside " * 20


def block(order: str = "<", *, thumbnail: bytes = b"") -> bytes:
    """A block as a camera writes it: IFD0, Exif, GPS, and a thumbnail at the end."""
    exif = Image.Exif()
    exif.endian = order
    exif[271], exif[274], exif[256], exif[306] = "Canon", 6, 4000, "2024:05:06 07:08:09"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {0x9003: "2024:05:06 07:08:09", 0xA002: 70_000, 0xA003: 3000, 0x927C: NOTE, 0x9286: b"ASCII\0\0\0hello"}
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.345), 3: "E", 4: (13.0, 24.0, 18.0)})
    data = exif.tobytes()[6:]
    if not thumbnail:
        return data
    # The first table is the last but for its values: its link is found by walking over its entries.
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    data = bytearray(data + bytes(len(data) % 2))
    struct.pack_into(order + "I", data, start + 2 + 12 * count, len(data))
    place = len(data) + 2 + 24 + 4
    data += struct.pack(order + "HHHIIHHIII", 2, 0x0201, 4, 1, place, 0x0202, 4, 1, len(thumbnail), 0)
    return bytes(data) + thumbnail


def read(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + data)
    return exif


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_picture_that_is_upright_now(order: str) -> None:
    changed = ExifBlock(block(order))
    changed.set_upright((1500, 2000))
    exif = read(bytes(changed))
    assert (exif[271], exif[274], exif[256], exif[306]) == ("Canon", 1, 2000, "2024:05:06 07:08:09")
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert (inner[0x9003], inner[0xA002], inner[0xA003]) == ("2024:05:06 07:08:09", 2000, 1500)
    assert inner[0x927C] == NOTE
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 31.0, 12.345)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_maker_note_stays_where_it_is(order: str) -> None:
    """Cameras count places from the beginning of the block."""
    before = block(order, thumbnail=b"\xff\xd8thumbnail\xff\xd9")
    changed = ExifBlock(before)
    changed.set_upright((1500, 2000))
    changed.drop_place()
    changed.set_comment(b"x" * 1000)
    assert bytes(changed).index(NOTE) == before.index(NOTE)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_place_goes_without_a_trace(order: str) -> None:
    before = block(order)
    values = struct.pack(order + "II", 52, 1)
    assert values in before
    changed = ExifBlock(before)
    changed.drop_place()
    assert values not in bytes(changed)
    exif = read(bytes(changed))
    assert 0x8825 not in exif
    assert exif.get_ifd(ExifTags.IFD.Exif)[0x9003] == "2024:05:06 07:08:09"


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_goes_too(order: str) -> None:
    picture = b"\xff\xd8" + b"the picture before the edit" * 50 + b"\xff\xd9"
    before = block(order, thumbnail=picture)
    assert read(before).get_ifd(ExifTags.IFD.IFD1)[0x0202] == len(picture)
    changed = ExifBlock(before)
    changed.set_upright((1, 1))
    data = bytes(changed)
    assert picture[:40] not in data
    assert len(data) < len(before), "cameras write it last, so nothing stays of it"
    assert not read(data).get_ifd(ExifTags.IFD.IFD1)


def test_comments() -> None:
    changed = ExifBlock(block())
    assert changed.comment == "hello"
    changed.set_comment(b'{"seed": "7"}')
    assert ExifBlock(bytes(changed)).comment == '{"seed": "7"}'
    assert b"hello" not in bytes(changed)
    fresh = ExifBlock()
    assert bytes(fresh) == b""
    assert fresh.comment == ""
    fresh.set_comment(b"mine")
    assert read(bytes(fresh)).get_ifd(ExifTags.IFD.Exif)[0x9286] == b"ASCII\0\0\0mine"


def test_a_comment_in_utf_16() -> None:
    exif = Image.Exif()
    exif.endian = "<"
    exif.get_ifd(ExifTags.IFD.Exif)[0x9286] = b"UNICODE\0" + "Grüße".encode("utf-16-le")
    assert ExifBlock(exif.tobytes()[6:]).comment == "Grüße"


def test_text_beyond_ascii_stays_as_it_is() -> None:
    data = block()
    changed = data.replace(b"Canon\0", b"C\xc3\xb3n\0\0")
    assert changed != data
    upright = ExifBlock(changed)
    upright.set_upright((2, 2))
    assert b"C\xc3\xb3n" in bytes(upright)


def test_damage_is_told_or_does_no_harm() -> None:
    """Any bytes give a block or a ValueError, in bounded time."""
    chance = random.Random(0)
    whole = block(thumbnail=b"\xff\xd8" + bytes(100))
    refused = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randint(8, len(data))]
        try:
            changed = ExifBlock(bytes(data))
            changed.set_upright((10, 10))
            changed.drop_place()
            changed.set_comment(b"x")
            assert ExifBlock(bytes(changed)).comment == "x"
        except ValueError:
            refused += 1
    assert 0 < refused < 3000
    for data in (b"x", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\4"):
        with pytest.raises(ValueError, match=r"."):
            ExifBlock(data)
