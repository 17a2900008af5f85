"""The files that joyedit itself keeps in an output folder, and how its pictures are known.

No item and no output may have the name of such a file.
"""

from __future__ import annotations

import os
import re
import stat

RESULTS = "results.jsonl"
CUT = "results.cut"
RESCUED = "results.rescued.jsonl"
REPORT = "report.json"
FAILED = "failed.jsonl"
LOG = "joyedit.log"
LOCK = ".joyedit.lock"
UNFINISHED = ".joyedit.unfinished"
PACKING = ".joyedit.packing"
KEPT_INPUTS = ".joyedit.inputs"
METADATA = "metadata.jsonl"
PAGE = "index.html"
PAGE_FILES = "index.files"
SHARDS = "shards"

OWN_NAMES = frozenset(
    (
        *(RESULTS, CUT, RESCUED, REPORT, FAILED, LOG, LOCK, UNFINISHED),
        *(PACKING, KEPT_INPUTS, METADATA, PAGE, PAGE_FILES, "overview.html"),
    )
)
"""Names in the output folder itself; in a folder below it they are names like any other. `PAGE_FILES` and
`KEPT_INPUTS` are folders. The last name is kept free for another page."""

PAGE_MARK = "about.txt"
"""The file that marks a folder as that of a page."""
PAGE_MARK_BEGIN = b"joyedit made this folder"

_SHARD = re.compile(SHARDS + r"/[0-9]+-of-[0-9]+(?:/.*)?", re.ASCII | re.DOTALL)

TEMPORARY_SUFFIX = ".joyedit-tmp"
"""How the name of every unfinished file ends."""
_MOST = 256 << 20
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX))


def is_own_file(folded: str) -> bool:
    """Whether a name in the output folder is that of one of joyedit's files. Fold it first (`names.fold`)."""
    return folded in OWN_NAMES


def is_in_shard(folded: str) -> bool:
    """Whether a name in the output folder is that of the folder of a shard, or lies in it. Fold it first."""
    return _SHARD.fullmatch(folded) is not None


def is_temporary(name: str) -> bool:
    """Whether a name, in any folder, is that of an unfinished file of joyedit."""
    return _TEMPORARY.fullmatch(name) is not None


def is_page_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether this folder holds the files of a page of joyedit: its scripts, and small copies of pictures."""
    return _begins(os.path.join(folder, PAGE_MARK), PAGE_MARK_BEGIN)


def _begins(path: str, begin: bytes) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            return stat.S_ISREG(os.fstat(handle).st_mode) and file.read(len(begin)) == begin
    except (OSError, ValueError):
        return False


def is_made_by_joyedit(path: str) -> bool:
    """Whether a file holds what joyedit writes into each of its pictures: the name of the software."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            data = file.read(_MOST) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except (OSError, ValueError):
        return False
    return holds_mark(data)


def holds_mark(data: bytes) -> bool:
    """Whether the bytes of a picture hold the name of the software, as joyedit writes it."""
    return b"software" in data and b"joyedit " in data
