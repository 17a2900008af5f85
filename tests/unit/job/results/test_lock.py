"""One run at a time: the lock holds while its process does, and names it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from joyedit.errors import OutputError
from joyedit.job.own_files import LOCK
from joyedit.job.results import lock as module
from joyedit.job.results.lock import OutputLock, holder, holder_text


def test_the_second_is_told_who_was_first(tmp_path: Path) -> None:
    with OutputLock(tmp_path) as first:
        first.acquire()
        first.acquire()
        with pytest.raises(OutputError, match=rf"process {os.getpid()} of \S+ on {socket.gethostname()}, since "):
            OutputLock(tmp_path).acquire()
        who = holder(tmp_path)
        assert who is not None
        assert who["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []
    assert holder(tmp_path) is None
    with OutputLock(tmp_path) as again:
        again.acquire()


def test_a_lock_file_that_was_left_behind_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"pid": 1, "host": "gone", "since": "then"}' * 10)
    assert holder(tmp_path) is None
    with OutputLock(tmp_path) as lock:
        lock.acquire()
        assert (holder(tmp_path) or {})["pid"] == os.getpid()


def test_a_lock_file_that_its_holder_removed_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before the removal and locked after it, the file would be a lock that nobody else sees."""
    flock, tries = module.fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not tries:
            os.unlink(tmp_path / LOCK)
        tries.append(how)
        flock(handle, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with OutputLock(tmp_path) as lock:
        lock.acquire()
        assert len(tries) == 2
        assert (tmp_path / LOCK).exists()


def test_a_file_system_without_locks_is_told_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", none)
    with OutputLock(tmp_path) as lock:
        lock.acquire()
        assert lock.note is not None
        assert "no locks" in lock.note
    assert holder(tmp_path) is None


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot lock the output folder"):
        OutputLock(tmp_path / "gone").acquire()
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="cannot lock the output folder"):
        OutputLock(tmp_path).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_holder_without_a_name(tmp_path: Path) -> None:
    assert holder_text({}) == "a process that has not written its name yet"


def test_a_folder_that_was_made_anew_is_locked_anew(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with OutputLock(tmp_path / "out") as lock:
        lock.acquire()
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").mkdir()
        lock.acquire()
        assert holder(tmp_path / "out") is not None
