"""`.joyedit.unfinished`: the items that are in work and have no record yet.

After a kill or a power cut this file tells the next run two things. Which pictures without a record are joyedit's
own: it may replace them. And which items were in work when the process died: one of them may be the reason, so the
next run edits them last, and each alone. An item that was in work at two deaths gets a failed record.

The file holds one JSON list on a line:

    ["start", bytes]              how long results.jsonl was when the run began
    ["kept", [item, ...]]         items of earlier runs that still have no record
    ["look", worker, item]        this thread reads the headers of the item's pictures; of none where the item is []
    ["take", [item, ...]]         the pictures of these items are read and edited from now on
    ["stop"]                      the run ends on purpose: its items did nothing wrong

where an item is [id, output, deaths]. The end of a run removes the file, or keeps in it what has no record.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from joyedit.errors import OutputError
from joyedit.job.own_files import UNFINISHED
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.picture_place import pictures_of
from joyedit.job.results.safe_open import open_own, reason_of
from joyedit.job.spec import EditItem

DEATHS = 2
"""At so many deaths of the process an item was in work: then it is given up."""
_COMPACT = 1 << 20
"""Bytes after which the file is written anew, with what is in work alone."""
_MOST = 256 << 20


@dataclass(frozen=True, slots=True)
class Suspect:
    """An item that had no record when a run ended: its output, and at how many deaths it was in work."""

    output: str
    deaths: int


class Unfinished:
    """The open file. All methods may be called from any thread; they raise `OutputError` where it cannot be written.

    `before` are the items of earlier runs that have no record.
    """

    def __init__(self, folder: OutputFolder, journal: Journal) -> None:
        self._folder = folder
        self._journal = journal
        self._lock = threading.Lock()
        self._handle = -1  # opened when the first item is looked at: most repeated runs have nothing to do
        self._closed = False
        self._found = False  # whether an earlier run left the file
        self._size = 0
        self._unsynced = False
        self._looks: dict[int, tuple[str, Suspect]] = {}
        self._taken: dict[str, Suspect] = {}
        self.before: Mapping[str, Suspect] = self._read()

    def look(self, item: EditItem) -> None:
        """This thread is about to read the headers of the item's pictures."""
        worker = threading.get_ident()
        entry = self._entry(item)
        with self._lock, self._errors():
            self._looks[worker] = item.id, entry
            self._append(["look", worker, _listed(item.id, entry)])

    def take(self, items: Iterable[EditItem]) -> None:
        """These items are in work from now on, until they have a record."""
        entries = {item.id: self._entry(item) for item in items}
        with self._lock, self._errors():
            self._taken |= entries
            self._append(["take", [_listed(name, entry) for name, entry in entries.items()]])
            if self._size > _COMPACT:
                self._write_anew()

    def pass_on(self, items: Iterable[EditItem]) -> None:
        """Another process reads and edits these items from now on: if this one dies, that is not their doing."""
        names = {item.id for item in items}
        with self._lock, self._errors():
            for worker in [worker for worker, (name, _) in self._looks.items() if name in names]:
                del self._looks[worker]
                self._append(["look", worker, []])

    def flush(self) -> None:
        """Flush to the disk what was taken. To be called before a picture of it gets its final name."""
        if not self._unsynced and not self._lock.locked():
            return
        with self._lock, self._errors():
            if self._unsynced:
                os.fsync(self._handle)
                self._unsynced = False

    def keep(self, items: Mapping[str, Suspect]) -> None:
        """Add items of a shard that is merged, where they have no record here: what they are suspected of stays."""
        with self._lock:
            found = {name: one for name, one in items.items() if not self._journal.has_since(name, 0)}
            self.before = {**self.before, **{name: self._worse(name, one) for name, one in found.items()}}
            self._found = self._found or bool(found)

    def _worse(self, name: str, one: Suspect) -> Suspect:
        known = self.before.get(name)
        return one if known is None or known.deaths < one.deaths else known

    def stop(self) -> None:
        """The process ends at once, on purpose. Takes no lock: a signal's handler may call it."""
        with suppress(OSError):
            os.write(self._handle, b'["stop"]\n')

    def close(self) -> None:
        """The end of the run: keep what has no record, or remove the file. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._handle >= 0:
                self.stop()  # says it even where the disk has no room for what follows
                os.close(self._handle)
                self._handle = -1
            elif not self._found:
                return
            with suppress(OutputError):
                self._journal.flush()  # a record that a power cut could take does not count yet
            left = self._left()
            with suppress(OutputError):  # a full disk: the file as it is says the same, but for the deaths
                if left:
                    self._folder.write_bytes(UNFINISHED, _line(["kept", [_listed(*one) for one in left.items()]]))
                else:
                    self._folder.remove(UNFINISHED)

    def _entry(self, item: EditItem) -> Suspect:
        known = self.before.get(item.id)
        return Suspect(item.output, 0 if known is None else known.deaths)

    def _left(self) -> dict[str, Suspect]:
        """What has no record. Of items that were only looked at, those of earlier runs."""
        return self._without_record(self.before, self._taken, self._journal.start)

    def _without_record(
        self, before: Mapping[str, Suspect], taken: Mapping[str, Suspect], start: int
    ) -> dict[str, Suspect]:
        """The items that have no record at `start` or behind it.

        One of `before` that failed since stays too, if its picture is in place: it is still joyedit's own.
        """
        found = {}
        for name, entry in {**before, **taken}.items():
            if not self._journal.has_since(name, start):
                found[name] = entry
            elif name in before and self._journal.has_failed(name) and self._is_there(entry):
                found[name] = Suspect(entry.output, 0)
        return found

    def _is_there(self, entry: Suspect) -> bool:
        return pictures_of(self._folder.path).has(entry.output)

    def _write_anew(self) -> None:
        """The file with what is in work alone, under its name at once."""
        if self._handle >= 0:
            self._journal.flush()  # a record that a power cut could take does not count yet
            os.close(self._handle)
            self._handle = -1
        self._taken = self._without_record({}, self._taken, self._journal.start)
        kept = [_listed(*one) for one in self._left().items() if one[0] not in self._taken]
        looks = [["look", worker, _listed(*one)] for worker, one in self._looks.items()]
        taken = [["take", [_listed(*one) for one in self._taken.items()]]] if self._taken else []
        lines: list[list[Any]] = [["start", self._journal.start], ["kept", kept], *looks, *taken]
        self._folder.write_bytes(UNFINISHED, b"".join([_line(line) for line in lines]))
        self._handle = open_own(self._folder.handle, UNFINISHED, os.O_WRONLY | os.O_APPEND)
        self._size = 0

    def _append(self, entry: list[Any]) -> None:
        if self._handle < 0 and not self._closed:
            self._write_anew()  # it holds this entry already
            return
        data = _line(entry)
        self._size += len(data)
        self._unsynced = True
        os.write(self._handle, data)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = self._folder.path / UNFINISHED
            raise OutputError(f"cannot write {path}: {reason_of(error, path)}") from error

    def _read(self) -> dict[str, Suspect]:
        """What the last run left without a record. A damaged file counts as far as it can be read.

        Raises OutputError if it cannot be opened: without it, joyedit's own pictures look like somebody else's.
        """
        lines: list[list[Any]] = []
        path = self._folder.path / UNFINISHED
        try:
            with open(open_own(self._folder.handle, UNFINISHED, os.O_RDONLY), "rb") as file:
                self._found = True
                lines = [read for line in file.read(_MOST).split(b"\n") if (read := _parsed(line))]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise OutputError(f"cannot read {path}: {reason_of(error, path)}") from error
        start, stopped = 0, True
        kept: dict[str, Suspect] = {}
        looks: dict[object, dict[str, Suspect]] = {}
        taken: dict[str, Suspect] = {}
        for kind, *rest in lines:
            if kind == "start" and rest and isinstance(rest[0], int):
                start, stopped = rest[0], False
            elif kind == "kept" and rest:
                kept |= _items(rest[0])
            elif kind == "take" and rest:
                taken |= _items(rest[0])
            elif kind == "look" and len(rest) == 2:
                looks[str(rest[0])] = _items([rest[1]])
            elif kind == "stop":
                stopped = True
        if not stopped:  # the process died
            in_work = {**{name: one for look in looks.values() for name, one in look.items()}, **taken}
            taken = {name: Suspect(one.output, one.deaths + 1) for name, one in in_work.items()}
        return self._without_record(kept, taken, start)


def _listed(name: str, entry: Suspect) -> list[Any]:
    return [name, entry.output, entry.deaths]


def _line(entry: list[Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> list[Any] | None:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, list) and read else None


def _items(listed: object) -> dict[str, Suspect]:
    found = {}
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, list) and len(one) == 3 and isinstance(one[0], str) and isinstance(one[1], str):
            found[one[0]] = Suspect(one[1], max(0, one[2]) if isinstance(one[2], int) else 0)
    return found
