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


@pytest.mark.parametrize("removable", [True, False])
def test_a_lock_that_may_only_be_read_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removable: bool
) -> None:
    """A colleague's killed run left it behind. It makes room for a lock of our own, where the folder allows that."""
    (tmp_path / LOCK).write_text('{"pid": 1}')
    open_file, remove = os.open, os.unlink

    def may_read(path: object, flags: int, *more: int, **folders: int) -> int:
        if path == tmp_path / LOCK and flags & os.O_RDWR and (tmp_path / LOCK).exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, flags, *more, **folders)  # type: ignore[arg-type]

    def may_not_remove(path: object, **folders: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "open", may_read)
    if not removable:
        monkeypatch.setattr(os, "unlink", may_not_remove)
    lock = OutputLock(tmp_path)
    lock.acquire()
    assert holder(tmp_path) is not None
    monkeypatch.setattr(os, "unlink", remove)
    lock.release()
    assert holder(tmp_path) is None


@pytest.mark.parametrize("kind", ["fifo", "hard link"])
def test_a_lock_file_is_a_plain_file_of_its_own(tmp_path: Path, kind: str) -> None:
    (tmp_path / "mine").write_text("mine")
    if kind == "fifo":
        os.mkfifo(tmp_path / LOCK)
    else:
        os.link(tmp_path / "mine", tmp_path / LOCK)
    with pytest.raises(OutputError, match="not a plain file"):
        OutputLock(tmp_path).acquire()
    assert holder(tmp_path) is None
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_words_for_a_holder() -> None:
    assert holder_text({}) == "a process that has not written its name yet"
    assert holder_text({"pid": 3, "host": "a\x1b", "since": "now"}) == "process 3 on a\\x1b, since now"
    assert holder_text({"pid": 3, "user": "x", "host": "a", "since": "now"}) == "process 3 of x on a, since now"
