"""A folder of pictures, walked in a fixed order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES, UNREADABLE_SUFFIXES
from joyedit.job.source.names import EXTENSIONS, fold

PICTURE_SUFFIXES = SUPPORTED_SUFFIXES | UNREADABLE_SUFFIXES


class Entry(NamedTuple):
    """A file below the folder, as a path with `/` between its parts; a picture by its ending, or not."""

    path: str
    is_picture: bool


def walk(root: str, *, skip: str, format: str) -> Iterator[Entry]:
    """Every file below `root` that is not in a hidden folder, nor in the folder `skip`.

    In each folder the order is by name without case and ending; of names that differ in the ending
    only, the one that has the ending of `format` comes first. Links to folders are followed, but
    not round in a circle. Raises OSError for a folder that cannot be read.
    """
    skipped = _identity(skip)
    first = _identity(root)
    assert first is not None, "the caller has seen this folder"
    # Each open folder: its path below root, what is left of it, and who it is.
    levels = [("", iter(_listing(root, format)), first)]
    while levels:
        below, entries, _ = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name, is_folder = entry
        path = f"{below}/{name}" if below else name
        if not is_folder:
            suffix = os.path.splitext(name)[1].lower()
            yield Entry(path, suffix in PICTURE_SUFFIXES and not name.startswith("."))
            continue
        here = _identity(os.path.join(root, path))
        if name.startswith(".") or here is None or here == skipped:
            continue
        if all(here != above for _, _, above in levels):
            levels.append((path, iter(_listing(os.path.join(root, path), format)), here))


def _listing(folder: str, format: str) -> list[tuple[str, bool]]:
    """The (name, is it a folder) of all in `folder`, in order."""
    wanted = EXTENSIONS[format]

    def order(entry: tuple[str, bool]) -> tuple[str, bool, str]:
        stem, ending = os.path.splitext(entry[0])
        return fold(stem), ending.lower() not in wanted, entry[0]

    with os.scandir(folder) as found:
        return sorted(((entry.name, _is_folder(entry)) for entry in found), key=order)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link round in a circle is no folder
        return False


def _identity(folder: str) -> tuple[int, int] | None:
    """(device, inode) of a folder; None where there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
