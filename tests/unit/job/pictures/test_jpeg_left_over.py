"""JPEG that went through a transfer as text, and data that is left over in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.jpeg_left_over import damage_of, of_pixels

OPTIONS: list[dict[str, Any]] = [
    {}, {"progressive": True}, {"restart_marker_blocks": 4}, {"progressive": True, "restart_marker_blocks": 4},
    {"subsampling": 0, "quality": 97}, {"optimize": True},
]  # fmt: skip
CHANGES = {
    "LF to CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR to CRLF": lambda data: data.replace(b"\r", b"\r\n"),
    "CR to LF": lambda data: data.replace(b"\r", b"\n"),
    "without CR": lambda data: data.replace(b"\r", b""),
}


def photo(seed: int, **options: Any) -> bytes:
    dice = np.random.default_rng(seed)
    rough = Image.fromarray(dice.integers(0, 256, (40, 50, 3), dtype=np.uint8)).resize((400, 320))
    grain = np.asarray(rough).astype(int) + dice.integers(-8, 9, (320, 400, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


def told(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        return "; ".join(load_picture(path).notes)
    except ItemError as error:
        return error.code


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("change", ["LF to CRLF", "CR to LF", "without CR"])
def test_a_transfer_as_text_damages_a_picture(tmp_path: Path, options: dict[str, Any], change: str) -> None:
    for seed in range(3):
        data = photo(seed, **options)
        assert told(tmp_path / "p.jpg", data) == ""
        assert told(tmp_path / "p.jpg", CHANGES[change](data)) in ("truncated_picture", "unreadable_picture")


@pytest.mark.parametrize("change", ["LF to CRLF", "CR to CRLF", "CR to LF"])
def test_the_reason_names_the_transfer(tmp_path: Path, change: str) -> None:
    (tmp_path / "p.jpg").write_bytes(CHANGES[change](photo(0)))
    with pytest.raises(ItemError, match=r"its data is damaged: it was transferred as text: .* \(libjpeg says: "):
        load_picture(tmp_path / "p.jpg")


def test_data_inside_a_scan_and_between_scans(tmp_path: Path) -> None:
    restarts = photo(1, restart_marker_blocks=4)
    place = restarts.index(b"\xff\xd3", restarts.index(b"\xff\xda"))
    scans = photo(1, progressive=True)
    second = scans.index(b"\xff\xda", scans.index(b"\xff\xda") + 2)
    table = scans.rindex(b"\xff\xc4", 0, second)
    for data, at, where in ((restarts, place, "inside"), (scans, table, "behind")):
        (tmp_path / "p.jpg").write_bytes(data[:at] + b"junk" + data[at:])
        with pytest.raises(ItemError, match=f"its data is damaged: data is left over {where} a scan"):
            load_picture(tmp_path / "p.jpg")


def test_gaps_of_the_header_are_harmless(tmp_path: Path) -> None:
    data = photo(2)
    for mark in (b"\xff\xdb", b"\xff\xc4", b"\xff\xda"):
        at = data.index(mark)
        assert "extraneous bytes before marker" in told(tmp_path / "p.jpg", data[:at] + b"gap\xff" + data[at:])


def test_a_gap_of_the_header_hides_no_damage(tmp_path: Path) -> None:
    data = photo(2)
    at = data.index(b"\xff\xc4")
    damaged = data[:at] + b"gap" + data[at:]
    assert told(tmp_path / "p.jpg", damaged[: len(data) // 2] + b"\xff\xd9") == "truncated_picture"
    damaged = bytearray(photo(2, restart_marker_blocks=4))
    at = damaged.index(b"\xff\xc4")
    place = damaged.index(b"\xff\xd2", damaged.index(b"\xff\xda"))
    damaged[place:place] = b"junk"
    damaged[at:at] = b"gap"
    assert told(tmp_path / "p.jpg", bytes(damaged)) == "unreadable_picture"


def test_filling_before_the_end_of_a_small_picture_is_no_transfer(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "JPEG")
    data = file.getvalue().replace(b"\r", b"\x0e")
    for filling in (bytes(9000), b"\0\xff\0" * 3000):
        assert "extraneous bytes" in told(tmp_path / "p.jpg", data[:-2] + filling + b"\xff\xd9")


def test_other_warnings_are_not_its_business() -> None:
    warning = "Corrupt JPEG data: bad Huffman code"
    assert of_pixels(b"data", warning, str) == (b"data", warning)
    assert damage_of(b"data", warning) is None


@pytest.mark.parametrize("length", [3, 4, 11, 20])
def test_a_header_that_is_cut_is_told_in_plain_words(tmp_path: Path, length: int) -> None:
    (tmp_path / "p.jpg").write_bytes(photo(0)[:length])
    with pytest.raises(ItemError) as caught:
        load_picture(tmp_path / "p.jpg")
    assert "driver" not in str(caught.value)
    assert caught.value.code in ("truncated_picture", "unreadable_picture")
