"""The small files in which measurements are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from joyedit.runtime.tuning.measurements import (
    Measurements,
    _temporary_folder,
    cache_folder,
    cache_note,
    make_cache_folder,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / "cache"))
    _temporary_folder.cache_clear()
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


@pytest.mark.parametrize(
    ("own", "xdg", "expected"), [("/own", "/xdg", "/own"), ("", "/xdg", "/xdg/joyedit"), ("", "", "~/.cache/joyedit")]
)
def test_where_things_are_kept(own: str, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("JOYEDIT_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert cache_folder() == Path(expected).expanduser()


def test_a_new_folder_is_private(folder: Path) -> None:
    before = os.umask(0)
    try:
        assert make_cache_folder() == folder
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_note() == ""


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_not_used(folder: Path, mode: int) -> None:
    """What is compiled there runs: a stranger's file must not."""
    folder.mkdir()
    (folder / "sizes.json").write_text('{"a": 1}')
    folder.chmod(mode)
    assert Measurements("sizes.json").get("a") is None
    assert cache_folder() != folder
    assert cache_note().startswith(f"no cache folder: other users may write into {folder} (run chmod go-w on it)")
    folder.chmod(0o700)
    assert Measurements("sizes.json").get("a") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_somebody_else_is_not_used(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert cache_folder() != folder
    assert "belongs to another user" in cache_note()


@pytest.mark.parametrize("wanted", ["file", "file/below", "gone\0"])
def test_a_folder_that_cannot_be_is_replaced_for_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("joyedit.runtime.tuning.measurements._wanted_folder", lambda: str(tmp_path / wanted))
    Measurements("sizes.json").put("a", 2)
    assert Measurements("sizes.json").get("a") == 2
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    assert "name another with JOYEDIT_CACHE" in cache_note()


CODE = """
import json, os, sys
from joyedit.runtime.tuning.measurements import Measurements, cache_folder, cache_note
if os.geteuid() == 0:  # the interpreter's own files may be closed to others, so everything is imported by now
    os.setgroups([]); os.setgid(12345); os.setuid(12345)
Measurements("sizes.json").put("a", 2)
print(Measurements("sizes.json").get("a"), cache_note())
print(cache_folder())
"""


@pytest.mark.parametrize("home", [None, "/nonexistent"])
def test_a_user_without_a_home_has_a_cache_for_one_run(home: str | None) -> None:
    left_out = {"HOME", "USER", "LOGNAME", "JOYEDIT_CACHE", "XDG_CACHE_HOME"}
    if os.geteuid() != 0 and home is None:
        pytest.skip("the user that runs this has a home, which is found without HOME")
    env = {key: value for key, value in os.environ.items() if key not in left_out}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {} if home is None else {"HOME": home}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, folder = done.stdout.splitlines()
    assert told.startswith("2 no cache folder: ")
    assert not Path(folder).exists()  # it goes with the process
