"""Where a page lies: one HTML file in the output folder, and a folder beside it for everything else.

A file or a folder of that name that joyedit did not make stays. Who builds a page holds a lock on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from joyedit.errors import OutputError, UsageError, os_reason
from joyedit.job.own_files import OWN_NAMES, PAGE, PAGE_FILES, PAGE_MARK, PAGE_MARK_BEGIN, is_page_folder
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.safe_open import open_own
from joyedit.job.source.names import fold, name_problem
from joyedit.printable import brief

PAGE_BEGIN = b"<!doctype html>\n<!-- made by joyedit -->\n"
"""How the HTML file of a page begins, and no file of anybody else."""

_ABOUT = PAGE_MARK_BEGIN + (
    b" for the page %s beside it: scripts, and small copies of pictures.\n"
    b"You may delete it. The next run, or joyedit view, makes it anew.\n"
)
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SUFFIX = ".html"


@dataclass(frozen=True, slots=True)
class PagePlace:
    """The names of a page below the output folder: `name` of the HTML file, `files` of the folder."""

    name: str = PAGE
    files: str = PAGE_FILES

    @classmethod
    def named(cls, name: str) -> PagePlace:
        """The place of a page of this name. Raises UsageError for a name that cannot be one."""
        if name == PAGE:
            return cls()
        problem = name_problem(name)
        if problem is None and not name.lower().endswith(_SUFFIX):
            problem = "does not end with .html"
        if problem is None and "/" in name:
            problem = "has a folder in it, and a page lies in the output folder itself"
        files = f"{name[: -len(_SUFFIX)]}.files"
        if problem is not None or fold(files) in OWN_NAMES:
            told = problem or "is too like that of joyedit's own page"
            raise UsageError(f"--page {brief(name)}: the name {told} (take one such as look.html)")
        return cls(name, files)

    def refuse_strangers(self, out: Path) -> None:
        """Raises UsageError if a file or folder of somebody else stands in this place."""
        path = out / self.name
        if os.path.lexists(path) and not is_own_page(path):
            raise UsageError(f"{path} is not from joyedit and stays as it is: {self._remedy(out, 'that file')}")
        files = out / self.files
        if not os.path.lexists(files):
            return
        if files.is_symlink() or not files.is_dir():
            raise UsageError(f"{files} is not the folder of a page: {self._remedy(out, 'it')}")
        try:
            is_strange = not is_page_folder(files) and bool(os.listdir(files))
        except OSError as error:
            raise OutputError(f"cannot read {files}: {os_reason(error)}") from error
        if is_strange:
            raise UsageError(f"{files} holds files that are not from joyedit: {self._remedy(out, 'that folder')}")

    def _remedy(self, out: Path, what: str) -> str:
        return f"joyedit view {out} --page look.html makes the page under another name, or move {what} away"

    @contextlib.contextmanager
    def locked(self, folder: OutputFolder) -> Iterator[None]:
        """Mark the folder of the page, and keep a second builder out of it. Raises OutputError."""
        mark = f"{self.files}/{PAGE_MARK}"
        if not is_page_folder(folder.path / self.files):
            folder.write_bytes(mark, _ABOUT % os.fsencode(self.name))
        try:
            handle = open_own(folder.handle, mark, os.O_RDONLY)
        except OSError as error:
            raise OutputError(f"cannot open {folder.path / mark}: {os_reason(error)}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                message = "another joyedit makes this page now: wait for it, and try again"
                raise OutputError(f"{folder.path / self.name}: {message}") from error
            except OSError as error:  # a file system without locks: both write whole files under names of their own
                if error.errno == errno.EIO:
                    raise OutputError(f"cannot lock {folder.path / mark}: {os_reason(error)}") from error
            yield
        finally:
            os.close(handle)


def is_own_page(path: Path) -> bool:
    """Whether this is the HTML file of a page that joyedit made, and no link."""
    try:
        with open(os.open(path, _READ), "rb") as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(PAGE_BEGIN)) == PAGE_BEGIN
    except OSError:
        return False
