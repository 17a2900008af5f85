"""Where the finished pictures of an output folder are: in it, or on an object store that the folder names."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from joyedit.job.data_picture import Reference
from joyedit.job.own_files import is_made_by_joyedit
from joyedit.job.results.finished_picture import State, picture_state
from joyedit.job.results.objects.names import Mark
from joyedit.job.results.objects.pictures import ObjectPictures
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.placed import is_there, picture_at
from joyedit.job.results.shard_folders import whole_of


class PicturePlace(Protocol):
    """Any thread may call the methods. `output` is the name of a picture, as records have it.

    `address` is what a message calls the place.
    """

    address: str

    def has(self, output: str) -> bool:
        """Whether anything has this name."""

    def is_taken(self, output: str) -> bool:
        """Whether a file, or a link, has this name."""

    def state(self, output: str, record: dict[str, Any], *, trust: bool) -> State:
        """What stands where `record` says that joyedit wrote a picture. With `trust`, its size is enough."""

    def is_made_by_joyedit(self, output: str) -> bool:
        """Whether the picture holds what joyedit writes into each of its pictures."""

    def file(self, output: str) -> Path:
        """The file of the picture on this machine; it is not there where there is no such picture."""

    def at(self, record: Mapping[str, Any]) -> Reference | None:
        """The finished picture of a record, also in a shard; None if it names none."""

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether anything stands where the file of a record's picture is, or the shard that holds it."""

    def free_name(self) -> str:
        """Another output beside this one, for a remedy."""

    def remove(self, folder: OutputFolder, output: str) -> None:
        """Remove a picture of joyedit's own. `folder` is the open output folder."""

    def remove_earlier(self, folder: OutputFolder, record: dict[str, Any], earlier: tuple[str, int, str]) -> None:
        """Remove the picture that the item of `record` had under another name: output, bytes and sha256.

        One that somebody changed since stays.
        """


class FolderPictures:
    """The pictures are in the folder."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder
        self._inside = os.path.join(folder, "")

    def has(self, output: str) -> bool:
        return os.path.lexists(self._inside + output)

    def is_taken(self, output: str) -> bool:
        try:
            return not stat.S_ISDIR(os.stat(self._inside + output, follow_symlinks=False).st_mode)
        except (OSError, ValueError):  # nothing is there; or a name that the write itself refuses
            return False

    def state(self, output: str, record: dict[str, Any], *, trust: bool) -> State:
        return picture_state(self._inside + output, record, trust=trust)

    def is_made_by_joyedit(self, output: str) -> bool:
        return is_made_by_joyedit(self._inside + output)

    def file(self, output: str) -> Path:
        return Path(self._inside + output)

    def at(self, record: Mapping[str, Any]) -> Reference | None:
        return picture_at(self._folder, record)

    def holds(self, record: Mapping[str, Any]) -> bool:
        return is_there(self._folder, record)

    def free_name(self) -> str:
        return _free_name(whole_of(self._folder))

    def remove(self, folder: OutputFolder, output: str) -> None:
        folder.remove(output)

    def remove_earlier(self, folder: OutputFolder, record: dict[str, Any], earlier: tuple[str, int, str]) -> None:
        output = earlier[0]
        if folder.remove_picture(*earlier):
            return
        if self.state(output, record, trust=False) == "lost" and self.is_made_by_joyedit(output):
            folder.remove(output)  # damaged


def pictures_of(folder: Path) -> PicturePlace:
    """Where the finished pictures of this output folder are."""
    return objects_of(folder) or FolderPictures(folder)


def objects_of(folder: Path) -> ObjectPictures | None:
    """The pictures on an object store of which this is the state folder; None for a plain output folder."""
    mark = Mark.read(folder)
    return None if mark is None else _objects(mark, folder)


@lru_cache(maxsize=4)
def _objects(mark: Mark, folder: Path) -> ObjectPictures:
    """One for all who ask during a run: the token of the mark is another one in the next run."""
    return ObjectPictures(ObjectStore(mark.address), folder)


def _free_name(folder: Path) -> str:
    """A folder beside this one that does not exist yet."""
    name = os.path.normpath(folder)
    if os.path.basename(name) in (os.curdir, os.pardir):  # they have no name to number
        name = os.path.abspath(name)
    number = 2
    while os.path.lexists(f"{name}-{number}"):
        number += 1
    return f"{name}-{number}"
