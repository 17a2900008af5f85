"""JPEG: missing data fails the item although an end marker stands behind it; damaged metadata does not."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures.decode import header_size, load_picture
from joyedit.job.pictures.decoder_messages import set_catching

DICE = np.random.default_rng(0)
NOISE = Image.fromarray(DICE.integers(0, 255, (15, 20, 3), dtype=np.uint8)).resize((320, 240))
END = b"\xff\xd9"
NO_END = "its end marker is missing, but its data is whole"
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("L", {"progressive": True}), ("CMYK", {}),
    ("RGB", {"restart_marker_rows": 1}), ("RGB", {"subsampling": 0, "quality": 100}), ("RGB", {"keep_rgb": True}),
]  # fmt: skip


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    NOISE.convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def code_of(path: Path, data: bytes) -> str:
    """The code of the error; the notes, if it is read."""
    path.write_bytes(data)
    try:
        return "; ".join(load_picture(path).notes)
    except ItemError as error:
        return error.code


@pytest.mark.parametrize(("mode", "options"), KINDS, ids=str)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.97])
def test_a_cut_file_with_an_end_marker(tmp_path: Path, mode: str, options: dict[str, Any], part: float) -> None:
    data = jpeg(mode, **options)
    cut = data[: max(int(len(data) * part), data.index(b"\xff\xda") + 40)].rstrip(b"\xff")
    assert code_of(tmp_path / "p.jpg", cut + END) == "truncated_picture"
    assert code_of(tmp_path / "p.jpg", cut) == "truncated_picture"
    assert code_of(tmp_path / "p.jpg", cut + bytes(len(data) - len(cut)) + END) in (
        "truncated_picture", "unreadable_picture",
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "options"), KINDS, ids=str)
def test_whole_files_have_no_note(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    data = jpeg(mode, **options)
    usual = "CMYK converted to RGB" if mode == "CMYK" else ""
    for whole in (data, data + b"another file behind it" * 50, data[:-2] + END * 3):
        assert code_of(tmp_path / "p.jpg", whole) == usual


def test_the_reason_names_the_warning(tmp_path: Path) -> None:
    data = jpeg()
    (tmp_path / "p.jpg").write_bytes(data[: len(data) // 2] + END)
    with pytest.raises(ItemError) as caught:
        load_picture(tmp_path / "p.jpg")
    reason = "the file is truncated: data is missing before its end marker"
    libjpeg = "libjpeg says: Corrupt JPEG data: premature end of data segment"
    assert str(caught.value) == f"{tmp_path}/p.jpg: {reason} ({libjpeg})"


def test_harmless_warnings_are_notes(tmp_path: Path) -> None:
    data = jpeg()
    scan = data.index(b"\xff\xda")
    note = code_of(tmp_path / "p.jpg", data[:scan] + bytes(4) + data[scan:])
    assert note == "libjpeg says: Corrupt JPEG data: 4 extraneous bytes before marker 0xda"
    assert "extraneous bytes before marker 0xd9" in code_of(tmp_path / "p.jpg", data[:-2] + b"some junk" + END)


def test_damaged_data_is_no_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((1280, 960)).convert("CMYK").save(file, "JPEG", progressive=True)
    data = bytearray(file.getvalue())
    middle = len(data) // 2
    data[middle : middle + 50] = bytes(50)
    (tmp_path / "p.jpg").write_bytes(data)
    with pytest.raises(ItemError, match=r"its data is damaged \(libjpeg says: .*bad Huffman code\)") as caught:
        load_picture(tmp_path / "p.jpg")
    assert caught.value.code == "unreadable_picture"


def test_zeros_that_fill_up_a_whole_picture_are_harmless(tmp_path: Path) -> None:
    for mode, options in KINDS:
        data = jpeg(mode, **options)
        note = code_of(tmp_path / "p.jpg", data[:-2] + bytes(3000) + END)
        assert "extraneous bytes before marker 0xd9" in note, options


def test_without_an_end_marker_a_whole_picture_is_read(tmp_path: Path) -> None:
    data = jpeg(restart_marker_rows=1)
    file = io.BytesIO(data)
    whole = np.asarray(Image.open(file))
    (tmp_path / "p.jpg").write_bytes(data[:-2] + b"\xff\xd0" * 20)
    assert np.array_equal(np.asarray(load_picture(tmp_path / "p.jpg").image), whole)


@pytest.mark.parametrize(("mode", "options"), KINDS, ids=str)
def test_a_file_that_lacks_only_its_end_marker_is_read(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    data = jpeg(mode, **options)
    for cut in (data[:-2], data[:-1]):
        found = code_of(tmp_path / "p.jpg", cut)
        if options.get("progressive"):  # whole scans may be missing, and nobody could tell
            assert found == "truncated_picture"
            continue
        # Pillow has all rows before it misses the marker, or not until then: that depends on its buffer.
        assert found.removesuffix("CMYK converted to RGB") in ("", NO_END, f"{NO_END}; ")
        (tmp_path / "whole.jpg").write_bytes(data)
        whole = np.asarray(load_picture(tmp_path / "whole.jpg").image)
        assert np.array_equal(np.asarray(load_picture(tmp_path / "p.jpg").image), whole)


@pytest.mark.parametrize(("mode", "options"), KINDS, ids=str)
def test_a_file_that_lacks_its_last_bytes_too_is_cut(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    data = jpeg(mode, **options)
    for missing in (*range(4, 40), 100):
        assert code_of(tmp_path / "p.jpg", data[:-missing]) == "truncated_picture"


def test_a_missing_end_marker_is_a_note(tmp_path: Path) -> None:
    assert code_of(tmp_path / "p.jpg", jpeg()[:-2]) == NO_END


def scans_one_by_one() -> tuple[bytes, list[bytes]]:
    """A JPEG that is not progressive and has a scan for each component: what comes before them, and the scans."""
    planes = []
    for plane in NOISE.convert("YCbCr").split():
        file = io.BytesIO()
        plane.save(file, "JPEG")
        planes.append(file.getvalue())
    frame, scan = planes[0].index(b"\xff\xc0"), planes[0].index(b"\xff\xda")
    size = planes[0][frame + 4 : frame + 9]
    three = segment(0xC0, size + b"\x03" + b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3)))
    length = 2 + int.from_bytes(planes[0][frame + 2 : frame + 4], "big")
    head = planes[0][:frame] + three + planes[0][frame + length : scan]
    return head, [
        segment(0xDA, bytes([1, number, 0, 0, 63, 0])) + data[data.index(b"\xff\xda") + 10 : -2]
        for number, data in enumerate(planes, 1)
    ]


def test_a_file_of_several_scans_needs_its_end_marker(tmp_path: Path) -> None:
    head, scans = scans_one_by_one()
    assert code_of(tmp_path / "p.jpg", head + b"".join(scans) + END) == ""
    for count in (1, 2, 3):
        assert code_of(tmp_path / "p.jpg", head + b"".join(scans[:count])) == "truncated_picture"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE2, b"ICC_PROFILE\0"), (0xE2, b"ICC_PROFILE\0\x01\x02half of it"), (0xE2, b"ICC_PROFILE\0\0\0"),
        (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"), (0xE1, b"Exif\0\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0<<<"),
        (0xED, b"Photoshop 3.0\x008BIM\x04"), (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
        (0xE2, b"MPF\0nothing"), (0xEC, b""), (0xFE, b""), (0xE0, b"JFXX"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("warnings_are_notes")
def test_damaged_metadata_loses_no_picture(tmp_path: Path, marker: int, body: bytes) -> None:
    data = jpeg()
    for at in (2, 20):
        (tmp_path / "p.jpg").write_bytes(data[:at] + segment(marker, body) + data[at:])
        assert header_size(tmp_path / "p.jpg") == (240, 320)
        got = np.asarray(load_picture(tmp_path / "p.jpg").image)
        assert np.array_equal(got, np.asarray(Image.open(io.BytesIO(data))))


def test_the_orientation_stays_where_other_metadata_is_damaged(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(exif=exif)
    (tmp_path / "p.jpg").write_bytes(data[:2] + segment(0xE2, b"ICC_PROFILE\0") + data[2:])
    assert header_size(tmp_path / "p.jpg") == (320, 240)
    assert load_picture(tmp_path / "p.jpg").notes == ("damaged metadata left out", "EXIF orientation 6 applied")


def test_jpeg_inside_tiff(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "p.tif", compression="jpeg", quality=95)
    data = bytearray((tmp_path / "p.tif").read_bytes())
    last = data.rindex(b"\xff\xda")
    data[last + 500 : last + 502] = END
    set_catching(True)
    try:
        assert code_of(tmp_path / "p.tif", bytes(data)) == "truncated_picture"
    finally:
        set_catching(False)
