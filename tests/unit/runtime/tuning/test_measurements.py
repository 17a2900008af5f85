"""The small files in which measurements are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from joyedit.runtime.tuning.measurements import Measurements, cache_folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_measured_is_remembered(folder: Path) -> None:
    assert Measurements("sizes.json").get("a") is None
    Measurements("sizes.json").put("a", 4)
    Measurements("sizes.json").put("b", {"x": 1.5})
    assert [Measurements("sizes.json").get(key) for key in "abc"] == [4, {"x": 1.5}, None]
    assert [path.name for path in folder.iterdir()] == ["sizes.json"]


@pytest.mark.parametrize("content", ["", "[]", "no json", "\x00"])
def test_a_damaged_file_is_written_anew(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "sizes.json").write_text(content)
    assert Measurements("sizes.json").get("a") is None
    Measurements("sizes.json").put("a", 2)
    assert Measurements("sizes.json").get("a") == 2


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / "file" / "below"))
    Measurements("sizes.json").put("a", 2)
    assert Measurements("sizes.json").get("a") is None


@pytest.mark.parametrize(
    ("own", "xdg", "expected"), [("/own", "/xdg", "/own"), ("", "/xdg", "/xdg/joyedit"), ("", "", "~/.cache/joyedit")]
)
def test_where_things_are_kept(own: str, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("JOYEDIT_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert cache_folder() == Path(expected).expanduser()
