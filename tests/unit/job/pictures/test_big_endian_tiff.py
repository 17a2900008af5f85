"""BigTIFF with the highest byte first."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures import big_endian_tiff
from joyedit.job.pictures.big_endian_tiff import as_plain_tiff
from joyedit.job.pictures.decode import header_size, load_picture
from support.tiff import tiff

DICE = np.random.default_rng(1)


def big(*pages: np.ndarray, **options: object) -> bytes:  # type: ignore[type-arg]
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=True, byteorder=">") as writer:
        for page in pages:
            writer.write(page, metadata=None, **options)  # type: ignore[arg-type]
    return file.getvalue()


RGB = DICE.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ItemError) as error:
        load_picture(path)
    return f"{error.value.code}: {str(error.value).removeprefix(f'{path}: ')}"


@pytest.mark.parametrize("compression", [None, "lzw", "packbits", "zlib", "jpeg"])
def test_every_compression(tmp_path: Path, compression: str | None) -> None:
    smooth = np.asarray(Image.linear_gradient("L").resize((32, 24)).convert("RGB"))
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "TIFF", big_tiff=False, compression={
        None: "raw", "lzw": "tiff_lzw", "packbits": "packbits", "zlib": "tiff_adobe_deflate", "jpeg": "jpeg",
    }[compression])  # fmt: skip
    (tmp_path / "p.tif").write_bytes(of_plain(file.getvalue()))
    assert header_size(tmp_path / "p.tif") == (24, 32)
    with Image.open(io.BytesIO(file.getvalue())) as plain:
        assert np.array_equal(np.asarray(load_picture(tmp_path / "p.tif").image), np.asarray(plain.convert("RGB")))


def of_plain(data: bytes) -> bytes:
    """A plain TIFF with the lowest byte first (bytes of samples only) as a BigTIFF with the highest byte first."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    letters = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 7: "c"}
    directory, more = struct.pack(">Q", count), b""
    begin = 16 + len(data)
    behind = begin + 8 + 20 * count + 8
    for number in range(count):
        tag, kind, values = struct.unpack_from("<HHI", data, start + 2 + 12 * number)
        place = start + 2 + 12 * number + 8
        size = struct.calcsize("<" + letters[kind]) * values
        if size > 4:
            (place,) = struct.unpack_from("<I", data, place)
        form = letters[kind] * values
        found = struct.unpack_from("<" + form, data, place)
        if tag == 273:  # where the strips lie
            found = tuple(value + 16 for value in found)
        body = struct.pack(">" + form, *found)
        if len(body) > 8:
            body, more = struct.pack(">Q", behind + len(more)), more + body
        directory += struct.pack(">HHQ", tag, kind, values) + body.ljust(8, b"\0")
    return b"MM" + struct.pack(">HHHQ", 43, 8, 0, begin) + data + directory + bytes(8) + more


def test_pages(tmp_path: Path) -> None:
    (tmp_path / "p.tif").write_bytes(big(RGB, 255 - RGB, photometric="rgb"))
    picture = load_picture(tmp_path / "p.tif")
    assert np.array_equal(np.asarray(picture.image), RGB)
    assert picture.notes == ("only the first of 2 pages is used",)


def test_a_profile(tmp_path: Path) -> None:
    (tmp_path / "p.tif").write_bytes(big(RGB, photometric="rgb", iccprofile=b"x" * 300))
    [note] = load_picture(tmp_path / "p.tif").notes
    assert note.startswith("colour profile ignored")


def test_a_page_that_is_cut_costs_only_itself(tmp_path: Path) -> None:
    data = bytearray(big(RGB, photometric="rgb"))
    (start,) = struct.unpack_from(">Q", data, 8)
    (count,) = struct.unpack_from(">Q", data, start)
    for target in (len(data) - 4, 1 << 40, start):
        struct.pack_into(">Q", data, start + 8 + 20 * count, target)
        (tmp_path / "p.tif").write_bytes(data)
        assert np.array_equal(np.asarray(load_picture(tmp_path / "p.tif").image), RGB)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"MM\0+", "a directory of the file is truncated"),
        (b"MM" + struct.pack(">HHHQ", 43, 8, 0, 0) + bytes(99), "its first directory is not there"),
        (b"MM" + struct.pack(">HHHQ", 43, 8, 0, 1 << 50), "a directory of the file is truncated"),
        (b"MM" + struct.pack(">HHHQ", 43, 8, 0, 16) + struct.pack(">Q", 1 << 50), "its directory makes no sense"),
        (tiff((256, 4, 1, 8 << 32), (273, 16, 1, 1 << 40), order=">", big=True),
         "an offset of the file leads behind its end"),
    ],
)  # fmt: skip
def test_what_is_broken(tmp_path: Path, data: bytes, reason: str) -> None:
    assert refused(tmp_path / "p.tif", data) in (f"truncated_picture: {reason}", f"unreadable_picture: {reason}")


def test_what_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(io.BytesIO):
        def seek(self, place: int, whence: int = 0) -> int:
            return super().seek(place, whence) if whence == 0 else 1 << 31

    with pytest.raises(ValueError, match="more than 2 GiB cannot be read"):
        as_plain_tiff(Long(b"MM\0+"))


def test_the_view_reads_like_a_file() -> None:
    data = big(RGB, photometric="rgb")
    view = as_plain_tiff(io.BytesIO(data))
    whole = view.read()
    assert whole[:4] == b"MM\0*"
    assert whole[8 : len(data)] == data[8:]
    for place, length in (
        (0, 4),
        (4, 20),
        (len(data) - 3, 9),
        (len(data) + 2, 5),
        (len(whole) - 2, 10),
        (len(whole), 1),
    ):
        view.seek(place)
        assert view.read(length) == whole[place : place + length]
    assert view.seek(-3, 2) == len(whole) - 3
    assert view.seek(1, 1) == len(whole) - 2 == view.tell()


def test_tags_without_end_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(big_endian_tiff, "MOST_PIECES", 3)
    (tmp_path / "p.tif").write_bytes(big(RGB, photometric="rgb", rowsperstrip=1))
    with pytest.raises(ItemError):
        load_picture(tmp_path / "p.tif")
