"""PNG: chunks beside the pixels, whole or damaged, never lose the picture; transparent values at any depth."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from joyedit.errors import ItemError
from joyedit.job.pictures import png as module
from joyedit.job.pictures.decode import header_size, load_picture
from support.png import chunk, png, with_chunks

BOMB = zlib.compress(bytes(3 << 20))
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 40, 3), dtype=np.uint8))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def turned(orientation: int) -> bytes:
    """An EXIF block without its JPEG head."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def notes_of(path: Path, data: bytes) -> tuple[str, ...]:
    """The notes; the pixels are `PICTURE`'s."""
    path.write_bytes(data)
    picture = load_picture(path)
    assert header_size(path) == (20, 40)
    assert np.array_equal(np.asarray(picture.image), np.asarray(PICTURE))
    return picture.notes


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("side", "notes"),
    [
        (chunk(b"tEXt", b"prompt\0a horse"), ()),
        (chunk(b"tEXt", b"prompt\0a horse", intact=False), ("a damaged tEXt chunk left out",)),
        (chunk(b"pHYs", bytes(9), intact=False), ("a damaged pHYs chunk left out",)),
        (chunk(b"pHYs", b"\0"), ()),
        (chunk(b"zTXt", b"k\0\0no zlib at all"), ()),
        (chunk(b"zTXt", b"k\0\7"), ()),
        (chunk(b"iTXt", b"\0"), ()),
        (
            chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB),
            ("a text (iTXt) of more than 1 MiB left out",),
        ),
        (chunk(b"zTXt", b"k\0\0" + BOMB), ("a text (zTXt) of more than 1 MiB left out",)),
        (chunk(b"tEXt", b"k\0" + bytes(2 << 20)), ("a text (tEXt) of more than 1 MiB left out",)),
        (chunk(b"iCCP", b"n\0\0" + zlib.compress(SRGB)), ()),
        (chunk(b"iCCP", b"n\0\0" + zlib.compress(SRGB), intact=False), ("a damaged iCCP chunk left out",)),
        (chunk(b"iCCP", b"n\0\0" + zlib.compress(SRGB)[:-9]), ("colour profile ignored: its data is damaged",)),
        (chunk(b"iCCP", b"nothing"), ("colour profile ignored: its data is damaged",)),
        (chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(9 << 20))), ("colour profile ignored: it is far too long",)),
        (chunk(b"eXIf", turned(6), intact=False), ("a damaged eXIf chunk left out",)),
        (chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\xffno directory"), ()),
        (chunk(b"gAMA", b"\0"), ()),
        (chunk(b"cHRM", bytes(7)), ()),
        (chunk(b"acTL", b"\0\0\0\2\0\0\0\0", intact=False), ("a damaged acTL chunk left out",)),
        (chunk(b"prVt", b"x") * 3, ()),
        (chunk(b"tIME", bytes(7), intact=False) * 2, ("a damaged tIME chunk left out",)),
    ],
)
@pytest.mark.usefixtures("warnings_are_notes")
def test_a_chunk_beside_the_pixels(tmp_path: Path, side: bytes, notes: tuple[str, ...], behind: bool) -> None:
    found = notes_of(tmp_path / "p.png", with_chunks(PICTURE, side, behind=behind))
    assert tuple(note for note in found if not note.startswith("the decoder warns")) == notes


def test_a_long_profile_is_read(tmp_path: Path) -> None:
    # Pillow refuses a profile of more than 1 MiB, and with it the picture.
    long = bytearray(SRGB + np.random.default_rng(0).bytes(2 << 20))
    long[0:4] = struct.pack(">I", len(long))
    side = chunk(b"iCCP", b"n\0\0" + zlib.compress(bytes(long)))
    assert notes_of(tmp_path / "p.png", with_chunks(PICTURE, side)) == ()


def test_a_damaged_chunk_of_transparency_is_left_out(tmp_path: Path) -> None:
    side = chunk(b"tRNS", struct.pack(">HHH", *PICTURE.getpixel((0, 0))), intact=False)  # type: ignore[misc]
    assert notes_of(tmp_path / "p.png", with_chunks(PICTURE, side)) == ("a damaged tRNS chunk left out",)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    "side",
    [
        chunk(b"eXIf", turned(6)),
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 40\n" + turned(6).hex().encode())),
    ],
)
def test_an_orientation_in_any_chunk(tmp_path: Path, side: bytes, behind: bool) -> None:
    (tmp_path / "p.png").write_bytes(with_chunks(PICTURE, side, behind=behind))
    assert header_size(tmp_path / "p.png") == (40, 20)
    assert load_picture(tmp_path / "p.png").notes == ("EXIF orientation 6 applied",)


def test_an_animation_out_of_order_is_left_out(tmp_path: Path) -> None:
    control = struct.pack(">IIIIIHHBB", 5, 40, 20, 0, 0, 1, 10, 0, 0)
    side = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", control)
    assert notes_of(tmp_path / "p.png", with_chunks(PICTURE, side)) == ("damaged animation left out",)
    short = chunk(b"tRNS", b"\0")
    assert notes_of(tmp_path / "p.png", with_chunks(PICTURE, short)) == ("a damaged tRNS chunk left out",)
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""))
    with pytest.raises(ItemError) as caught:
        load_picture(tmp_path / "p.png")
    assert caught.value.code == "unreadable_picture"


def test_a_bomb_of_texts_takes_no_memory(tmp_path: Path) -> None:
    bombs = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(64 << 20), 9)) * 20
    (tmp_path / "p.png").write_bytes(with_chunks(PICTURE, bombs))
    load_picture(tmp_path / "p.png")
    tracemalloc.start()
    load_picture(tmp_path / "p.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20


def test_the_budget_counts_the_texts_that_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(with_chunks(PICTURE, chunk(b"zTXt", b"k\0\0" + bytes(700_000))))
    with open(tmp_path / "p.png", "rb") as file:
        assert module.PngPicture(file, "p").text_bytes == 3 * 700_003 + (1 << 20)


@pytest.mark.parametrize(
    ("depth", "packed", "clear"),
    [(1, [0b0100_0000], 1), (2, [0b0001_1011], 1), (4, [0x05, 0xAF], 5), (8, [0, 85, 170, 255], 85)],
)
def test_a_transparent_grey_at_each_depth(tmp_path: Path, depth: int, packed: list[int], clear: int) -> None:
    data = png(np.array([packed], np.uint8), depth, 0, chunk(b"tRNS", struct.pack(">H", clear)))
    (tmp_path / "p.png").write_bytes(data)
    got = np.asarray(load_picture(tmp_path / "p.png").image)[0, :4, 0].tolist()
    assert got == ([0, 255, 0, 0] if depth == 1 else [0, 255, 170, 255])


def test_a_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    row = np.array([0x1234, 0x5678, 0x9ABC, 0, 0, 0], ">u2").view(np.uint8)[None]
    (tmp_path / "p.png").write_bytes(png(row, 16, 2, chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC))))
    assert np.asarray(load_picture(tmp_path / "p.png").image)[0].tolist() == [[255, 255, 255], [0, 0, 0]]


def test_a_file_that_ends_before_the_pixels_is_cut(tmp_path: Path) -> None:
    data = with_chunks(PICTURE, chunk(b"tEXt", b"k\0" + bytes(500)))
    for length in (30, 60, 400, 550, 800):
        (tmp_path / "p.png").write_bytes(data[:length])
        with pytest.raises(ItemError) as caught:
            load_picture(tmp_path / "p.png")
        assert caught.value.code == "truncated_picture", (length, str(caught.value))


def test_many_small_chunks_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    PICTURE.save(file, "PNG")
    data = file.getvalue()
    body = data[41:-16]
    small = b"".join(chunk(b"IDAT", body[n : n + 7]) + chunk(b"tEXt", b"k\0v") for n in range(0, len(body), 7))
    for most in (1 << 16, 40):  # what is beyond the limit goes to Pillow as it is
        monkeypatch.setattr(module, "_MOST_CHUNKS", most)
        whole = data[:33] + small.replace(chunk(b"tEXt", b"k\0v"), b"") + data[-12:]
        assert notes_of(tmp_path / "p.png", whole) == ()
    monkeypatch.undo()
    assert notes_of(tmp_path / "p.png", data[:33] + small + data[-12:]) == ()
