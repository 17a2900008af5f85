"""What is done when somebody removes, replaces or cuts results.jsonl, or moves its folder, while a run is going on.

The run stops, and everything that it knows goes into results.rescued.jsonl: the records of earlier runs as far as
they can still be read, then the records of this run, from a copy that has no name and that nobody else can reach.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from joyedit.errors import OutputError
from joyedit.job.own_files import RESCUED, RESULTS, TEMPORARY_SUFFIX
from joyedit.job.results.safe_open import open_own, own_folder

Difference = Literal["removed", "replaced", "cut", "written to", "moved"]
_BLOCK = 1 << 20


class Copy:
    """The records of this run once more, in a file without a name in the same folder. It never raises OSError."""

    def __init__(self, folder: int) -> None:
        self._handle: int | None = None  # None: there is no copy, or no whole one
        with suppress(OSError):  # a full disk: the journal itself will say so
            name = f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
            self._handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            os.unlink(name, dir_fd=folder)

    def write(self, data: memoryview) -> None:
        """Add one line. If there is no room, the copy ends here."""
        while data and self._handle is not None:
            try:
                data = data[os.write(self._handle, data) :]
            except OSError:
                self.close()

    def handle(self) -> int | None:
        """The file; None if there is no copy."""
        return self._handle

    def close(self) -> None:
        """Gives the room back. A second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def difference(path: Path, folder: int, journal: int, length: int) -> Difference | None:
    """How the journal at `path` differs from the open one, of `length` bytes; None if it does not.

    `folder` and `journal` are the handles of the folder and the file as they were opened.
    """
    opened = os.fstat(journal)
    try:
        named = os.stat(RESULTS, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return "removed"
    if not os.path.samestat(opened, named):
        return "replaced"
    if opened.st_size != length:
        return "cut" if opened.st_size < length else "written to"
    try:
        return None if os.path.samestat(os.fstat(folder), os.stat(path.parent)) else "moved"
    except OSError:
        return "moved"


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal as it was opened: handles of its folder and of the file, its length then and now, and the copy."""

    folder: int
    journal: int
    start: int
    end: int
    copy: Copy


def rescue(found: Difference, path: Path, opened: Opened) -> OutputError:
    """Write the rescue file if records could be lost; gives the error that stops the run."""
    folder = opened.folder
    here = _place(folder, path.parent)
    if found == "moved":
        return OutputError(
            f"the output folder {path.parent} was moved or replaced during the run: "
            f"everything that the run finished is in {here}"
        )
    if found == "written to":
        return OutputError(
            f"{path}: another program wrote to this file during the run: nothing is lost; "
            "make sure that only joyedit writes to it, and run the same command again"
        )
    saved = _save(path, opened)
    if saved is None:
        return OutputError(f"{path}: this file was {found} during the run, and its records cannot be saved elsewhere")
    if os.fstat(opened.journal).st_size == opened.end:
        what = "all records are"
    elif opened.copy.handle() is not None:
        what = "the records of this run, and what is left of earlier ones, are"
    else:
        what = "the records that are left are"
    return OutputError(
        f"{path}: this file was {found} during the run: {what} in {saved} "
        f"(put that file in its place, and run the same command again)"
    )


def _save(path: Path, opened: Opened) -> Path | None:
    """Save in the folder as it was opened, else in the one that has its name now, else among temporary files."""
    with suppress(OSError, OutputError):
        _write(opened.folder, opened)
        return _place(opened.folder, path.parent) / RESCUED
    for other in (path.parent, Path(tempfile.gettempdir())):
        with suppress(OSError, OutputError), own_folder(other) as handle:
            _write(handle, opened)
            return other / RESCUED
    return None


def _write(folder: int, opened: Opened) -> None:
    is_whole = os.fstat(opened.journal).st_size == opened.end
    with open(open_own(folder, RESCUED, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
        last = _append(file, opened.journal, opened.end if is_whole else opened.start)
        copy = opened.copy.handle()
        if not is_whole and copy is not None:
            if last not in (b"", b"\n"):  # the cut went through a record
                file.write(b"\n")
            _append(file, copy, opened.end - opened.start)
        file.flush()
        os.fsync(file.fileno())


def _append(file: BinaryIO, handle: int, length: int) -> bytes:
    """Append the first `length` bytes of the file with this handle; gives the last byte."""
    offset, last = 0, b""
    while data := os.pread(handle, min(_BLOCK, length - offset), offset):
        file.write(data)
        offset, last = offset + len(data), data[-1:]
    return last


def _place(folder: int, path: Path) -> Path:
    """Where the folder with this handle lies now; `path` if the system does not say."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{folder}"))
    except OSError:
        return path
