"""Disks that are full, broken or read-only: the run stops with exit code 1, and a rerun goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from durability.harness import (
    FAKE,
    Forks,
    check_after_kill,
    check_whole,
    make_manifest,
    pictures,
    records,
)
from support.figures import FIGURES

ITEMS = 12


@pytest.fixture
def place(tmp_path: Path, forks: Forks) -> Path:
    make_manifest(tmp_path, ITEMS)
    assert forks("run", "m.jsonl", *FAKE, "-o", "whole", cwd=tmp_path).code == 0
    return tmp_path


def stops_and_goes_on(forks: Forks, place: Path, *, fault: str | None = None, limit: int | None = None) -> None:
    run = ("run", "m.jsonl", *FAKE, "-o", "out", "--batch-size", "2")
    ended = forks(*run, cwd=place, fault=fault, limit=limit)
    assert ended.code == 1, ended.message
    (message,) = ended.message.splitlines()
    assert message.startswith("joyedit: error: cannot ")
    whole = pictures(place / "whole")
    check_after_kill(place / "out", whole)
    FIGURES["disk faults survived"] += 1
    before = set(records(place / "out")) if (place / "out" / "results.jsonl").exists() else set()
    assert forks(*run, cwd=place).code == 0
    check_whole(place / "out", whole, set(records(place / "whole")))
    assert before <= set(records(place / "out"))


@pytest.mark.parametrize("action", ["enospc", "eio", "erofs"])
@pytest.mark.parametrize(
    "point",
    [
        "lock:1", "journal.open:1", "journal.append:1", "journal.append:7", "journal.half:4", "journal.fsync:1",
        "file.create:1", "file.create:6", "file.half:5", "file.fsync:5", "file.rename:8", "file.folder:8",
        "any:30", "any:77",
    ],
)  # fmt: skip
def test_a_fault_of_the_disk_at_a_step(forks: Forks, place: Path, point: str, action: str) -> None:
    stops_and_goes_on(forks, place, fault=f"{point}:{action}")


@pytest.mark.parametrize("limit", [100, 1500, 3000, 5000])
def test_a_limit_on_the_length_of_files(forks: Forks, place: Path, limit: int) -> None:
    """The kernel itself refuses to write on, in the middle of a record or a picture."""
    stops_and_goes_on(forks, place, limit=limit)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("this process may not mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full(forks: Forks, tmp_path: Path, small_disk: Path) -> None:
    make_manifest(tmp_path, 60)
    run = ("run", "m.jsonl", *FAKE, "-o", "disk/out")
    assert forks("run", "m.jsonl", *FAKE, "-o", "whole", cwd=tmp_path).code == 0
    ended = forks(*run, cwd=tmp_path)
    assert ended.code == 1, ended.message
    assert "No space left on device (make room, then the same command goes on)" in ended.message
    check_after_kill(small_disk / "out", pictures(tmp_path / "whole"))
    assert forks(*run, cwd=tmp_path).code == 1  # still full: nothing is lost by trying
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert forks(*run, cwd=tmp_path).code == 0
    check_whole(small_disk / "out", pictures(tmp_path / "whole"), set(records(tmp_path / "whole")))
    FIGURES["disk faults survived"] += 2


def test_a_folder_that_may_not_be_written(forks: Forks, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    make_manifest(tmp_path, 2)
    (tmp_path / "out").mkdir(mode=0o555)
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path)
    assert ended.code == 1
    assert "cannot be written" in ended.message
