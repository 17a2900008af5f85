"""Which files lie in the output folder, by the identity of their folders: device and inode.

The spelling of a path does not tell: links, `..` and bind mounts lead to one folder by many paths.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

Identity = tuple[int, int]
"""(device, inode) of a folder."""

_KEPT = 65_536
_MOST_LINKS = 40
"""So many links may follow each other; the system allows no more either."""


def identity(folder: str) -> Identity | None:
    """What a folder is, however its path is spelled; None if there is no such folder, or nobody may look."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


class OutputTree:
    """The folders of one output folder, as they are when the first question comes. None: there is no output folder.

    It looks at folders only, and follows no link. Each pass over a source has a tree of its own.
    """

    def __init__(self, output: Path | None) -> None:
        self._root = None if output is None else os.path.realpath(output)
        self._names: dict[Identity, list[str]] = {}
        self._links: dict[str, str] = {}
        self._is_read = False
        self._known: dict[str, tuple[str, ...]] = {}
        self._known_real: dict[str, tuple[str, ...]] = {}

    def folder_names(self, folder: str) -> tuple[str, ...]:
        """The names of a folder below the output folder, "" for the output folder itself; empty if it lies elsewhere.

        A bind mount inside the output folder gives a folder two names.
        """
        if self._root is None:
            return ()
        found = self._known.get(folder)
        if found is None:
            self._read()
            here = identity(folder)
            named = None if here is None else self._names.get(here)
            found = self._made_since(folder) if named is None else tuple(named)
            if here is not None:  # a folder that is missing now may be made in the output folder later
                _keep(self._known, folder, found)
        return found

    def names_of(self, folder: Identity) -> tuple[str, ...]:
        """As `folder_names`, for a folder whose identity is known; one that was made later is not found."""
        self._read()
        return tuple(self._names.get(folder, ()))

    def file_names(self, path: str) -> tuple[str, ...]:
        """The names of a file below the output folder. A link has those of the file that it leads to as well."""
        if self._root is None:
            return ()
        found: dict[str, None] = {}
        for _ in range(_MOST_LINKS):
            parent, name = os.path.split(path)
            for folder in self.folder_names(parent or os.curdir):
                found[f"{folder}/{name}" if folder else name] = None
            try:
                path = os.path.join(parent, os.readlink(path))
            except (OSError, ValueError):  # it is no link
                break
        return tuple(found)

    def place(self, name: str) -> str:
        """The name under which the output `name` really lies: links inside the output folder are followed."""
        self._read()
        if not self._links or "/" not in name:
            return name
        folder = ""
        *parents, last = name.split("/")
        for parent in parents:
            folder = f"{folder}/{parent}" if folder else parent
            folder = self._links.get(folder, folder)
        return f"{folder}/{last}" if folder else last

    def _made_since(self, folder: str) -> tuple[str, ...]:
        """The names of a folder that is not among those that were read: made later, in one of these."""
        try:
            real = os.path.realpath(folder)
        except (OSError, ValueError):
            return ()
        return self._real_names(real)

    def _real_names(self, real: str) -> tuple[str, ...]:
        waiting: list[str] = []
        while (found := self._known_real.get(real)) is None:
            here = identity(real)
            if here is not None and here in self._names:
                found = tuple(self._names[here])
                break
            parent, name = os.path.split(real)
            if real == self._root or parent == real:
                found = ("",) if real == self._root else ()
                break
            waiting.append(name)
            real = parent
        for name in reversed(waiting):
            real = os.path.join(real, name)
            found = tuple(f"{folder}/{name}" if folder else name for folder in found)
            if os.path.isdir(real):
                _keep(self._known_real, real, found)
        return found

    def _read(self) -> None:
        if self._root is None or self._is_read:
            return
        first = identity(self._root)
        self._is_read = first is not None  # the run makes it; the next question reads it then
        if first is None:
            return
        links: list[str] = []
        self._names[first] = [""]
        waiting = [""]
        while waiting:
            below = waiting.pop()
            for path, is_link in _folders_and_links(os.path.join(self._root, below)):
                name = f"{below}/{os.path.basename(path)}" if below else os.path.basename(path)
                here = None if is_link else identity(path)
                if is_link:
                    links.append(name)
                elif here is not None:
                    self._names.setdefault(here, []).append(name)
                    waiting.append(name)
        for name in links:
            here = identity(os.path.join(self._root, name))
            if here is not None and here in self._names:
                self._links[name] = self._names[here][0]


def _folders_and_links(folder: str) -> list[tuple[str, bool]]:
    """The folders and links in a folder, sorted: path, and whether it is a link. Empty if nobody may look."""
    try:
        with os.scandir(folder) as found:
            return sorted(
                (entry.path, entry.is_symlink())
                for entry in found
                if entry.is_symlink() or entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _keep(known: dict[str, tuple[str, ...]], path: str, names: tuple[str, ...]) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[path] = names
