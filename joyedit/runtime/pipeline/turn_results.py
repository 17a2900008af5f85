"""What came of the items whose results others begin with: the journal tells, and what this run left as it was."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from joyedit.job.results.journal import Journal
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.resume import Decision, Resume
from joyedit.job.spec import EditItem
from joyedit.job.turns import EARLIER_FAILED, in_folder
from joyedit.printable import brief
from joyedit.runtime.pipeline.turns import Outcome

_SHOWN_ID, _SHOWN_FAULT = 100, 1000


class TurnResults:
    """Any thread may call the methods. `folder` is the output folder, `referred` as `Turns` has it."""

    def __init__(self, folder: Path, journal: Journal, resume: Resume, referred: Collection[str] | None) -> None:
        self._folder = folder
        self._pictures = pictures_of(folder)
        self._journal = journal
        self._resume = resume
        self._referred = referred
        self._left: dict[str, Outcome] = {}  # of items that are not edited: what their own last record does not say

    def skipped(self, item: EditItem, decision: Decision) -> None:
        """The item is not edited in this run."""
        if self._referred is not None and item.id not in self._referred:
            return
        if decision == "given up":
            found = Outcome(None, _fault(item.id, {"error": {"code": self._resume.given_up_code(item)}}))
        else:
            file = self._resume.finished_file(item)
            found = Outcome(file) if file is not None else Outcome(None, _without_picture(item.id))
        if found != self._recorded(item.id):
            self._left[item.id] = found

    def outcome(self, name: str) -> Outcome:
        """What came of an item that has ended."""
        return self._left.get(name) or self._recorded(name)

    def _recorded(self, name: str) -> Outcome:
        record = self._journal.final(name)
        if record is None:
            return Outcome(None, _without_picture(name))
        picture = self._pictures.at(record)
        if picture is not None:
            return Outcome(picture)
        planned = record.get("planned_output")
        return Outcome(in_folder(self._folder, planned) if isinstance(planned, str) else None, _fault(name, record))


def _without_picture(name: str) -> str:
    return f"an earlier turn has no picture, and this run does not edit it: {brief(name, _SHOWN_ID)}"


def _fault(name: str, record: dict[str, Any]) -> str:
    """Why an item has no picture. Of a later turn it is that of the first one that failed."""
    error = record.get("error")
    given = error if isinstance(error, dict) else {}
    code, message = str(given.get("code")), str(given.get("message") or "")
    if code == EARLIER_FAILED and message:
        return message
    return f"an earlier turn failed: {brief(name, _SHOWN_ID)}: {brief(f'{code}: {message}'.rstrip(': '), _SHOWN_FAULT)}"
