"""Several pictures and folders of pictures, named on the command line. One instruction serves all of them."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.passed_over import EXCLUDED, is_excluded, kind_of_file
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES, Entry, alike, count_alike
from joyedit.job.source.picture_sources import FolderSource
from joyedit.job.source.problems import shown
from joyedit.job.source.source_options import SourceOptions

_PATTERN = frozenset("*?[")


def expand(given: str) -> list[str]:
    """The files and folders that a pattern fits, in order; `given` itself if it is none, or the name of a file.

    Raises UsageError for a pattern that fits nothing.
    """
    if not _PATTERN.intersection(given) or os.path.lexists(given):
        return [given]
    found = sorted(glob.iglob(given, recursive=True))
    if not found:
        raise UsageError(f"{shown(given)}: no file or folder fits this pattern")
    return found


class ManySource(FolderSource):
    """Pictures and folders, as if they were one folder: the one that holds all of them.

    Items get their ids from their paths below that folder. A picture that comes twice is edited once. `given` are
    files and folders; what ends with a slash is a folder. Raises UsageError if the output folder is one of them.
    """

    def __init__(self, given: Sequence[str], options: SourceOptions) -> None:
        paths = {os.path.abspath(path): path.endswith("/") or os.path.isdir(path) for path in given}
        folders = {path for path, is_folder in paths.items() if is_folder}
        kept = {path: is_folder for path, is_folder in paths.items() if not _is_below_one(path, folders)}
        base = os.path.commonpath([path if is_folder else os.path.dirname(path) for path, is_folder in kept.items()])
        from_here = os.path.relpath(base)
        name = base if from_here.startswith(os.pardir) else from_here
        roots = [os.path.relpath(path, base) for path, is_folder in kept.items() if is_folder]
        super().__init__(name, options, roots=["" if root == os.curdir else root for root in roots])
        self._loose = [os.path.relpath(path, base) for path, is_folder in kept.items() if not is_folder]
        self._alike = _alike_of(self._loose)

    def asked(self) -> dict[str, Any]:
        """Everything that the ids of the items depend on."""
        return super().asked() | {"given": [*(f"{root}/" for root in self._roots), *self._loose]}

    def _entries(self, tree: OutputTree, *, note: bool = False) -> Iterator[Entry]:
        yield from super()._entries(tree, note=note)
        for path in self._loose:
            yield self._entry(path, tree)

    def _entry(self, path: str, tree: OutputTree) -> Entry:
        """A file that was named by itself."""
        folder, name = os.path.split(path)
        full = os.path.join(self.name, path)
        if is_excluded(path, self.options.exclude):
            return Entry(path, "other", reason=EXCLUDED)
        if os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES:
            return Entry(path, "other", reason=kind_of_file(name))
        same = alike(name, self._alike[folder])
        if not os.path.lexists(full):
            return Entry(path, "picture", (), "missing_picture", "no such picture", same)
        return Entry(path, "picture", tree.file_names(full), alike=same)


def _is_below_one(path: str, folders: Collection[str]) -> bool:
    """Whether the walk through another one of these folders gives this path."""
    above = os.path.dirname(path)
    while above not in folders and above != os.path.dirname(above):
        above = os.path.dirname(above)
    return above in folders and above != path


def _alike_of(paths: Sequence[str]) -> dict[str, Counter[str]]:
    """By folder: which of its pictures have the same name without case."""
    names = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        names[folder].append((name, "picture"))
    return {folder: count_alike(listing) for folder, listing in names.items()}
