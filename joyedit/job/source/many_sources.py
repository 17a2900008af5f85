"""Several pictures and folders of pictures, named on the command line. One instruction serves all of them."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from joyedit.errors import ManifestError, Problem, UsageError
from joyedit.job.own_files import is_made_by_joyedit
from joyedit.job.source.beside_pictures import unused_list
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.passed_over import (
    EXCLUDED,
    is_excluded,
    is_output_folder,
    kind_of_file,
    kind_of_folder,
    plain_patterns,
)
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES, Entry, alike, count_alike
from joyedit.job.source.picture_sources import FolderSource
from joyedit.job.source.problems import shown
from joyedit.job.source.source import SourceSummary
from joyedit.job.source.source_options import SourceOptions

_PATTERN = frozenset("*?[")

Passed = tuple[str, str]
"""The path of something that is passed over, and what it is."""


def expand(given: str, output: Path | None) -> tuple[list[str], list[Passed]]:
    """The files and folders that a pattern fits, in order, and those that are passed over as in a walk.

    Gives `given` itself if it is no pattern, or the name of a file. Raises UsageError for a pattern that fits nothing.
    """
    if not _PATTERN.intersection(given) or os.path.lexists(given):
        return [given], []
    found = sorted(glob.iglob(given, recursive=True))
    if not found:
        raise UsageError(f"{shown(given)}: no file or folder fits this pattern")
    known: dict[str, str] = {}
    named = len(list(takewhile(lambda part: not _PATTERN.intersection(part), given.split("/"))))
    reasons = [(path, _why_passed(path, named, output, known)) for path in found]
    kept = [path for path, reason in reasons if reason is None]
    passed = [(path, reason) for path, reason in reasons if reason is not None]
    if not kept:
        raise UsageError(f"{shown(given)}: fits only what is passed over, such as {passed[0][0]}: {passed[0][1]}")
    return kept, passed


def _why_passed(path: str, named: int, output: Path | None, known: dict[str, str]) -> str | None:
    """Why a walk would not give this path. Its first `named` parts stand in the pattern itself."""
    parts = path.rstrip("/").split("/")
    for count in range(named + 1, len(parts) + 1):
        folder = "/".join(parts[:count])
        if folder not in known:
            known[folder] = _why_folder(folder, parts[count - 1], output) if os.path.isdir(folder) else ""
        if known[folder]:
            return known[folder]
    return None


def _why_folder(folder: str, name: str, output: Path | None) -> str:
    if output is not None and os.path.realpath(folder) == os.path.realpath(output):
        return "the output folder"
    return kind_of_folder(name) or ("an output folder of joyedit" if is_output_folder(folder) else "")


class ManySource(FolderSource):
    """Pictures and folders, as if they were one folder: the one that holds all of them.

    Items get their ids from their paths below that folder. A picture that comes twice is edited once. `given` are
    files and folders; what ends with a slash is a folder. `passed` is what is passed over already. Raises UsageError
    if the output folder is one of them.
    """

    def __init__(self, given: Sequence[str], options: SourceOptions, passed: Sequence[Passed] = ()) -> None:
        paths = {_absolute(path): path.endswith("/") or os.path.isdir(path) for path in given}
        folders = {path for path, is_folder in paths.items() if is_folder}
        kept = {path: is_folder for path, is_folder in paths.items() if not _is_below_one(path, folders)}
        base = os.path.commonpath([path if is_folder else os.path.dirname(path) for path, is_folder in kept.items()])
        from_here = os.path.relpath(base)
        name = base if from_here.startswith(os.pardir) else from_here
        roots = [os.path.relpath(path, base) for path, is_folder in kept.items() if is_folder]
        super().__init__(name, options, roots=["" if root == os.curdir else root for root in roots])
        real = {os.path.realpath(path): path for path, is_folder in reversed(kept.items()) if not is_folder}
        self._loose = [os.path.relpath(path, base) for path in reversed(real.values())]
        self._alike = _alike_of(self._loose)
        self._passed = passed
        self._exclude = plain_patterns(options.exclude)

    def check(self) -> SourceSummary:
        """Raises ManifestError, which also names a list of pictures that is not read here."""
        try:
            return super().check()
        except ManifestError as error:
            folders = [*self._roots, *map(os.path.dirname, self._loose)]
            found = unused_list(os.path.normpath(os.path.join(self.name, folder)) for folder in folders)
            if found is None or not any(problem.message.startswith("no instruction") for problem in error.problems):
                raise
            remedy = f"give one with -p, or run {os.path.dirname(found)} by itself: only then {shown(found)} is read"
            raise ManifestError([Problem("no instruction", remedy).at(self.name)]) from error

    def asked(self) -> dict[str, Any]:
        """Everything that the ids of the items depend on."""
        return super().asked() | {"given": [*(f"{root}/" for root in self._roots), *self._loose]}

    def _entries(self, tree: OutputTree, *, note: bool = False) -> Iterator[Entry]:
        yield from super()._entries(tree, note=note)
        for path in self._loose:
            yield self._entry(path, tree)
        for path, reason in self._passed:
            yield Entry(path, "other", reason=reason)

    def _entry(self, path: str, tree: OutputTree) -> Entry:
        """A file that was named by itself."""
        folder, name = os.path.split(path)
        full = os.path.join(self.name, path)
        parts = path.split("/")
        if any(is_excluded("/".join(parts[:count]), self._exclude) for count in range(1, len(parts) + 1)):
            return Entry(path, "other", reason=EXCLUDED)
        if os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES:
            return Entry(path, "other", reason=kind_of_file(name))
        same = alike(name, self._alike[folder])
        if not os.path.lexists(full):
            return Entry(path, "picture", (), "missing_picture", "no such picture", same)
        names = tree.file_names(full)
        if names and is_made_by_joyedit(full):  # a pattern such as *.png finds what the last run made
            return Entry(path, "other", reason="an edited picture in the output folder")
        return Entry(path, "picture", names, alike=same)


def _absolute(path: str) -> str:
    """The same path for one file. `..` behind a link leads where the system goes."""
    if os.pardir in path.split("/"):
        parent, name = os.path.split(path.rstrip("/"))
        return os.path.realpath(path) if name == os.pardir else os.path.join(os.path.realpath(parent), name)
    return os.path.abspath(path)


def _is_below_one(path: str, folders: Collection[str]) -> bool:
    """Whether the walk through another one of these folders gives this path."""
    above = os.path.dirname(path)
    while above not in folders and above != os.path.dirname(above):
        above = os.path.dirname(above)
    if above not in folders or above == path:
        return False
    *parents, name = os.path.relpath(path, above).split("/")
    if name.startswith(".") or any(map(kind_of_folder, [*parents, name])):
        return False  # a walk passes over it, and here it is named
    return not any(is_output_folder(os.path.join(above, *parents[:count])) for count in range(1, len(parents) + 1))


def _alike_of(paths: Sequence[str]) -> dict[str, Counter[str]]:
    """By folder: which of its pictures have the same name without case."""
    names = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        names[folder].append((name, "picture"))
    return {folder: count_alike(listing) for folder, listing in names.items()}
