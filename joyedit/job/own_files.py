"""The files that joyedit itself keeps in an output folder. No item and no output may have such a name."""

from __future__ import annotations

import re

OWN_NAMES = frozenset(
    (
        "results.jsonl",
        "results.cut",
        "results.rescued.jsonl",
        "report.json",
        "failed.jsonl",
        "joyedit.log",
        ".joyedit.lock",
        ".joyedit.running",
        "index.html",
        "overview.html",
    )
)
"""Names in the output folder itself; in a folder below it they are names like any other."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.joyedit-tmp")


def is_own_file(folded: str) -> bool:
    """Whether a name in the output folder is that of one of joyedit's files. Fold it first (`names.fold`)."""
    return folded in OWN_NAMES


def looks_temporary(folded: str) -> bool:
    """Whether a name, in any folder, looks like that of an unfinished file of joyedit. Fold it first."""
    return _TEMPORARY.fullmatch(folded) is not None
