"""Which files of the output folder joyedit may replace: its own pictures, and no other file.

A picture is joyedit's own if a record of this folder names it, or if it was in work when a run ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from joyedit.errors import ItemError
from joyedit.job.data_picture import Reference
from joyedit.job.own_files import RESULTS
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import TAKEN_REMEDY
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.recorded_outputs import RecordedOutputs
from joyedit.job.results.records import name_of, packed_in
from joyedit.job.spec import EditItem


class OwnPictures:
    """Any thread may call the methods. `unfinished` are the outputs that were in work when a run ended."""

    def __init__(self, journal: Journal, recorded: RecordedOutputs, folder: Path, unfinished: Iterable[str]) -> None:
        self._journal = journal
        self._recorded = recorded
        self._folder = folder
        self._pictures = pictures_of(folder)
        # What is not there now, and comes later, is somebody else's.
        self._unfinished = {output for output in unfinished if self._pictures.is_made_by_joyedit(output)}

    def names(self, item: EditItem) -> bool:
        """Whether the output of this item is a picture of joyedit's own, if there is such a file."""
        if item.output in self._unfinished:
            return True
        record = self._journal.final(item.id)
        if record is not None and name_of(record) == item.output:
            is_packed = packed_in(record) is not None
        else:
            owner = self._recorded.owner(item.output)
            if owner is None:
                return False
            is_packed = owner.is_packed
        # Where the picture went into a shard, whoever put a file of its name here since did that himself.
        return not is_packed or self._pictures.is_made_by_joyedit(item.output)

    def is_unfinished(self, output: str) -> bool:
        """Whether this was in work when a run ended, so that its record may be missing or old."""
        return output in self._unfinished

    def is_unrecorded(self, output: str) -> bool:
        """Whether this was a picture without a record when the run began."""
        return output in self._unfinished and self._recorded.owner(output) is None

    def refuse(self, item: EditItem) -> ItemError | None:
        """Why this item cannot be edited: its output is a file of somebody else, or its own input; else None."""
        if not self._pictures.is_taken(item.output):
            return None  # what else is wrong with a name, the write itself refuses
        if not self.names(item):
            message = f"the file {item.output!r} is there already, and no record of joyedit names it"
            if self._pictures.is_made_by_joyedit(item.output):
                message += f"; joyedit made it, but its line in {RESULTS} is damaged, gone, or in another folder"
            return ItemError("output_taken", f"{message} ({TAKEN_REMEDY})")
        path = os.path.join(self._folder, item.output)
        if any(_is_same(path, image) for image in item.inputs):
            message = f"the edited picture would replace its own input {item.output!r}"
            return ItemError("output_taken", f"{message} (choose another output folder with -o)")
        return None


def _is_same(path: str, image: Reference) -> bool:
    try:
        return isinstance(image, Path) and os.path.samefile(path, image)
    except OSError:
        return False
