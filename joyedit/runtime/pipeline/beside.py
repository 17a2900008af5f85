"""Writes the files that lie beside a finished picture, before its record: a record says that all of them are there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import beside_of, output_of, read_journal, without_replaced
from joyedit.job.spec import Beside, EditItem, Seen
from joyedit.job.writing.beside import LAYOUTS, refuse_missing


class BesideWriter:
    """Any thread may call the methods. `write` is that of `RunConfig`; most of its values have nothing beside."""

    def __init__(self, folder: OutputFolder, journal: Journal, write: str) -> None:
        self._folder = folder
        self._journal = journal
        self._layout = LAYOUTS.get(write)
        self._lock = threading.Lock()
        self._owners: dict[str, str] | None = None  # of each file of an earlier record: the id of the last one

    def refuse(self, item: EditItem) -> None:
        """Raises ItemError where a file that is to be copied is not there."""
        if self._layout is not None:
            refuse_missing(self._layout(item))

    def write(self, item: EditItem, seen: Sequence[Seen], before: Mapping[str, Any] | None) -> tuple[Beside, ...]:
        """Write the files of this item; gives what its record says of them. `seen` are its pictures as they were read.

        `before` is the record of its finished picture, also under another id; what that names and is no more, goes.

        Raises ItemError where a picture is gone or changed, OutputError where nothing can be written.
        """
        if self._layout is None:
            return ()
        own = {one.file for one in beside_of(before or {})}
        made = []
        for one in self._layout(item):
            name, data = one.content(seen)
            self._folder.write_bytes(name, data, may_replace=partial(self._may_replace, name, item.id))
            made.append(Beside(name, len(data), hashlib.sha256(data).hexdigest()))
        for name in own - {one.file for one in made}:
            self._folder.remove(name)
        return tuple(made)

    def _may_replace(self, name: str, item_id: str) -> bool:
        """Whether a record of this item names the file, or one of another item that has a later record without it."""
        with self._lock:
            if self._owners is None:
                records = read_journal(self._journal.path) if len(self._journal) else iter(())
                self._owners = {one.file: record["id"] for record in records for one in beside_of(record)}
            owner = self._owners.get(name)
        if owner is None or owner == item_id:
            return owner is not None
        return all(one.file != name for one in beside_of(self._journal.finished(owner) or {}))

    def complete(self, item: EditItem, recorded_as: str) -> None:
        """Write what is missing beside a picture that an earlier run finished. Errors as in `write`.

        `recorded_as` is the id of its record: it may have been finished under another one, and another name.
        """
        record = self._journal.finished(recorded_as)
        if self._layout is None or record is None:
            return
        item = replace(item, id=recorded_as, output=str(output_of(record)))
        told = beside_of(record)
        planned = [*self._layout(item)]
        if len(told) == len(planned) and all(self._is_there(one) for one in told):
            return
        made = self.write(item, (), record)
        if list(made) != told:
            self._journal.append_again(without_replaced(record) | {"beside": [list(one) for one in made]})

    def _is_there(self, one: Beside) -> bool:
        try:
            return Path(self._folder.path / one.file).stat().st_size == one.bytes
        except OSError:
            return False
