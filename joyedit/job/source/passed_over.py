"""Files and folders of a source that are no pictures to edit: what they are, by name, and how many."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from joyedit.job.own_files import RESULTS, is_page_folder
from joyedit.job.pictures.headers import HEAD, holds_picture
from joyedit.job.source.names import fold

EXCLUDED = "left out with --exclude"
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
NO_PICTURE = "no picture"
UNNAMED_PICTURE = "a picture whose name does not end like one (rename it to have it edited)"
KEPT = 1000
"""So many are kept by name; all are counted."""

_KINDS = {
    "a RAW photo, which needs to be developed first": (
        "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
    ),
    "a drawing of lines, which needs to be rendered first": "ai cdr emf eps pdf svg svgz wmf",
    "a picture of high dynamic range, which needs to be exported first": "exr hdr",
    "a picture of a format that joyedit does not read": "dds djvu ico icns jls jxr ktx pcx qoi sgi tga xbm xpm",
    "a project of an editing program, which needs to be exported first": "afphoto kra psb xcf",
    "a video": "3gp avi m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv",
}
_BESIDE_PICTURES = frozenset((".txt", ".caption", ".json", ".jsonl", ".xml", ".xmp", ".csv", ".md", ".npy", ".npz"))
"""Endings of what stands beside pictures by the thousand: such a file is not opened to see what it is."""
_KIND_OF = {f".{ending}": kind for kind, endings in _KINDS.items() for ending in endings.split()}

SYSTEM_FOLDERS = frozenset(
    (
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "__macosx", "found.000",
        "lost+found", "recycler", "system volume information",
    )
)  # fmt: skip
"""Folders that cameras, disks and file servers make (lower case). Hidden ones begin with a dot, and need no entry."""


@dataclass(kw_only=True, slots=True)
class PassedOver:
    """What a check passed over. `names` are the paths of the first `KEPT`, each with what it is."""

    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    names: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, kind: str) -> None:
        """One more."""
        self.count += 1
        self.kinds[kind] += 1
        if len(self.names) < KEPT:
            self.names.append((path, kind))


def is_output_folder(folder: str) -> bool:
    """Whether this folder holds the records of a run of joyedit, or the files of a page that shows one."""
    if is_page_folder(folder):
        return True
    try:
        with open(os.open(os.path.join(folder, RESULTS), _READ), "rb") as file:
            begin = file.read(4096) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return False
    return begin.startswith(b'{"id": "') and b'"status": "' in begin


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether one of the plain patterns fits this path below the source: its name, or, where it has a slash, all of it.

    `*` stands for any characters, slashes too, `?` for one, `[ab]` for one of these.
    """
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)


def plain_patterns(patterns: Sequence[str]) -> list[str]:
    """Patterns as `is_excluded` takes them: without `./` in front, and without a slash behind."""
    return [pattern.removeprefix("./").rstrip("/") for pattern in patterns]


def kind_of_file(name: str, path: str = "") -> str:
    """What a file is that is no picture by its name, in a few words. With `path`, one of an unknown ending is read."""
    ending = os.path.splitext(name)[1].lower()
    if name.startswith(".") and ending not in _KIND_OF:
        return "a hidden file"
    is_unknown = bool(path) and ending not in _KIND_OF and ending not in _BESIDE_PICTURES
    return UNNAMED_PICTURE if is_unknown and _holds_picture(path) else _KIND_OF.get(ending, NO_PICTURE)


def _holds_picture(path: str) -> bool:
    """Whether this file begins like a picture. One that cannot be read does not."""
    try:
        with open(os.open(path, _READ), "rb") as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and holds_picture(file.read(HEAD))
    except OSError:
        return False


def kind_of_folder(name: str) -> str | None:
    """Why a folder is passed over by its name; None if it is walked."""
    if name.startswith("."):
        return "a hidden folder"
    return "a folder of the system or of a file server" if fold(name) in SYSTEM_FOLDERS else None
