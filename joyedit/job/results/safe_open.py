"""Opens joyedit's own files: plain files inside the output folder, never a link, a pipe or a device.

Whoever may write to the folder could plant a link there that leads a record or a message into another file.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from joyedit.errors import OutputError, os_reason

_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""O_NONBLOCK: to open a pipe without its other end would wait for ever."""


def open_folder(path: Path) -> int:
    """A handle of this folder. Files that are opened by it stay inside, whatever its name becomes. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_own(folder: int, name: str, flags: int) -> int:
    """Open joyedit's own file `name` in the folder with the handle `folder`; gives the file's handle.

    A new file takes its permissions from the umask and its group from the folder. Raises OSError, and `OutputError`
    if the name stands for a link, for anything but a plain file, or for a file that has other names too.
    """
    try:
        handle = os.open(name, flags | _SAFE, 0o666, dir_fd=folder)
    except OSError as error:
        kind = _kind_at(folder, name)
        if kind is None:
            raise
        raise OutputError(f"{name} in the output folder is {kind}, not a plain file: remove it") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OutputError(f"{name} in the output folder is {_kind(status.st_mode)}, not a plain file: remove it")
        if status.st_nlink > 1:
            raise OutputError(
                f"{name} in the output folder has another name too (a hard link): put a copy in its place"
            )
        if flags & os.O_CREAT and not status.st_size:
            take_group(handle, folder)
    except BaseException:
        os.close(handle)
        raise
    return handle


def take_group(handle: int, folder: int) -> None:
    """Give a new file or folder the group of its folder, where that is allowed: colleagues share the folder."""
    with suppress(OSError):
        group = os.fstat(folder).st_gid
        if os.fstat(handle).st_gid != group:
            os.fchown(handle, -1, group)


def read_own(folder: Path, name: str, limit: int) -> bytes | None:
    """The content of joyedit's own file, at most `limit` bytes; None if there is no such plain file to read."""
    with suppress(OSError, OutputError), own_folder(folder) as root:
        handle = open_own(root, name, os.O_RDONLY)
        with open(handle, "rb") as file:
            return file.read(limit)
    return None


@contextmanager
def own_folder(path: Path) -> Iterator[int]:
    """A handle of this folder while the context lasts. Raises OSError."""
    folder = open_folder(path)
    try:
        yield folder
    finally:
        os.close(folder)


def open_to_read(path: Path) -> int:
    """A handle to read the plain file at `path`; links are followed. For commands that only look.

    Raises OSError, and `OutputError` for anything but a plain file: they wait for no pipe.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        mode = os.fstat(handle).st_mode
        os.close(handle)
        raise OutputError(f"cannot read {path}: it is {_kind(mode)}, not a plain file")
    return handle


def reason_of(error: OSError, path: Path) -> str:
    """The system's own words for an error at one of joyedit's own files; whom to ask where a colleague made it."""
    reason = f"{os_reason(error)}{room_remedy(error)}"
    if not isinstance(error, PermissionError):
        return reason
    try:
        owner = os.stat(path, follow_symlinks=False).st_uid
    except OSError:
        return reason
    if owner == os.geteuid():
        return f"{reason} (change its permissions with chmod u+rw)"
    return f"{reason} (it belongs to {user_name(owner)}: ask for chmod g+rw, or choose another output folder with -o)"


def room_remedy(error: OSError) -> str:
    """What to do where the disk is full, in brackets; empty for another error."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return " (make room, then the same command goes on)" if is_full else ""


def user_name(number: int) -> str:
    """The name of a user; the number where no table of users knows it."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OSError):
        return f"the user with the number {number}"


def _kind_at(folder: int, name: str) -> str | None:
    """What stands at this name, if it is no plain file; None for a plain file or nothing."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return None
    return None if stat.S_ISREG(mode) else _kind(mode)


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
