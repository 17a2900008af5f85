"""Decides which items are already done, so that a run skips them.

An item is done if its last record says so, if the record has the item's present fingerprint, and if the picture is the
recorded one. Where another whole picture stands in its place, somebody changed it on purpose: it stays, unless the run
was asked to replace what differs. In doubt joyedit edits the item.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Literal

from joyedit.errors import system_limit
from joyedit.job.data_picture import Reference
from joyedit.job.hashing import HashCache
from joyedit.job.results.earlier_ids import EarlierIds
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.finished_picture import State
from joyedit.job.results.given_up import KILLED, is_given_up
from joyedit.job.results.input_hashes import input_hashes
from joyedit.job.results.journal import Journal
from joyedit.job.results.own_pictures import OwnPictures
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.records import error_code, name_of, output_of, packed_in
from joyedit.job.results.replacing import Replacing
from joyedit.job.spec import EditItem

Decision = Literal["edit", "done", "changed", "leave", "keep", "given up"]
"""`edit` the item, or do not edit it: it is `done`; it is done, and somebody `changed` its picture since; `leave` it,
it has no picture; `keep` its picture, although it differs from what is asked; it is `given up`, because it was in work
when the process died, again and again."""


class Resume:
    """Decides for each item of a run. Any thread may call it.

    `redo` is that of `RunConfig`, `update` and `trust` its `update` and `trust_journal`. With `trust`, an input whose
    size and times are the recorded ones counts as unchanged, and so does a picture that has the recorded size.
    `replacing` tells which finished pictures stay; None lets all of them be replaced. `own` tells which pictures were
    in work when a run ended: their records may be missing. `merged` decides for items that have no record here: those
    of a shard may be finished in the output folder of all shards.
    """

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        *,
        fingerprints: Fingerprinter,
        hashes: HashCache,
        redo: Literal["changed", "all", "failed"],
        trust: bool,
        own: OwnPictures,
        replacing: Replacing | None = None,
        merged: Resume | None = None,
    ) -> None:
        self._merged = merged
        self._journal = journal
        self._earlier = EarlierIds(journal)
        self._pictures = pictures_of(folder)
        self._fingerprints = fingerprints
        self._hashes = hashes
        self._redo = redo
        self._trust = trust
        self._own = own
        self._replacing = replacing
        self._again = 0
        self._lock = threading.Lock()

    @property
    def again(self) -> int:
        """How many items with a finished picture are edited again, because something about them has changed."""
        return self._again + (0 if self._merged is None else self._merged.again)

    def decide(self, item: EditItem) -> Decision:
        """What this run does with the item."""
        if self._merged is not None and self._earlier.final(item) is None:
            return self._merged.decide(item)
        if self._redo == "all" or (self._redo == "changed" and not len(self._journal)):
            return "edit"
        last = self._earlier.final(item)
        if self._redo == "failed" and (last is None or last["status"] == "ok"):
            if last is not None:
                return self._decide_finished(item, last)
            return "done" if self._is_done_as_another(item) else "leave"
        has_failed = last is not None and last["status"] != "ok"
        if last is not None and has_failed and self._redo != "failed" and is_given_up(item, last):
            return "given up"
        # An earlier run may have finished an item that failed since.
        record = self._earlier.finished(item) if has_failed else last
        if record is None:
            if self._is_done_as_another(item):
                return "done"
            return "keep" if self._is_kept(item, None) else "edit"
        if self._is_output_of(item, record) and self._has_fingerprint(item, record):
            state = self._state(record, trust=self._trust)
            if state == "recorded" or (state == "changed" and self._replacing is not None):
                done: Decision = "done" if state == "recorded" else "changed"
                return self._done_again(record, done) if has_failed else done
        elif self._is_done_as_another(item):
            return "done"
        elif self._is_kept(item, record):
            return "keep"
        if not has_failed and self._is_readable(item):
            with self._lock:
                self._again += 1
        return "edit"

    def decide_failed(self, item: EditItem) -> Decision:
        """What this run does with an item that cannot be edited: it fails, unless only failed items are asked for."""
        if self._redo != "failed":
            return "edit"
        last = self._earlier.final(item)
        return self.decide(item) if last is None or last["status"] == "ok" else "edit"

    def finished_file(self, item: EditItem) -> Reference | None:
        """The item's finished picture, wherever it lies; None if it has none."""
        found = (self._journal.finished(name) for name in (item.id, *item.other_ids))
        record = next((record for record in found if record is not None), None)
        picture = None if record is None else self._pictures.at(record)
        if picture is not None:
            return picture
        return None if self._merged is None else self._merged.finished_file(item)

    def given_up_code(self, item: EditItem) -> str:
        """The error code in the record of an item that is given up."""
        last = self._earlier.final(item)
        return KILLED if last is None else error_code(last) or KILLED

    def finished(self, item: EditItem) -> dict[str, Any] | None:
        """The record of the item's finished picture, also under another default id; None if it has none."""
        found = (self._journal.finished(name) for name in (item.id, *item.other_ids))
        own = next((record for record in found if record is not None), None)
        return self._merged.finished(item) if own is None and self._merged is not None else own

    def recorded_as(self, item: EditItem) -> str:
        """The id under which the finished picture of an item that is done has its record: its own, or another one."""
        record = self._earlier.finished(item)
        if record is not None:
            return str(record["id"])
        return next((name for name in item.other_ids if self._is_done_as(item, name)), item.id)

    def _decide_finished(self, item: EditItem, record: dict[str, Any]) -> Decision:
        """For an item with a finished picture, where only failed items are edited."""
        if self._replacing is not None and self._replacing.would_replace(item, record):
            return "keep"
        state = self._pictures.state(str(output_of(record)), record, trust=True)
        return "done" if state == "recorded" else "changed" if state == "changed" else "leave"

    def _done_again(self, record: dict[str, Any], decision: Decision) -> Decision:
        """For an item whose inputs were gone for a while: its earlier record becomes the last one."""
        try:
            self._journal.append_again(record)
        except ValueError:  # not a number somewhere in it: somebody else wrote this record
            return "edit"
        return decision

    def _is_done_as_another(self, item: EditItem) -> bool:
        """Whether the picture was finished when the item had another default id, because other lines were there."""
        return any(self._is_done_as(item, name) for name in item.other_ids)

    def _is_done_as(self, item: EditItem, name: str) -> bool:
        record = self._journal.final(name)
        output = None if record is None else output_of(record)
        if record is None or output is None or not self._has_fingerprint(item, record):
            return False
        return self._pictures.state(output, record, trust=self._trust) == "recorded"

    def _is_kept(self, item: EditItem, record: dict[str, Any] | None) -> bool:
        """Whether a picture stays although it differs: nobody asked to replace it, or somebody changed it since."""
        if self._replacing is None:
            return False
        if self._replacing.would_replace(item, record):
            return True
        if record is None or not self._is_output_of(item, record):
            return False
        return self._state(record, trust=False) == "changed"

    def _is_output_of(self, item: EditItem, record: dict[str, Any]) -> bool:
        """Whether the picture of this record stands where that of the item is to stand, but for a default id."""
        output = name_of(record)
        if output is None or record["id"] == item.id:
            return output == item.output
        return os.path.splitext(output)[1].lower() == os.path.splitext(item.output)[1].lower()

    def _state(self, record: dict[str, Any], *, trust: bool) -> State:
        output = str(output_of(record))
        state = self._pictures.state(output, record, trust=trust)
        # A run that died may have put it in place without a record.
        return "lost" if state == "changed" and self._own.is_unfinished(output) else state

    def _is_readable(self, item: EditItem) -> bool:
        """Whether the pictures of the item are there: otherwise it fails, and its finished picture stays."""
        return all(os.access(path, os.R_OK) for path in item.inputs if isinstance(path, Path))

    def _has_fingerprint(self, item: EditItem, record: dict[str, Any]) -> bool:
        """Whether the picture of this record was made of what the item says now."""
        try:
            inputs = input_hashes(item, record, self._hashes, trust=self._trust)
        except (OSError, ValueError) as error:  # missing or unreadable: the edit will say why
            limit = system_limit(error)
            if limit is not None:
                raise limit from error
            return False
        return record.get("fingerprint") == self._fingerprints.of(item, inputs)


def earlier_picture(record: dict[str, Any] | None, output: str) -> tuple[str, int, str] | None:
    """The file of another name that this record of the same item holds: output, bytes and sha256; else None.

    What lies in a shard goes when that is written anew.
    """
    before = None if record is None or packed_in(record) is not None else output_of(record)
    if record is None or before is None or before == output:
        return None
    size, sha256 = record.get("output_bytes"), record.get("output_sha256")
    return (before, size, sha256) if isinstance(size, int) and isinstance(sha256, str) else None
