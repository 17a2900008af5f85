"""Where a manifest's pictures lie: path, names below the output folder if they lie there, problem."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from joyedit.errors import Problem, os_reason
from joyedit.job.contained import ContainedPicture
from joyedit.job.containers.pictures import contained_at
from joyedit.job.source.likely_files import LikelyFiles
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.problems import shown
from joyedit.job.source.written_paths import is_plain, path_problem, system_path

_KEPT = 4096
_SHOWN_PATH = 300
_MAX_PATH = 4096
"""The most characters of a path; no system opens a longer one."""


class FoundPicture(NamedTuple):
    """One picture of a manifest: its path from here.

    `names_in_output` are its names below the output folder, if it lies there. `problem` says why it cannot be
    an input; with `is_missing`, because there is no such file.
    """

    path: str
    names_in_output: tuple[str, ...]
    problem: Problem | None
    is_missing: bool = False
    contained: ContainedPicture | None = None
    """The same picture, where its path is an address in a larger file."""

    @property
    def file_name(self) -> str:
        """What names an output of it: its path; of a picture in a larger file, its name there."""
        return self.path if self.contained is None else self.contained.file_name


class PictureFinder:
    """Finds the pictures that items name. Remembers the last few thousand: manifests repeat their pictures.

    Relative paths are relative to `base` ("" for the current folder). With `look` it checks each file.
    """

    def __init__(self, base: str, output: OutputTree, *, look: bool) -> None:
        self._base = base
        self._absolute_base = os.path.abspath(base)
        self._output = output
        self._look = look
        self._found: dict[str, FoundPicture] = {}
        self._likely = LikelyFiles()

    def find(self, image: str) -> FoundPicture:
        """The picture that an item names `image`."""
        found = self._found.get(image)
        if found is None:
            if len(self._found) >= _KEPT:
                self._found.clear()
            found = self._find(image)
            if found.problem is None:  # one that is missing now may be made later
                self._found[image] = found
        return found

    def _find(self, image: str) -> FoundPicture:
        plain = image
        if not is_plain(image):
            plain = system_path(image, self._base)
        path = os.path.join(self._base, plain)
        if len(path) > _MAX_PATH:
            too_long = Problem(f"the path is too long: {shown(image, _SHOWN_PATH)}", "move the picture", key="image")
            return FoundPicture(path[:_MAX_PATH], (), path_problem(image) or too_long)
        contained = contained_at(path) if "#" in image else None
        if contained is not None:
            return FoundPicture(path, (), None, contained=contained)
        names = self._output.file_names(path)
        if not self._look:
            return FoundPicture(path, names, None)
        problem, is_missing = self._problem(path, image)
        return FoundPicture(path, names, problem, is_missing)

    def _problem(self, path: str, written: str) -> tuple[Problem | None, bool]:
        """Why there is no picture at `path`, and whether nothing is there at all."""
        name = shown(written, _SHOWN_PATH)
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
            told = path_problem(written)
            if told is not None:
                return told, is_missing
            reason = os_reason(error) if isinstance(error, OSError) else str(error)
            if isinstance(error, FileNotFoundError):
                reason = "no such picture"
            likely = self._likely.remedy(system_path(written, self._base), self._base) if is_missing else ""
            remedy = likely or f"paths are relative to {shown(self._absolute_base, _SHOWN_PATH)}"
            return Problem(f"{reason}: {name}", remedy, key="image"), is_missing
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
            return Problem(f"{name} is {kind}, not a picture", key="image"), False
        return None, False
