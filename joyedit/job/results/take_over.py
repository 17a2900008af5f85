"""Moves a picture from one output folder to another: it is in its new place before it leaves the old one.

On one file system the picture gets a second name, elsewhere a copy; its record follows, and only then the first name
goes. So a kill at any instant leaves the picture in one place or in both, and the same command ends it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Literal

from joyedit.job.hashing import sha256_of
from joyedit.job.own_files import TEMPORARY_SUFFIX
from joyedit.job.results.output_folder import NO_HARD_LINKS, OutputFolder, parts_of, put
from joyedit.job.results.safe_open import take_group

Place = Literal["placed", "gone", "taken"]
"""`placed`: the target has the picture. `gone`: the source has none. `taken`: another file stands in the target."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINK_TO = NO_HARD_LINKS | {errno.EXDEV}


def place(source: OutputFolder, target: OutputFolder, relative: str, may_replace: Callable[[], bool]) -> Place:
    """Give `target` the picture `relative` of `source`, which keeps it for now. The folder is not flushed yet.

    A file that is there already stays, unless it has the same content or `may_replace` says so. Raises `ItemError` for
    a name that cannot be, `OutputError` where the target cannot be written.
    """
    parts = parts_of(relative)
    with ExitStack() as stack:
        try:
            old = stack.enter_context(source.parent(parts, relative, create=False))
            if not stat.S_ISREG(os.stat(parts[-1], dir_fd=old, follow_symlinks=False).st_mode):
                return "gone"
        except (FileNotFoundError, NotADirectoryError):
            return "gone"
        except OSError as error:
            raise source.typed(error, relative) from error
        try:
            new = stack.enter_context(target.parent(parts, relative))
            return _place(old, new, parts[-1], may_replace)
        except OSError as error:
            raise target.typed(error, relative) from error


def flush(target: OutputFolder, relative: str) -> None:
    """Flush the folder of this picture. Raises `OutputError`."""
    try:
        with target.parent(parts_of(relative), relative, create=False) as folder:
            target.sync(folder)
    except OSError as error:
        raise target.typed(error, relative) from error


def _place(old: int, new: int, name: str, may_replace: Callable[[], bool]) -> Place:
    try:
        os.link(name, name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)
        return "placed"
    except FileExistsError:
        if _are_one(old, new, name):
            return "placed"
        if not may_replace():
            return "taken"
    except OSError as error:
        if error.errno not in _NO_LINK_TO:
            raise
        if _are_one(old, new, name):
            return "placed"
    temporary = f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        _copy(old, new, name, temporary)
        put(new, temporary, name, may_replace)
    except FileExistsError:
        return "taken"
    finally:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=new)
    return "placed"


def _copy(old: int, new: int, name: str, temporary: str) -> None:
    """A complete copy of its own, on the disk."""
    with open(os.open(name, _READ, dir_fd=old), "rb") as given:
        handle = os.open(temporary, _NEW, 0o666, dir_fd=new)
        with open(handle, "wb") as made:
            take_group(handle, new)
            shutil.copyfileobj(given, made, 1 << 20)
            made.flush()
            os.fsync(handle)


def _are_one(old: int, new: int, name: str) -> bool:
    """Whether the two folders have the same file under this name, or two plain files of one content."""
    sums = []
    for folder in (old, new):
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return False
            sums.append((status.st_dev, status.st_ino, status.st_size))
        except FileNotFoundError:
            return False
    if sums[0][:2] == sums[1][:2] or sums[0][2] != sums[1][2]:
        return sums[0][:2] == sums[1][:2]
    hashes = []
    for folder in (old, new):
        with open(os.open(name, _READ, dir_fd=folder), "rb", buffering=0) as file:
            hashes.append(sha256_of(file))
    return hashes[0] == hashes[1]
