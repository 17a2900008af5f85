"""Files here, and files behind a URL (`hf://datasets/...`), by the same few calls.

What lies behind a URL is read with fsspec: only the parts that are asked for are fetched, and nothing is stored on the
disk.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from joyedit.errors import UsageError
from joyedit.job.contained import is_url
from joyedit.job.spec import Stamp

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_BLOCK = 1 << 20
_NEEDS = 'needs an extra: pip install "joyedit[datasets]"'
_HIDDEN = (".", "_")


def open_file(path: str) -> BinaryIO:
    """The file as an open binary stream that can seek. Raises OSError, also for what is no file."""
    if is_url(path):
        file_system, inner = _remote(path)
        with remote_errors():
            return cast("BinaryIO", file_system.open(inner, "rb", block_size=_BLOCK, cache_type="readahead"))
    handle = os.open(path, _READ)  # waits for no pipe
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no file")
    return open(handle, "rb")


def stamp_of(path: str) -> Stamp:
    """Bytes and times of the file. Of a remote file, a number of what the server says of its content is the time.

    Raises OSError.
    """
    if not is_url(path):
        return Stamp.of(os.stat(path))
    file_system, inner = _remote(path)
    with remote_errors():
        told = file_system.info(inner)
    keys = ("blob_id", "etag", "ETag", "mtime", "created", "last_modified")
    mark = "".join(str(told[key]) for key in keys if told.get(key) is not None)
    number = int.from_bytes(mark.encode()[-7:], "big") if mark else 0
    return Stamp(int(told.get("size") or 0), number, 0)


def is_folder(path: str) -> bool:
    """Whether a folder is there. Raises OSError for a server that does not answer."""
    if not is_url(path):
        return os.path.isdir(path)
    file_system, inner = _remote(path)
    with remote_errors():
        return bool(file_system.isdir(inner))


def is_file(path: str) -> bool:
    """Whether a file is there. Raises OSError for a server that does not answer."""
    if not is_url(path):
        return os.path.isfile(path)
    file_system, inner = _remote(path)
    with remote_errors():
        return bool(file_system.isfile(inner))


def files_below(folder: str, *, deepest: int = 8) -> Iterator[str]:
    """The paths of all files below a folder, in order, relative to it and with `/`; no hidden ones and no links to
    folders.
    """
    if is_url(folder):
        file_system, inner = _remote(folder)
        with remote_errors():
            found = sorted(file_system.find(inner))
        below = inner.rstrip("/") + "/"
        names = (path[len(below) :] for path in found if path.startswith(below))
        yield from (name for name in names if not any(part.startswith(_HIDDEN) for part in name.split("/")))
        return
    for place, folders, files in os.walk(folder):
        parts = os.path.relpath(place, folder).split(os.sep)
        folders[:] = sorted(one for one in folders if not one.startswith(_HIDDEN)) if len(parts) < deepest else []
        prefix = "" if parts == [os.curdir] else "/".join(parts) + "/"
        yield from (prefix + name for name in sorted(files) if not name.startswith(_HIDDEN))


def joined(folder: str, name: str) -> str:
    """The path of a file in a folder, here or behind a URL."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


def absolute(path: str) -> str:
    """The absolute path; a URL is one."""
    return path if is_url(path) else os.path.abspath(path)


@contextmanager
def remote_errors() -> Iterator[None]:
    """Whatever a remote file system raises becomes an OSError: clients of servers raise nearly everything."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


_systems: dict[str, Any] = {}
_lock = threading.Lock()


def _remote(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there. Raises UsageError where what reads it is not installed."""
    scheme = url.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{url}: a remote file {_NEEDS}") from error
    with _lock:
        known = _systems.get(scheme)
        if known is None:
            try:
                known = _systems[scheme] = fsspec.filesystem(scheme)
            except (ImportError, ValueError) as error:
                raise UsageError(f"{url}: no installed package reads {scheme}:// ({error})") from error
    return known, str(known._strip_protocol(url))
