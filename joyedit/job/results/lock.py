"""One run at a time in an output folder: a lock of the kernel, which ends when its process ends, in any way.

The lock file names its holder, so that a second run can say who has the lock. A run removes the file at its
end. A killed run may leave the file behind: nobody holds its lock then, and the next run removes it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from joyedit.errors import OutputError, os_reason
from joyedit.job import failpoints
from joyedit.job.clock import utc_now

try:
    import fcntl
except ImportError:  # Windows has no such lock: there joyedit cannot stop a second run
    fcntl = None  # type: ignore[assignment]

LOCK = ".joyedit.lock"
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
        if self._handle is not None or fcntl is None:
            return
        try:
            while self._handle is None:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                try:
                    self._lock(handle)
                    if self._is_current(handle):  # else its holder removed the file after it was opened here
                        self._handle = handle
                finally:
                    if self._handle != handle:
                        os.close(handle)
            failpoints.reached("lock")
            os.ftruncate(self._handle, 0)
            os.write(self._handle, json.dumps(_me()).encode())
        except OSError as error:
            self.release()
            raise OutputError(f"cannot lock the output folder: {self.path}: {os_reason(error)}") from error

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
    if fcntl is None:
        return None
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
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
    return f"process {who.get('pid')} on {who.get('host')}, since {who.get('since')}"


def _me() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}


def _read(handle: int) -> dict[str, object]:
    try:
        read = json.loads(os.pread(handle, 4096, 0))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
