"""The output folder: names that stay inside it, and files that are complete or do not exist.

joyedit writes a file under a temporary name in its final folder, flushes it to the disk, renames it, and
flushes the folder. So every file with a final name is complete, even after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from joyedit.errors import ItemError, OutputError, UsageError, os_reason
from joyedit.job import failpoints

TEMPORARY_SUFFIX = ".joyedit-tmp"
"""How the name of every unfinished file ends."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX))

# Errors that concern one name. Every other OSError (no space, quota, read-only, input/output) concerns the folder.
_NAME_ERRORS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.EINVAL,
        errno.EILSEQ,
    }
)


class OutputFolder:
    """One run's output folder. All methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root: Path | None = None  # set by prepare()
        self._known: set[Path] = set()  # parent folders that exist and lie inside
        self._lock = threading.Lock()

    def check(self) -> None:
        """Refuse a folder that could not work later. Creates nothing.

        Raises `UsageError` if the path is no folder, `OutputError` if it cannot be written.
        """
        nearest = self.path
        while not nearest.exists() and not nearest.is_symlink() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise UsageError(f"the output {self.path} cannot be a folder: {nearest} is no folder (change --output)")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise OutputError(f"the output folder {self.path} cannot be written: no permission on {nearest}")

    def prepare(self) -> None:
        """Create the folder if it is missing. Raises `OutputError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._root = self.path.resolve(strict=True)
        except OSError as error:
            raise OutputError(f"cannot create the output folder {self.path}: {os_reason(error)}") from error
        self._known.clear()

    def resolve(self, relative: str) -> Path:
        """The path of `relative` (`/` between its parts). Creates its parent folders.

        Raises `ItemError("output_outside")` if the name leads out of the folder, also through a symbolic
        link, `ItemError("output_name")` if the file system refuses the name, and `OutputError` if the
        folder itself cannot be written.
        """
        if self._root is None:
            raise RuntimeError("prepare() comes first")
        name = PurePosixPath(relative)
        if not name.parts or name.is_absolute() or ".." in name.parts or "\0" in relative:
            raise ItemError("output_outside", f"the output name {relative!r} leads out of the output folder")
        target = self._root.joinpath(*name.parts)
        try:
            self._make_parent(target.parent, relative)
            if target.is_dir():
                raise ItemError("output_name", f"the output name {relative!r} is already a folder")
        except OSError as error:
            raise self._typed(error, relative) from error
        return target

    def write(self, relative: str, fill: Callable[[BinaryIO], None]) -> Path:
        """Write one complete file: `fill` gets the open temporary file. Returns the final path.

        Errors as in `resolve`, and `ItemError("write_failed")` if Pillow refuses. Other errors of `fill` pass
        through. After an error there is no file.
        """
        target = self.resolve(relative)
        # A name of its own: the item's name may have 255 bytes, which leaves no room for a suffix.
        temporary = target.parent / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        try:
            try:
                with open(temporary, "xb") as file:
                    failpoints.reached("file.create")
                    fill(file)
                    file.flush()
                    failpoints.reached("file.fsync")
                    os.fsync(file.fileno())
                    failpoints.reached("file.synced")
                failpoints.reached("file.rename")
                os.replace(temporary, target)
                failpoints.reached("file.renamed")
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            failpoints.reached("file.folder")
            sync_folder(target.parent)
            failpoints.reached("file.done")
        except OSError as error:
            raise self._typed(error, relative) from error
        return target

    def write_bytes(self, relative: str, data: bytes | memoryview) -> Path:
        """Write one complete file. Errors as in `write`."""

        def fill(file: BinaryIO) -> None:
            rest = memoryview(data)
            if failpoints.armed():
                file.write(rest[: len(rest) // 2])
                file.flush()
                failpoints.reached("file.half")
                rest = rest[len(rest) // 2 :]
            file.write(rest)

        return self.write(relative, fill)

    def write_text(self, relative: str, text: str) -> Path:
        """Write one complete text file in UTF-8. Errors as in `write`."""
        return self.write_bytes(relative, text.encode("utf-8", "backslashreplace"))

    def clean(self) -> int:
        """Remove the unfinished files that a killed run left behind. Returns their number.

        Call it only with the lock held: another run's files look the same. Raises `OutputError`.
        """
        count = 0
        try:
            for folder, _, names in os.walk(self.path):
                for name in names:
                    if is_temporary(name):
                        os.unlink(os.path.join(folder, name))
                        count += 1
        except OSError as error:
            raise OutputError(f"cannot clean {self.path}: {os_reason(error)}") from error
        return count

    def _make_parent(self, parent: Path, relative: str) -> None:
        with self._lock:
            if parent in self._known:
                return
            assert self._root is not None
            # Check the deepest folder that exists first: nothing may be created behind a link in it.
            existing = parent
            while not existing.exists():
                existing = existing.parent
            if not existing.resolve().is_relative_to(self._root):
                raise ItemError(
                    "output_outside", f"the output name {relative!r} leads out of the output folder by a link"
                )
            parent.mkdir(parents=True, exist_ok=True)
            if existing != parent:
                sync_folder(existing)
            if len(self._known) < 10_000:  # joyedit checks further folders each time
                self._known.add(parent)

    def _typed(self, error: OSError, relative: str) -> ItemError | OutputError:
        if error.errno is None:  # Pillow raises its own errors as OSError without a number
            return ItemError("write_failed", f"cannot write {relative!r}: {error}")
        if error.errno in _NAME_ERRORS:
            return ItemError("output_name", f"cannot write {relative!r}: {os_reason(error)}")
        return OutputError(f"cannot write {relative!r} in {self.path}: {os_reason(error)}")


def is_temporary(name: str) -> bool:
    """Whether this is the name of an unfinished file of joyedit."""
    return _TEMPORARY.fullmatch(name) is not None


def sync_folder(path: Path) -> None:
    """Flush the entries of a folder to the disk, if the system can."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without such a flush
            raise
    finally:
        os.close(handle)
