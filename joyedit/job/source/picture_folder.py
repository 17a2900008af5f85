"""Walks a folder of pictures in a fixed order, and visits each folder below it once."""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from joyedit.errors import os_reason
from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES, UNREADABLE_SUFFIXES
from joyedit.job.source.counted_pictures import CountedPictures, Kind, Listing
from joyedit.job.source.names import fold, safe_name
from joyedit.job.source.output_tree import Identity, OutputTree
from joyedit.job.source.passed_over import (
    EXCLUDED,
    is_excluded,
    is_output_folder,
    kind_of_file,
    kind_of_folder,
    plain_patterns,
)
from joyedit.job.source.problems import shown

PICTURE_SUFFIXES = SUPPORTED_SUFFIXES | UNREADABLE_SUFFIXES

_REMEDIES = {
    errno.EACCES: "allow this user to read it, or leave it out",
    errno.EPERM: "allow this user to read it, or leave it out",
    errno.ENAMETOOLONG: "its path is too long for this system; shorten it, or name a folder further down as SOURCE",
    errno.ENOENT: "it vanished in the meantime; run the same command again when it is back",
    errno.ENOTDIR: "it vanished in the meantime; run the same command again when it is back",
}
_PASSED: dict[Kind, str] = {"other": "", "excluded": EXCLUDED}
"""What is said of an entry that is passed over; empty where its name says it."""
_PICTURES = frozenset(("picture", "picture link", "gone"))
_REMEDY = "check that its disk is still connected, and run the same command again"


class Entry(NamedTuple):
    """A file below the folder, or a folder that cannot be walked; `path` has `/` between its parts.

    `code` and `reason` say why a picture or a folder cannot be read; both are empty if it can.
    `names_in_output` are the names of a picture below the output folder, if it lies there. `alike` says how many
    pictures of its folder have the same name without case: without the ending, and with it.
    """

    path: str
    kind: Literal["picture", "other", "folder"]
    names_in_output: tuple[str, ...] = ()
    code: str = ""
    reason: str = ""
    alike: tuple[int, int] = (1, 1)


class _Level(NamedTuple):
    """An open folder: its path below the root, the rest of its entries, why it cannot be read, its names.

    `alike` counts its pictures by name without case, with and without the ending, where two have the same one.
    """

    path: str
    entries: Iterator[tuple[str, Kind]]
    fault: OSError | None
    names: tuple[str, ...]
    alike: Counter[str]


class FolderWalk:
    """One pass over a folder. Iterate over it for its entries; the first may raise OSError for the folder itself.

    Hidden folders, those of the system, output folders of joyedit and what `exclude` fits are entries of kind `other`,
    and not walked; the output folder of this run gives nothing. Each folder is sorted by name without case and ending.
    All real folders come before those behind links, and each folder comes once, by device and inode: a link to a folder
    that was walked already gives nothing. A link into the output folder is not followed, unless the source lies there.

    `visited` are the folders that other walks of this pass went through. What `counted` holds comes too, even if it is
    gone. With `note`, `counted` keeps what this pass finds.
    """

    def __init__(
        self,
        root: str,
        output: OutputTree,
        counted: CountedPictures,
        *,
        exclude: Sequence[str] = (),
        note: bool = False,
        visited: set[Identity] | None = None,
    ) -> None:
        self._root = root
        self._exclude = plain_patterns(exclude)
        self._output = output
        self._counted = counted
        self._note = note
        self._visited = set() if visited is None else visited
        self._is_in_output = bool(output.folder_names(root))

    def __iter__(self) -> Iterator[Entry]:
        links: deque[str] = deque()
        first = self._open("", is_link=False)
        levels = [first] if isinstance(first, _Level) else []
        while levels or links:
            if not levels:
                yield from self._enter(links.popleft(), levels, is_link=True)
                continue
            level = levels[-1]
            name, kind = next(level.entries, ("", ""))
            path = f"{level.path}/{name}" if level.path else name
            if not kind:
                levels.pop()
            elif kind == "folder":
                yield from self._enter(path, levels, is_link=False)
            elif kind == "folder link":
                links.append(path)
            else:
                yield self._file(path, name, kind, level)

    def _enter(self, path: str, levels: list[_Level], *, is_link: bool) -> Iterator[Entry]:
        """Opens a folder; gives an entry if it cannot be walked."""
        try:
            opened = self._open(path, is_link=is_link)
        except OSError as error:
            code = "unreadable_folder"
            remedy = _REMEDIES.get(error.errno or 0, _REMEDY)
            yield Entry(path, "folder", (), code, f"cannot read this folder: {os_reason(error)} ({remedy})")
            return
        if isinstance(opened, Entry):
            yield opened
        elif opened is not None:
            levels.append(opened)

    def _file(self, path: str, name: str, kind: Kind, level: _Level) -> Entry:
        if kind in _PASSED:
            # One pass tells of what is passed over: only that one opens files.
            full = os.path.join(self._root, path) if self._note else ""
            return Entry(path, "other", reason=_PASSED[kind] or kind_of_file(name, full))
        if kind == "system folder":
            return Entry(path, "other", reason=kind_of_folder(name) or kind)
        if kind == "gone":
            missing = level.fault is None or level.fault.errno in (errno.ENOENT, errno.ENOTDIR)
            reason = "no such picture" if level.fault is None else f"its folder is gone: {os_reason(level.fault)}"
            code = "missing_picture" if missing else "unreadable_picture"
            return Entry(path, "picture", (), code, reason, alike(name, level.alike))
        if kind == "picture link":
            names = self._output.file_names(os.path.join(self._root, path))
        else:
            names = tuple([f"{folder}/{name}" if folder else name for folder in level.names])
        return Entry(path, "picture", names, alike=alike(name, level.alike))

    def _open(self, path: str, *, is_link: bool) -> _Level | Entry | None:
        """The folder at `path`; an entry if it must not be walked, None if it is left out.

        Raises OSError if it cannot be read, unless it was counted.
        """
        full = os.path.join(self._root, path) if path else self._root
        counted = self._counted.listing(path)
        fault: OSError | None = None
        found: Listing = []
        names: tuple[str, ...] = ()
        try:
            status = os.stat(full)
            here = (status.st_dev, status.st_ino)
            names = self._output.folder_names(full) if is_link else self._output.names_of(here)
            if here in self._visited or "" in names or (names and is_link and not self._is_in_output):
                if counted is None:
                    return None
            elif names and not self._is_in_output:
                reason = f"this folder lies in the output folder too, as {shown(names[0])} (choose another with -o)"
                return Entry(path, "folder", (), "output_taken", reason)
            else:
                if path and counted is None and is_output_folder(full):
                    return Entry(path, "other", reason="an output folder of joyedit")
                self._visited.add(here)
                _list(full, found)
                found = self._without_excluded(path, found)
        except OSError as error:
            if counted is None:
                raise
            fault = error
        listing = sorted(found + _missing(found, counted or []), key=_order)
        if self._note and fault is None:
            self._counted.note(path, listing)
        return _Level(path, iter(listing), fault, names, count_alike(listing))

    def _without_excluded(self, folder: str, listing: Listing) -> Listing:
        if not self._exclude:
            return listing
        begin = f"{folder}/" if folder else ""
        return [(name, "excluded" if is_excluded(begin + name, self._exclude) else kind) for name, kind in listing]


def _order(entry: tuple[str, Kind]) -> tuple[str, str]:
    return fold(os.path.splitext(entry[0])[0]), entry[0]


def _key(name: str) -> str:
    """The same for names that give the same id."""
    return fold(safe_name(name))


def _stem_key(name: str) -> str:
    return _key(os.path.splitext(name)[0])


def count_alike(listing: Listing) -> Counter[str]:
    """How many pictures have the same name without case, with and without ending, where they are more than one."""
    stems = Counter(_stem_key(name) for name, kind in listing if kind in _PICTURES)
    if len(stems) == sum(stems.values()):
        return Counter()
    alike = Counter({stem: count for stem, count in stems.items() if count > 1})
    names = (name for name, kind in listing if kind in _PICTURES)
    # "/" is in no name, so that a name with its ending is never taken for one without.
    alike.update(f"/{_key(name)}" for name in names if _stem_key(name) in alike)
    return alike


def alike(name: str, counts: Counter[str]) -> tuple[int, int]:
    """So many pictures have this name without case: without the ending, and with it. `counts` are of `count_alike`."""
    if not counts:
        return 1, 1
    return counts.get(_stem_key(name), 1), counts.get(f"/{_key(name)}", 1)


def _list(folder: str, listing: Listing) -> None:
    """Adds the entries of a folder to `listing`."""
    with os.scandir(folder) as found:
        for entry in found:
            name = entry.name
            is_link = entry.is_symlink()
            if _is_folder(entry):
                kind = "folder link" if is_link else "folder"
                listing.append((name, "system folder" if kind_of_folder(name) else kind))
            elif name.startswith(".") or os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES:
                listing.append((name, "other"))
            else:
                listing.append((name, "picture link" if is_link else "picture"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle is no folder
        return False


def _missing(found: Listing, counted: Listing) -> Listing:
    """What was counted and is not there any more. A folder that is a link now counts as the same."""
    if not counted:
        return []
    pictures = {name for name, kind in found if kind.startswith("picture")}
    folders = {name for name, kind in found if kind.startswith("folder")}
    missing: Listing = []
    for name, kind in counted:
        if kind == "picture" and name not in pictures:
            missing.append((name, "gone"))
        elif kind != "picture" and name not in folders:
            missing.append((name, kind))
    return missing
