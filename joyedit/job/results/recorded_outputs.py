"""Which pictures the records of an output folder name, and whose they are."""

from __future__ import annotations

import threading
from typing import NamedTuple

from joyedit.job.results.journal import Journal
from joyedit.job.results.records import name_of, packed_in, read_journal


class Owner(NamedTuple):
    """The item whose picture an output is, and what its run shared (None: the record does not say).

    `is_packed`: the picture lies in a shard, and no file of this name is joyedit's own.
    """

    id: str
    shared: object
    is_packed: bool = False


class RecordedOutputs:
    """The outputs of all records of finished pictures, also of those that a later record replaces.

    Most items find themselves in their own last record, so the journal is read when the first one does not. Any thread
    may ask.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._owners: dict[str, Owner] | None = None

    def owner(self, output: str) -> Owner | None:
        """Whose picture this was at the last record that names it; None if no record does."""
        with self._lock:
            if self._owners is None:
                self._owners = {}
                for record in read_journal(self._journal.path) if len(self._journal) else ():
                    named = name_of(record)
                    if named is not None:
                        self._owners[named] = Owner(record["id"], record.get("shared"), packed_in(record) is not None)
            return self._owners.get(output)
