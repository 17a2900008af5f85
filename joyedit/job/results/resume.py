"""What an earlier run has done already, and need not be done again.

An item is done if its last record says so, with the fingerprint that it has now, and its picture lies
there as it was recorded. Whatever is in doubt is edited.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Literal

from joyedit.job.hashing import HashCache, sha256_of
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal
from joyedit.job.spec import EditItem

Decision = Literal["edit", "done", "leave"]


class Resume:
    """Decides for each item of a run; may be asked from any thread.

    `redo` and `trust` as in `RunConfig`. With `trust`, the hash of an input is taken from its record if
    its size and times are those of then, and a picture is as recorded if it has the size of then.
    """

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        fingerprints: Fingerprinter,
        hashes: HashCache,
        redo: Literal["changed", "all", "failed"],
        trust: bool,
    ) -> None:
        self._journal = journal
        self._inside = os.path.join(folder, "")
        self._fingerprints = fingerprints
        self._hashes = hashes
        self._redo = redo
        self._trust = trust

    def decide(self, item: EditItem) -> Decision:
        """`edit` it, it is `done`, or `leave` it as it is: neither done nor to be done in this run."""
        if self._redo == "all" or (self._redo == "changed" and not len(self._journal)):
            return "edit"
        record = self._journal.final(item.id)
        if self._redo == "failed":
            if record is None:
                return "leave"
            return "edit" if record.get("status") != "ok" else "done"
        if record is None or record.get("status") != "ok" or record.get("output") != item.output:
            return "edit"
        return "done" if self._is_current(item, record) else "edit"

    def _is_current(self, item: EditItem, record: dict[str, Any]) -> bool:
        try:
            path = self._inside + item.output
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size != record.get("output_bytes"):
                return False
            inputs = self._inputs(item, record)
            if record.get("fingerprint") != self._fingerprints.of(item, inputs):
                return False
            if self._trust:
                return True
            with open(path, "rb", buffering=0) as file:
                return sha256_of(file) == record.get("output_sha256")
        except (OSError, ValueError):  # gone, or not to be read: the edit will tell why
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
