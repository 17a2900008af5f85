"""One run at a time in an output folder: a lock of the kernel, which ends when its process ends, in any way.

The lock file names its holder, so that a second run can say who has the lock. A run removes the file at its
end. A killed run may leave the file behind: nobody holds its lock then, and the next run removes it.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import socket
import stat
from pathlib import Path
from types import TracebackType

from joyedit.errors import OutputError
from joyedit.job import failpoints
from joyedit.job.clock import utc_now
from joyedit.job.own_files import LOCK
from joyedit.job.results.safe_open import own_folder, reason_of, take_group
from joyedit.printable import printable

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})


class OutputLock:
    """The lock of one output folder, as a context; `acquire` may be called again while it is held."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.note: str | None = None
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `OutputError` with the name of the holder if another process has it.

        If the file system has no locks, the run goes on, and `note` says so.
        """
        if self._handle is not None and self._is_current(self._handle):
            return
        self.release()  # the folder was made anew meanwhile: its lock is another one
        try:
            while self._handle is None:
                handle, is_ours = self._open()
                try:
                    self._lock(handle)
                    # A file that somebody else left behind, and that cannot hold our name, makes room for our own.
                    if self._is_current(handle) and (is_ours or not self._remove()):
                        self._handle = handle  # else its holder removed the file after it was opened here
                finally:
                    if self._handle != handle:
                        os.close(handle)
            failpoints.reached("lock")
            self._write_name(self._handle)
        except OSError as error:
            self.release()
            raise OutputError(f"cannot lock the output folder: {self.path}: {reason_of(error, self.path)}") from error

    def release(self) -> None:
        """Give the lock back and remove its file. A second call does nothing."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        try:
            if self._is_current(handle):
                os.unlink(self.path)
        except OSError:  # the lock itself ends below; a file without a lock stops nobody
            return
        finally:
            os.close(handle)

    def _open(self) -> tuple[int, bool]:
        """The file, and whether it can be written. It has its folder's group: a colleague can take the lock next."""
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        is_ours = True
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except PermissionError:  # left behind by a killed run of a colleague who shares no more than that
            handle, is_ours = os.open(self.path, os.O_RDONLY | flags), False
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(handle)
            raise OutputError(f"{self.path} is not a plain file of its own: remove it")
        if not status.st_size:
            with own_folder(self.path.parent) as folder:
                take_group(handle, folder)
        return handle, is_ours

    def _remove(self) -> bool:
        try:
            os.unlink(self.path)
        except OSError:
            return False
        return True

    def _write_name(self, handle: int) -> None:
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(myself()).encode(), 0)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):  # open for reading only: the lock holds without a name
                raise

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another run writes to {self.path.parent}: {holder_text(_read(handle))}"
            raise OutputError(f"{message}; wait for it, stop it, or choose another output folder") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self.note = "the file system of the output folder has no locks: make sure that no second run writes there"

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(folder: Path) -> dict[str, object] | None:
    """Who writes to the folder now (pid, host, since); None if nobody does, or if joyedit cannot tell."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(handle)
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def holder_text(who: dict[str, object]) -> str:
    """The holder in words."""
    if not who:
        return "a process that has not written its name yet"
    user = f" of {who['user']}" if who.get("user") else ""
    return printable(f"process {who.get('pid')}{user} on {who.get('host')}, since {who.get('since')}")


def myself() -> dict[str, object]:
    """This process, as a lock names its holder: pid, user, host and since when."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # an id that no table of users knows
        user = str(os.getuid())
    return {"pid": os.getpid(), "user": user, "host": socket.gethostname(), "since": utc_now()}


def _read(handle: int) -> dict[str, object]:
    try:
        read = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
