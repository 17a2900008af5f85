"""One place on an object store: what is below an address, read and written whole, with retries and plain errors.

fsspec speaks to the stores. Where a store shows an object only when it is whole, one PUT gives it its final name.
Elsewhere it is written under a temporary name, and moved.
"""

from __future__ import annotations

import errno
import inspect
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from joyedit.errors import ItemError, OutputError, UsageError, first_line
from joyedit.job.own_files import TEMPORARY_SUFFIX
from joyedit.job.results.objects.address import check_address
from joyedit.job.results.output_folder import parts_of
from joyedit.printable import printable

T = TypeVar("T")

PATIENCE = 120.0
PATIENCE_VARIABLE = "JOYEDIT_OBJECTS_PATIENCE"
"""For so many seconds an operation that fails is tried again; the variable of this name says another number."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_AT_ONCE = 16

_SHOWS_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory"})
"""Stores in which nobody sees a part of an object."""

_NO_CREDENTIALS = ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "DefaultCredentials", "TokenRetrieval")
_REFUSED = ("Forbidden", "AccessDenied", "ClientAuthentication", "RefreshError", "InvalidAccessKey", "SignatureDoes")
_FULL = ("quota", "insufficientstorage", "insufficient storage")
_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_VERSION = "?versionId="
"""s3fs takes a name only up to here: two pictures would be one object."""
_NEVER = (ValueError, TypeError, NotImplementedError, AttributeError)


class ObjectStore:
    """The objects below `address`. Names are relative to it, with `/` between their parts. Any thread may call it.

    Every method raises OutputError: at once for what waiting does not mend (no credentials, no bucket, no room), else
    when an operation has failed for `patience` seconds (None: what the environment says, or 120).
    """

    def __init__(self, address: str, *, patience: float | None = None, files: Any = None) -> None:
        """Connects to nobody yet. `files` is an open fsspec file system. Raises UsageError as `check_address`."""
        self.address = address
        self.shown = printable(address)
        self._patience = _patience() if patience is None else patience
        self._given = files
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        scheme = address.partition("://")[0]
        self._shows_whole = scheme in _SHOWS_WHOLE
        if files is None:
            check_address(address)

    @property
    def _files(self) -> Any:
        """The file system of fsspec. It keeps no listings: others write, too."""
        with self._lock:
            if self._given is not None:
                return self._given
            files = getattr(self._of_thread, "files", None)
            if files is None:
                files, is_shared = _connected(self.address)
                if is_shared:
                    self._given = files
                self._of_thread.files = files
            return files

    def _path(self, relative: str) -> str:
        """The path of an object. Raises ItemError for a name that leads out, or that the store cannot have."""
        if _VERSION in relative and self.address.startswith(("s3:", "s3a:")):
            raise self._refused(f"have {relative!r}", f"{_VERSION} begins the number of a version there")
        inner = str(self._files._strip_protocol(self.address)).rstrip("/")
        return f"{inner}/{'/'.join(parts_of(relative))}"

    def sizes(self) -> dict[str, int]:
        """The name and the bytes of every object."""

        def find() -> dict[str, int]:
            inner = str(self._files._strip_protocol(self.address)).rstrip("/") + "/"
            self._files.invalidate_cache()
            try:
                found = self._files.find(inner, detail=True)
            except FileNotFoundError:
                return {}
            return {
                path[len(inner) :]: int(told.get("size") or 0)
                for path, told in found.items()
                if path.startswith(inner) and len(path) > len(inner)
            }

        return self._tried("list the objects", find)

    def read(self, relative: str) -> bytes | None:
        """The content of an object; None if there is none."""

        def cat() -> bytes | None:
            try:
                return bytes(self._files.cat_file(self._path(relative)))
            except FileNotFoundError:
                return None

        return self._tried(f"read {relative!r}", cat)

    def read_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of objects, in the order given; None for one that is not there. Some are read at once."""
        return self._each(self.read, names)

    def remove_each(self, names: Iterable[str], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Remove objects in any order, some at once. `meanwhile` is called from time to time."""
        for _ in self._each(self.remove, names):
            meanwhile()

    @staticmethod
    def _each(do: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
        """A store answers in tens of milliseconds, and a long run has thousands of segments."""
        rest = iter(names)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="joyedit-objects") as pool:
            while some := list(islice(rest, _AT_ONCE)):
                yield from pool.map(do, some)

    def download(self, relative: str, path: Path) -> bool:
        """Write the content of an object to a file, whose folders are made. False if there is no such object.

        The file is whole, or not there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")

        def get() -> bool:
            try:
                self._files.get_file(self._path(relative), os.fspath(part))
            except FileNotFoundError:
                return False
            os.replace(part, path)
            return True

        try:
            return self._tried(f"read {relative!r}", get)
        finally:
            part.unlink(missing_ok=True)

    def write(self, relative: str, data: bytes | memoryview, *, is_new: bool = False) -> None:
        """Put an object under its name, whole or not at all. With `is_new`, raises FileExistsError for a taken name.

        Not every store can refuse a taken name in the same step; there, the moment between look and write is left.
        """
        content = bytes(data)
        tries = 0

        def put() -> None:
            nonlocal tries
            tries += 1
            try:
                self._put(self._path(relative), content, is_new)
            except FileExistsError:
                # The answer to an earlier try may have been lost on its way.
                if tries == 1 or self._files.cat_file(self._path(relative)) != content:
                    raise

        self._tried(f"write {relative!r}", put)

    def upload(self, relative: str, path: Path) -> None:
        """Put the content of a file under a name. Raises OSError for a file that cannot be read."""
        with path.open("rb"):
            pass

        def put() -> None:
            place = self._path(relative)
            if self._shows_whole:
                self._files.put_file(os.fspath(path), place)
                return
            self._through_temporary(place, lambda part: self._files.put_file(os.fspath(path), part))

        self._tried(f"write {relative!r}", put)

    def remove(self, relative: str) -> None:
        """Remove an object, if it is there."""

        def remove() -> None:
            try:
                self._files.rm_file(self._path(relative))
            except FileNotFoundError:
                return

        self._tried(f"remove {relative!r}", remove)

    def _put(self, path: str, data: bytes, is_new: bool) -> None:
        files = self._files
        if self._shows_whole:
            if is_new and "mode" in inspect.signature(getattr(files, "_pipe_file", files.pipe_file)).parameters:
                files.pipe_file(path, data, mode="create")
                return
            if is_new and files.exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            files.pipe_file(path, data)
            return
        if is_new and files.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._through_temporary(path, lambda part: files.pipe_file(part, data))

    def _through_temporary(self, path: str, fill: Callable[[str], object]) -> None:
        folder = path.rpartition("/")[0]
        part = f"{folder}/.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            fill(part)
            self._files.mv(part, path)
        except BaseException:
            if self._files.exists(part):
                self._files.rm_file(part)
            raise

    def _tried(self, what: str, do: Callable[[], T]) -> T:
        """Do it, again and again while that may help. FileExistsError passes through."""
        end = time.monotonic() + self._patience
        wait = _FIRST_WAIT
        while True:
            try:
                return do()
            except (FileExistsError, OutputError, UsageError):
                raise
            except Exception as error:
                final = self._final(what, error)
                if final is not None:
                    raise final from error
                if time.monotonic() + wait > end:
                    raise OutputError(
                        f"{self.shown}: cannot {what}: {_reason(error)} (tried for {self._patience:g} s; when the store"
                        " answers again, the same command goes on)"
                    ) from error
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _refused(self, what: str, why: str) -> ItemError:
        return ItemError("output_name", f"{self.shown}: cannot {what}: {why} (rename the picture, or give it an id)")

    def _final(self, what: str, error: Exception) -> Exception | None:
        """The error to tell where another try changes nothing; else None."""
        if isinstance(error, ItemError):
            return error
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            return self._refused(what, "the store takes no name of this length")
        told = f"{type(error).__name__} {error}"
        failed = f"{self.shown}: cannot {what}: {_reason(error)}"
        if any(name in told for name in _NO_CREDENTIALS):
            return OutputError(
                f"{self.shown}: there are no credentials for this store ({_reason(error)}): each machine needs its own,"
                " as the store's own tools take them"
            )
        if isinstance(error, PermissionError) or any(name in told for name in _REFUSED):
            return OutputError(f"{failed} (the credentials must allow to list, read, write and delete objects there)")
        if getattr(error, "errno", None) in _FULL_NUMBERS or any(name in told.lower() for name in _FULL):
            return OutputError(f"{failed} (make room, or raise the limit; the same command goes on)")
        if isinstance(error, FileNotFoundError):
            return OutputError(f"{failed} (make the bucket first, or correct the address)")
        if isinstance(error, ImportError):
            return UsageError(f"{self.shown}: {first_line(error)}")
        if isinstance(error, _NEVER):
            return OutputError(failed)
        return None


def _connected(address: str) -> tuple[Any, bool]:
    """The file system of an address, and whether all threads may use it at once.

    Some addresses name a server, as `sftp://host/folder` does. Its connection is for one thread, and takes no other
    options than those of the connection.
    """
    import fsspec

    scheme = address.partition("://")[0]
    named = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(address)
    if "host" in named:
        return fsspec.filesystem(scheme, **named), False
    return fsspec.filesystem(scheme, **named, use_listings_cache=False), True


def _reason(error: Exception) -> str:
    return first_line(getattr(error, "strerror", None) or error)


def _patience() -> float:
    try:
        return max(0.0, float(os.environ.get(PATIENCE_VARIABLE, PATIENCE)))
    except ValueError:
        return PATIENCE
