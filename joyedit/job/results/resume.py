"""Decides which items are already done, so that a run skips them.

An item is done if its last record says so, if the record has the item's present fingerprint, and if the
picture is the recorded one. In doubt joyedit edits the item.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from joyedit.errors import system_limit
from joyedit.job.hashing import HashCache, sha256_of
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import error_code, output_of
from joyedit.job.results.replacing import Replacing
from joyedit.job.spec import EditItem

Decision = Literal["edit", "done", "leave", "keep", "given up"]
"""`edit` the item, or do not edit it: it is `done`; `leave` it, it has no picture; `keep` its picture, although it
differs from what is asked; it is `given up`, because it was in work when the process died, again and again."""

KILLED = "killed_the_run"
"""The error code of an item that is given up."""


class Resume:
    """Decides for each item of a run. Any thread may call it.

    `redo` is that of `RunConfig`, and `trust` its `trust_journal`. With `trust`, an input whose size and times
    are the recorded ones counts as unchanged, and so does a picture that has the recorded size. `replacing` tells
    which finished pictures stay; None lets all of them be replaced.
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
        replacing: Replacing | None = None,
    ) -> None:
        self._journal = journal
        self._inside = os.path.join(folder, "")
        self._fingerprints = fingerprints
        self._hashes = hashes
        self._redo = redo
        self._trust = trust
        self._replacing = replacing
        self.again = 0
        """How many items with a finished picture are edited again, because something about them has changed."""
        self._lock = threading.Lock()

    def decide(self, item: EditItem) -> Decision:
        """What this run does with the item."""
        if self._redo == "all" or (self._redo == "changed" and not len(self._journal)):
            return "edit"
        record = self._journal.final(item.id)
        if self._redo == "failed":
            if record is None:
                return "leave"
            if record["status"] != "ok":
                return self._decide_failed(item)
            if self._replacing is not None and self._replacing.would_replace(item, record):
                return "keep"
            return "done" if self._is_there(record) else "leave"
        if record is None or record["status"] != "ok":
            if record is not None and error_code(record) == KILLED:
                return "given up"
            return self._decide_failed(item)
        if record.get("output") == item.output and self._is_current(item, record):
            return "done"
        if self._replacing is not None and self._replacing.would_replace(item, record):
            return "keep"
        with self._lock:
            self.again += 1
        return "edit"

    def _decide_failed(self, item: EditItem) -> Decision:
        """For an item whose last record is a failure, or that has none. An earlier run may have finished it."""
        record = self._journal.finished(item.id)
        if record is not None and record.get("output") == item.output and self._is_current(item, record):
            with suppress(ValueError):  # not a number somewhere in it: somebody else wrote this record
                self._journal.append_again(record)  # its inputs were gone for a while
                return "done"
        if self._replacing is not None and self._replacing.would_replace(item, record):
            return "keep"
        return "edit"

    def _is_there(self, record: dict[str, Any]) -> bool:
        """Whether the picture of a record has the recorded size."""
        try:
            status = os.stat(self._inside + str(output_of(record)), follow_symlinks=False)
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == record.get("output_bytes")

    def _is_current(self, item: EditItem, record: dict[str, Any]) -> bool:
        try:
            path = self._inside + item.output
            status = os.stat(path, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_size != record.get("output_bytes"):
                return False
            inputs = self._inputs(item, record)
            if record.get("fingerprint") != self._fingerprints.of(item, inputs):
                return False
            if self._trust:
                return True
            with open(path, "rb", buffering=0) as file:
                return sha256_of(file) == record.get("output_sha256")
        except (OSError, ValueError) as error:  # missing or unreadable: the edit will say why
            limit = system_limit(error)
            if limit is not None:
                raise limit from error
            return False

    def _inputs(self, item: EditItem, record: dict[str, Any]) -> list[str]:
        seen = record.get("inputs_seen")
        if not self._trust or not isinstance(seen, list) or len(seen) != len(item.images):
            return [self._hashes.sha256(os.fspath(path)).sha256 for path in item.images]
        return [self._trusted(os.fspath(path), then) for path, then in zip(item.images, seen, strict=True)]

    def _trusted(self, path: str, then: object) -> str:
        if isinstance(then, list) and len(then) == 4:
            status = os.stat(path)
            if then[1:] == [status.st_size, status.st_mtime_ns, status.st_ctime_ns]:
                return str(then[0])
        return self._hashes.sha256(path).sha256


def earlier_picture(record: dict[str, Any] | None, output: str) -> tuple[str, int, str] | None:
    """The picture under another name that this record of the same item holds: output, bytes and sha256; else None."""
    before = None if record is None else output_of(record)
    if record is None or before is None or before == output:
        return None
    size, sha256 = record.get("output_bytes"), record.get("output_sha256")
    return (before, size, sha256) if isinstance(size, int) and isinstance(sha256, str) else None
