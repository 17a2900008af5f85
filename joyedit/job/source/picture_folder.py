"""Walks a folder of pictures in a fixed order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES, UNREADABLE_SUFFIXES
from joyedit.job.source.names import EXTENSIONS, fold

PICTURE_SUFFIXES = SUPPORTED_SUFFIXES | UNREADABLE_SUFFIXES


class Entry(NamedTuple):
    """A file below the folder: its path with `/` between its parts, and whether it has the ending of a picture."""

    path: str
    is_picture: bool


def walk(root: str, *, skip: str, format: str) -> Iterator[Entry]:
    """Every file below `root`, except in hidden folders and in the folder `skip`.

    Each folder is sorted by name without case and ending. If names differ only in the ending, the one with
    the ending of `format` comes first. It follows links to folders, unless they lead round in a circle.
    Raises OSError for a folder that cannot be read.
    """
    skipped = _identity(skip)
    first = _identity(root)
    assert first is not None, "the caller checked that this is a folder"
    # Each open folder: its path below root, the rest of its entries, and its identity.
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
    """Name and whether it is a folder, for each entry of `folder`, sorted."""
    wanted = EXTENSIONS[format]

    def order(entry: tuple[str, bool]) -> tuple[str, bool, str]:
        stem, ending = os.path.splitext(entry[0])
        return fold(stem), ending.lower() not in wanted, entry[0]

    with os.scandir(folder) as found:
        return sorted(((entry.name, _is_folder(entry)) for entry in found), key=order)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle is no folder
        return False


def _identity(folder: str) -> tuple[int, int] | None:
    """(device, inode) of a folder; None if there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
