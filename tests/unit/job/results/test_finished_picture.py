"""What stands in the place of a finished picture: the recorded bytes, another whole picture, or damage."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from joyedit.job.results.finished_picture import picture_state

ENDINGS = ("png", "jpg", "webp")


def drawn(path: Path) -> dict[str, Any]:
    """A picture at `path`; gives the part of its record that says what its file holds."""
    image = Image.effect_noise((60, 40), 80).convert("RGB")
    image.save(path)
    data = path.read_bytes()
    return {"output_bytes": len(data), "output_sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_recorded_bytes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    record = drawn(path)
    assert picture_state(str(path), record, trust=False) == "recorded"
    assert picture_state(str(path), record, trust=True) == "recorded"
    path.unlink()
    assert picture_state(str(path), record, trust=False) == "lost"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("trust", [False, True])
def test_a_picture_that_somebody_saved_anew(tmp_path: Path, ending: str, trust: bool) -> None:
    path = tmp_path / f"a.{ending}"
    record = drawn(path)
    Image.open(path).filter(ImageFilter.GaussianBlur(2)).save(path)
    assert picture_state(str(path), record, trust=trust) == "changed"


def test_a_picture_of_another_format_and_a_link_to_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    record = drawn(path)
    drawn(tmp_path / "other.webp")
    os.replace(tmp_path / "other.webp", path)
    assert picture_state(str(path), record, trust=False) == "changed"
    os.replace(path, tmp_path / "kept.png")
    path.symlink_to("kept.png")
    assert picture_state(str(path), record, trust=False) == "changed"


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_cut_and_every_flipped_byte_is_damage(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    record = drawn(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert picture_state(str(path), record, trust=True) == "lost", length
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        assert picture_state(str(path), record, trust=False) == "lost", place


@pytest.mark.parametrize("kind", ["folder", "fifo", "text", "dangling link"])
def test_what_is_no_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    record = drawn(path)
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("no picture")
    else:
        path.symlink_to("gone.png")
    assert picture_state(str(path), record, trust=False) == "lost"
