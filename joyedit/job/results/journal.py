"""results.jsonl while a run is going on: finds the last record of each id, and appends new records.

joyedit writes the record of a picture after the picture has its final name. Later runs append to the same
file. If several records have the same id, the last one counts. `records.py` says what a record holds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from joyedit.errors import ManifestError, OutputError, Problem
from joyedit.job import failpoints
from joyedit.job.number_table import NumberTable
from joyedit.job.own_files import CUT, RESULTS
from joyedit.job.results.output_folder import sync_folder
from joyedit.job.results.records import BLOCK, MAX_RECORD, line_of, line_of_result, lines_of, parse, replaced_by
from joyedit.job.results.rescue import Copy, Opened, difference, rescue
from joyedit.job.results.safe_open import open_folder, open_own, reason_of
from joyedit.job.spec import ItemResult

SYNC_RECORDS = 16
SYNC_SECONDS = 1.0

_BEGIN = b'{"id": "'
_SHOWN = 5


class Journal:
    """The open results.jsonl of one run.

    Any thread may call the methods; close the journal at the end. Only one process may have it open: the lock
    of the output folder sees to that. A kill or a power cut can leave a torn record at the end; the journal
    cuts it off when it opens, and `repaired` says so. It keeps other lines that are no records; `damaged` says so.

    Each record reaches the operating system at once, and the disk in small groups: after every
    `SYNC_RECORDS` records, with the first record after `SYNC_SECONDS`, and at the end. With each group the journal
    compares the open file with its name. If somebody removed, replaced or cut it, everything known goes into
    results.rescued.jsonl. Each method raises `OutputError` if the file cannot be written or is no longer the one
    that was opened; after that the journal accepts no further record.

    In memory are about 30 bytes an id: where its last record begins, and whether the item failed.
    `shared` holds the values of that key in all records of finished pictures (None: a record without it).
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        *,
        handle: int | None = None,
        copy: int | None = None,
    ) -> None:
        """`handle` is the open folder: whatever has its name by now, the journal lies beside its files. `copy` is an
        open copy of results.jsonl without a name: the journal works on that, and changes nothing in the folder.

        Raises also `ManifestError` if the file has lines and none of them is a record.
        """
        self.path = folder / RESULTS
        self.repaired: str | None = None
        self.damaged: str | None = None
        self.shared: set[str | None] = set()
        self._lock = threading.Lock()
        self._clock = clock
        self._near = (0, b"")  # an offset, and the complete records from there on, which never change
        self._places = NumberTable()  # of each id: 2 * the offset of its last record, + 1 if that failed
        self._finished: dict[str, int] = {}  # of ids whose last record failed: the offset of the last finished one
        self._unsynced = 0
        self._broken: OutputError | None = None
        self._changed: OutputError | None = None  # the file is no longer the one that was opened
        self._synced_at = clock()
        self._folder = self._handle = -1
        self._is_copy = copy is not None
        try:
            failpoints.reached("journal.open")
            if copy is None:
                self._folder = open_folder(folder) if handle is None else os.dup(handle)
                self._handle = open_own(self._folder, RESULTS, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            else:
                self._handle = os.dup(copy)
            self.start = self._end = self._load()
            self._copy = Copy(self._folder)
            if copy is None:
                sync_folder(self._folder)
        except BaseException as error:
            self._close_handles()
            if isinstance(error, OSError):
                raise self._error(error) from error
            raise

    def __len__(self) -> int:
        """How many ids have a record."""
        return len(self._places)

    @property
    def has_grown(self) -> bool:
        """Whether this run has appended a record."""
        return self._end > self.start

    def final(self, name: str) -> dict[str, Any] | None:
        """The last record of the id `name`; None if it has none."""
        place = self._places.get(name)
        return None if place is None else self._record_at(place >> 1)

    def finished(self, name: str) -> dict[str, Any] | None:
        """The last record of the id `name` that names a finished picture; None if it has none."""
        place = self._place(name)
        offset = self._finished.get(name) if place & 1 else place >> 1
        return None if offset is None else self._record_at(offset)

    def has_since(self, name: str, offset: int) -> bool:
        """Whether the last record of the id `name` stands at `offset` or behind it."""
        place = self._places.get(name)
        return place is not None and place >> 1 >= offset

    def has_failed(self, name: str) -> bool:
        """Whether the last record of the id `name` is a failure."""
        return bool((self._places.get(name) or 0) & 1)

    def ids(self) -> list[str]:
        """The ids that have a record, in the order of the file."""
        with self._lock:
            places = sorted(place >> 1 for place in self._places.values())
        records = (self._record_at(offset) for offset in places)
        return [record["id"] for record in records if record is not None]

    def failures(self) -> Iterator[dict[str, Any]]:
        """The last record of each id that failed, in the order of the file."""
        with self._lock:
            places = sorted(place >> 1 for place in self._places.values() if place & 1)
        for offset in places:
            record = self._record_at(offset)
            if record is not None:
                yield record

    def append(self, result: ItemResult) -> str:
        """Append the record of `result`. Returns its line."""
        line = line_of_result(result)
        self._append(result.id, line, has_failed=result.status != "ok", replaces=result.replaces)
        return line

    def append_again(self, record: dict[str, Any]) -> None:
        """Append an earlier record, also of another journal: it is the last one of its id then.

        Raises ValueError if it is no JSON.
        """
        has_failed = record["status"] != "ok"
        self._append(record["id"], line_of(record), has_failed=has_failed, replaces=replaced_by(record))

    def _append(self, name: str, line: str, *, has_failed: bool, replaces: Iterable[str] = ()) -> None:
        data = memoryview(line.encode() + b"\n")
        with self._lock:
            if self._broken is not None:
                raise self._broken
            try:
                failpoints.reached("journal.append")
                self._write(data)
                failpoints.reached("journal.appended")
                self._copy.write(data)
                self._note(name, self._end, has_failed=has_failed, replaces=replaces)
                self._end += len(data)
                self._unsynced += 1
                if self._unsynced >= SYNC_RECORDS or self._clock() - self._synced_at >= SYNC_SECONDS:
                    self._sync()
            except OSError as error:
                self._broken = self._error(error)
                self._take_back()
                raise self._broken from error
            except BaseException:  # Ctrl-C before the model loads: half a record would look like somebody else's
                self._take_back()
                raise

    def _note(self, name: str, offset: int, *, has_failed: bool, replaces: Iterable[str]) -> None:
        """The last record of the id `name` begins at `offset`. The item had the ids `replaces` before."""
        before = self._place(name)
        for other in replaces:
            place, finished = self._place(other), self._finished.pop(other, None)
            self._places.pop(other)
            finished = finished if place & 1 else place >> 1
            if finished is not None and before & 1:
                self._finished.setdefault(name, finished)
        if not has_failed:
            self._finished.pop(name, None)
        elif not before & 1:
            self._finished[name] = before >> 1
        self._places[name] = 2 * offset + has_failed

    def _place(self, name: str) -> int:
        """What `_places` has of this id, or 1: as of an item that failed, and has no record before that."""
        place = self._places.get(name)
        return 1 if place is None else place

    def flush(self) -> None:
        """Flush all records to the disk."""
        with self._lock:
            if self._broken is not None:
                raise self._broken
            try:
                self._sync()
            except OSError as error:
                raise self._error(error) from error

    def close(self) -> None:
        """Flush all records to the disk and close. A second call does nothing."""
        with self._lock:
            if self._handle < 0:
                return
            try:
                if self._changed is not None:
                    raise self._changed  # whoever heard of it first may have gone on
                if self._broken is None:
                    self._sync()
            except OSError as error:
                raise self._error(error) from error
            finally:
                self._copy.close()
                self._close_handles()

    def _load(self) -> int:
        """Find the last record of each id, and cut off a torn end. Returns the length of the file."""
        good = offset = 0
        is_ended = True  # the last record has the end of its line; an editor may have taken that away
        damaged: list[int] = []
        behind: list[int] = []  # lines that are no records, and that no record has followed yet
        with open(self._handle, "rb", closefd=False) as file:
            file.seek(0)
            for number, (line, length) in enumerate(lines_of(file), 1):
                record = parse(line)
                if record is None:
                    behind.append(number)
                else:
                    damaged += behind
                    behind = []
                    is_ok = record["status"] == "ok"
                    if is_ok:
                        shared = record.get("shared")
                        self.shared.add(shared if isinstance(shared, str) else None)
                    self._note(record["id"], offset, has_failed=not is_ok, replaces=replaced_by(record))
                    good = offset + length
                    is_ended = line.endswith(b"\n")
                offset += length
        if good < offset:
            self._repair(good, offset)
        elif not is_ended:
            good += os.write(self._handle, b"\n")
        if damaged:
            self.damaged = _damaged(damaged)
        return good

    def _repair(self, good: int, end: int) -> None:
        """Cut off the bytes after the last record. Keeps them in `CUT` unless they are a torn record of joyedit."""
        handle = self._handle
        begin = os.pread(handle, len(_BEGIN), good)
        ours = _BEGIN.startswith(begin) and os.pread(handle, 1, end - 1) != b"\n"
        if not good and not ours:
            remedy = "choose another output folder, or restore or remove the file"
            raise ManifestError([Problem("this line is not a record of joyedit", remedy).at(str(self.path), 1)])
        failpoints.reached("journal.repair")
        if not ours and not self._is_copy:
            with open(open_own(self._folder, CUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as kept:
                for offset in range(good, end, 1 << 20):
                    kept.write(os.pread(handle, min(1 << 20, end - offset), offset))
                kept.flush()
                os.fsync(kept.fileno())
        os.ftruncate(handle, good)
        os.fsync(handle)
        where = "" if ours else f" (kept in {CUT})"
        self.repaired = f"{RESULTS} ended with an incomplete record: joyedit cut off {end - good} bytes{where}"

    def _record_at(self, offset: int) -> dict[str, Any] | None:
        begin, data = self._near
        start = offset - begin
        end = data.find(b"\n", start) if 0 <= start < len(data) else -1
        if end < 0:
            start, data = 0, os.pread(self._handle, BLOCK, offset)
            while (end := data.find(b"\n")) < 0:
                more = os.pread(self._handle, max(BLOCK, len(data)), offset + len(data))
                if not more or len(data) > MAX_RECORD:
                    return None
                data += more
            if len(data) <= BLOCK:
                self._near = offset, data[: data.rindex(b"\n") + 1]
        return parse(data[start : end + 1])

    def _write(self, data: memoryview) -> None:
        if failpoints.armed():
            os.write(self._handle, data[: len(data) // 2])
            failpoints.reached("journal.half")
            data = data[len(data) // 2 :]
        while data:
            data = data[os.write(self._handle, data) :]

    def _take_back(self) -> None:
        """Remove the part of a record that may have been written, so that the file ends with a complete one."""
        try:
            os.ftruncate(self._handle, self._end)
        except OSError:  # the next start does it instead
            return

    def _sync(self) -> None:
        """Flush to the disk, and see that the file is still the one that was opened."""
        if self._is_copy:
            return
        failpoints.reached("journal.fsync")
        os.fsync(self._handle)
        failpoints.reached("journal.synced")
        found = difference(self.path, self._folder, self._handle, self._end)
        if found is not None:
            opened = Opened(self._folder, self._handle, self.start, self._end, self._copy)
            self._broken = self._changed = rescue(found, self.path, opened)
            raise self._broken
        self._unsynced = 0
        self._synced_at = self._clock()

    def _close_handles(self) -> None:
        for handle in (self._handle, self._folder):
            if handle >= 0:
                os.close(handle)
        self._handle = self._folder = -1

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {reason_of(error, self.path)}")


def has_records(folder: Path) -> bool:
    """Whether this output folder has records of an earlier run."""
    try:
        return os.stat(folder / RESULTS).st_size > 0
    except OSError:
        return False


def _damaged(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN])) + (", ..." if len(lines) > _SHOWN else "")
    what = "1 line is no record" if len(lines) == 1 else f"{len(lines)} lines are no records"
    return f"{RESULTS}: {what} (line {shown}): joyedit keeps it as it is, and passes over it"
