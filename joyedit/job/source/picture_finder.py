"""Where a manifest's pictures lie: path, default id, whether it is an input inside the output folder, its problem."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from joyedit.errors import Problem, os_reason
from joyedit.job.source.names import safe_name
from joyedit.job.source.problems import shown

_KEPT = 4096
_SHOWN_PATH = 300


class FoundPicture(NamedTuple):
    """One picture of a manifest: its path, the same path absolute, and its name below the output folder if it
    lies there. `problem` says why it cannot be an input."""

    path: str
    absolute: str
    name_in_output: str | None
    problem: Problem | None


class PictureFinder:
    """Finds the pictures that items name. Remembers the last few thousand: manifests repeat their pictures.

    Relative paths are relative to `base` ("" for the current folder). With `look` it checks each file.
    """

    def __init__(self, base: str, output: Path | None, *, look: bool) -> None:
        self._base = base
        self._absolute_base = os.path.abspath(base)
        self._outputs = () if output is None else (os.path.abspath(output), os.path.realpath(output))
        self._look = look
        self._found: dict[str, FoundPicture] = {}

    def find(self, image: str) -> FoundPicture:
        """The picture that an item names `image`."""
        found = self._found.get(image)
        if found is None:
            if len(self._found) >= _KEPT:
                self._found.clear()
            found = self._found[image] = self._find(image)
        return found

    def default_id(self, found: FoundPicture) -> str:
        """The id that an item gets from its first picture: the path below `base` without the ending."""
        name = _below(found.absolute, self._absolute_base) or os.path.basename(found.absolute)
        return safe_name(os.path.splitext(name)[0].replace(os.sep, "/"))

    def _find(self, image: str) -> FoundPicture:
        path = os.path.join(self._base, image)
        absolute = os.path.normpath(os.path.join(self._absolute_base, image))
        in_output = next((name for root in self._outputs if (name := _below(absolute, root))), None)
        problem = _picture_problem(path, image, self._absolute_base) if self._look else None
        return FoundPicture(path, absolute, in_output, problem)


def _below(path: str, root: str) -> str | None:
    """`path` relative to `root` if it lies below it (both absolute)."""
    if not path.startswith(root):
        return None
    prefix = root if root.endswith(os.sep) else root + os.sep
    return path[len(prefix) :] if path.startswith(prefix) else None


def _picture_problem(path: str, written: str, base: str) -> Problem | None:
    name = shown(written, _SHOWN_PATH)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if "://" in written:
            return Problem(f"{shown(written)} is a web address", "download the picture first", key="image")
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        if isinstance(error, FileNotFoundError):
            reason = "no such picture"
        remedy = f"paths are relative to {shown(base, _SHOWN_PATH)}"
        return Problem(f"{reason}: {name}", remedy, key="image")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        return Problem(f"{name} is {kind}, not a picture", key="image")
    return None
