"""A picture that one process leaves in the output folder, and another one gives its final name.

Between the two the file is complete, and lies under a temporary name in the folder where it is to be. Whoever holds the
lock of the output folder decides what it may replace. What is left over looks like the rest of a killed run, and goes
as that does (`OutputFolder.clean`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO

from joyedit.errors import ItemError, OutputError
from joyedit.job import failpoints
from joyedit.job.results.output_folder import TAKEN_REMEDY, OutputFolder, complete_file, parts_of, put


def leave(folder: OutputFolder, relative: str, data: bytes | memoryview) -> str:
    """Write a complete file for the output `relative`, flush it, and return its temporary name.

    Folders on the way are made. Raises `ItemError` for a name that cannot be, `OutputError` where nothing can be
    written.
    """
    return leave_filled(folder, relative, lambda file: file.write(data))


def leave_filled(folder: OutputFolder, relative: str, fill: Callable[[BinaryIO], object]) -> str:
    """The same for a file that `fill` writes. What `fill` raises passes through, but for OSError."""
    try:
        with (
            folder.parent(parts_of(relative), relative) as parent,
            complete_file(parent, fill) as temporary,
        ):
            return temporary
    except OSError as error:
        raise folder.typed(error, relative) from error


def take(folder: OutputFolder, temporary: str, relative: str, may_replace: Callable[[], bool]) -> None:
    """Give a file that was left its final name, and flush the folder.

    A file that is there already is replaced if its content is the same, or if `may_replace` says so. Raises
    `ItemError("output_taken")` for one that stays, `OutputError` where the left file is not to be seen from here.
    """
    parts = parts_of(relative)
    try:
        with folder.parent(parts, relative, create=False) as parent:
            if not _is_there(parent, temporary):
                raise OutputError(
                    f"a picture for {relative!r} was written on another machine, and is not in {folder.path} here: all"
                    " machines must see one output folder under this path"
                )
            failpoints.reached("file.rename")
            try:
                put(parent, temporary, parts[-1], may_replace)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise
            failpoints.reached("file.renamed")
            folder.sync(parent)
    except FileExistsError as error:
        message = f"the file {relative!r} is there already, and no record of joyedit names it"
        raise ItemError("output_taken", f"{message} ({TAKEN_REMEDY})") from error
    except OSError as error:
        raise folder.typed(error, relative) from error


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
