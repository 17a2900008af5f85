"""results.jsonl: one record for each item, appended when the item reaches its final state.

A record is one JSON object on one line:

    id            the item's id
    status        "ok" or "failed"
    instruction   the text as it went to the model, template filled in
    inputs        paths of the references, in order
    output        path of the picture, relative to the output folder; null if there is none
    bucket        [height, width] of the target in pixels; null if the item never had one
    settings      steps, guidance_scale, seed, negative_prompt, basesize, width, height (as asked for,
                  or null), schedule, model, dtype, attention, joyedit (its version); empty for a line of
                  the manifest that is no item
    seconds       the item's share of each stage: read, encode, denoise, decode, write
    notes         unusual steps that the pictures needed, as texts
    error         null, or {"code": a stable word, "message": one line}
    source        {"file", "line"}: where the item comes from; line is null if the source has no lines
    fingerprint   sha256 of everything that the picture depends on (see fingerprint.py); null for a failed item
    output_bytes, output_sha256   of the picture's file; null for a failed item
    inputs_seen   for each reference, as joyedit read it: [sha256, bytes, mtime_ns, ctime_ns]
    planned_output   the output of a failed item; null for a finished item and for a line that is no item
    at            when the item was finished, in UTC

joyedit writes the record of a picture after the picture has its final name. Later runs append to the same
file. If several records have the same id, the last one counts.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from joyedit.errors import ManifestError, OutputError, Problem, os_reason
from joyedit.job import failpoints
from joyedit.job.clock import utc_now
from joyedit.job.results.output_folder import sync_folder
from joyedit.job.spec import ItemResult

RESULTS = "results.jsonl"
CUT = "results.cut"
"""A repair keeps the bytes after the last record here, unless they are a torn record of joyedit."""

SYNC_RECORDS = 16
SYNC_SECONDS = 1.0

MAX_RECORD = 64 << 20
"""The most bytes of a record. No record that joyedit writes is nearly as long."""

_BEGIN = b'{"id": "'
_BLOCK = 1 << 14
"""Bytes to read at once for one record: a resume often needs its neighbours next."""


def record_of(result: ItemResult) -> dict[str, Any]:
    """The record of `result`, ready for JSON."""
    return {
        "id": result.id,
        "status": result.status,
        "instruction": result.instruction,
        "inputs": list(result.inputs),
        "output": result.output,
        "bucket": None if result.bucket is None else list(result.bucket),
        "settings": result.settings,
        "seconds": {stage: round(seconds, 6) for stage, seconds in result.seconds.items()},
        "notes": list(result.notes),
        "error": result.error,
        "source": None if result.origin is None else {"file": result.origin.file, "line": result.origin.line},
        "fingerprint": result.fingerprint,
        "output_bytes": result.output_bytes,
        "output_sha256": result.output_sha256,
        "inputs_seen": [[seen.sha256, *seen.stamp] for seen in result.inputs_seen],
        "planned_output": result.planned_output,
        "at": utc_now("milliseconds"),
    }


def line_of(record: dict[str, Any]) -> str:
    """`record` as one line of JSON, without the newline. It is valid UTF-8 for any path."""
    text = json.dumps(record, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8 has lone surrogates
        text = json.dumps(record, allow_nan=False)
    return text


class Journal:
    """The open results.jsonl of one run: finds the last record of each id, and appends new records.

    Any thread may call the methods; close the journal at the end. Only one process may have it open: the lock
    of the output folder sees to that. A kill or a power cut can leave a torn record at the end; the journal
    cuts it off when it opens, and `repaired` says so.

    Each record reaches the operating system at once, and the disk in small groups: after every
    `SYNC_RECORDS` records, with the first record after `SYNC_SECONDS`, and at the end. Each method raises
    `OutputError` if the file cannot be written; after that the journal accepts no further record.

    In memory is a dict of about 120 bytes an id: where its last record begins, and whether the item failed.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises also `ManifestError` if a line before the end is no record."""
        self.path = folder / RESULTS
        self.repaired: str | None = None
        self._lock = threading.Lock()
        self._clock = clock
        self._near = (0, b"")  # an offset, and the complete records from there on, which never change
        self._places: dict[str, int] = {}  # of each id: 2 * the offset of its last record, + 1 if that failed
        self._records = 0
        self._unsynced = 0
        self._broken: OutputError | None = None
        self._synced_at = clock()
        try:
            failpoints.reached("journal.open")
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - close() is the caller's
            try:
                self._end = self._load()
                sync_folder(folder)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._error(error) from error

    def __len__(self) -> int:
        """How many ids have a record."""
        return len(self._places)

    def final(self, name: str) -> dict[str, Any] | None:
        """The last record of the id `name`; None if it has none."""
        place = self._places.get(name)
        return None if place is None else self._record_at(place >> 1)

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
        line = line_of(record_of(result))
        data = memoryview(line.encode() + b"\n")
        with self._lock:
            if self._broken is not None:
                raise self._broken
            try:
                failpoints.reached("journal.append")
                self._write(data)
                failpoints.reached("journal.appended")
                self._places[result.id] = 2 * self._end + (result.status == "failed")
                self._end += len(data)
                self._unsynced += 1
                if self._unsynced >= SYNC_RECORDS or self._clock() - self._synced_at >= SYNC_SECONDS:
                    self._sync()
            except OSError as error:
                self._broken = self._error(error)
                self._take_back()
                raise self._broken from error
        return line

    def close(self) -> None:
        """Flush all records to the disk and close. A second call does nothing."""
        with self._lock:
            if self._file.closed:
                return
            try:
                try:
                    self._sync()
                finally:
                    self._file.close()
            except OSError as error:
                raise self._error(error) from error

    def _load(self) -> int:
        """Find the last record of each id, and cut off a torn end. Returns the length of the file."""
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            return 0
        good = offset = 0
        broken: int | None = None  # the first line after the last record that is no record
        with open(self._file.fileno(), "rb", closefd=False) as file:
            file.seek(0)
            for number, (line, length) in enumerate(_lines(file), 1):
                record = _parse(line)
                if record is None:
                    broken = number if broken is None else broken
                elif broken is not None:
                    raise _no_record(self.path, broken)
                else:
                    self._places[record["id"]] = 2 * offset + (record.get("status") != "ok")
                    good = offset + length
                offset += length
        if good < offset:
            self._repair(good, offset)
        return good

    def _repair(self, good: int, end: int) -> None:
        """Cut off the bytes after the last record. Keeps them in `CUT` unless they are a torn record of joyedit."""
        handle = self._file.fileno()
        begin = os.pread(handle, len(_BEGIN), good)
        ours = _BEGIN.startswith(begin) and b"\n" not in _last_byte(handle, end)
        if not good and not ours:
            raise _no_record(self.path, 1)
        failpoints.reached("journal.repair")
        if not ours:
            with open(self.path.with_name(CUT), "ab") as kept:
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
            start, data = 0, os.pread(self._file.fileno(), _BLOCK, offset)
            while (end := data.find(b"\n")) < 0:
                more = os.pread(self._file.fileno(), max(_BLOCK, len(data)), offset + len(data))
                if not more or len(data) > MAX_RECORD:
                    return None
                data += more
            if len(data) <= _BLOCK:
                self._near = offset, data[: data.rindex(b"\n") + 1]
        return _parse(data[start : end + 1])

    def _write(self, data: memoryview) -> None:
        if failpoints.armed():
            self._file.write(data[: len(data) // 2])
            failpoints.reached("journal.half")
            data = data[len(data) // 2 :]
        while data:
            data = data[self._file.write(data) :]

    def _take_back(self) -> None:
        """Remove the part of a record that may have been written, so that the file ends with a complete one."""
        try:
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                os.ftruncate(self._file.fileno(), self._end)
        except OSError:  # the next start does it instead
            return

    def _sync(self) -> None:
        failpoints.reached("journal.fsync")
        os.fsync(self._file.fileno())
        failpoints.reached("journal.synced")
        self._unsynced = 0
        self._synced_at = self._clock()

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {os_reason(error)}")


def has_records(folder: Path) -> bool:
    """Whether this output folder has records of an earlier run."""
    try:
        return os.stat(folder / RESULTS).st_size > 0
    except OSError:
        return False


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """All records of a journal, one at a time, also those that a later record of the same id replaces.

    It ignores bytes after the last record, which a killed run may leave. A line before them that is no record
    raises `ManifestError` with file and line.
    """
    for _, record in _records(path):
        yield record


def final_records(path: Path) -> Iterator[dict[str, Any]]:
    """The last record of each id, in the order of the file. Reads the file twice."""
    last: dict[str, int] = {}
    for number, record in _records(path):
        last[record["id"]] = number
    for number, record in _records(path):
        if last.get(record["id"]) == number:
            yield record


def error_code(record: dict[str, Any]) -> str | None:
    """The code of a failed record ("unknown" if it has none); None for the record of a picture."""
    if record.get("status") == "ok":
        return None
    error = record.get("error")
    return str(error.get("code")) if isinstance(error, dict) else "unknown"


def torn_bytes(path: Path) -> int:
    """How many bytes follow the last record."""
    end = good = 0
    with open(path, "rb") as file:
        for line, length in _lines(file):
            end += length
            if _parse(line) is not None:
                good = end
    return end - good


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records, each with the number of its line."""
    broken: int | None = None
    with open(path, "rb") as file:
        for number, (line, _) in enumerate(_lines(file), 1):
            record = _parse(line)
            if record is None:
                broken = number if broken is None else broken
            elif broken is not None:
                raise _no_record(path, broken)
            else:
                yield number, record


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line and its length; only the beginning of a line that is too long for a record."""
    while line := file.readline(MAX_RECORD):
        length = len(line)
        while length >= MAX_RECORD and not line.endswith(b"\n"):
            rest = file.readline(MAX_RECORD)
            length += len(rest)
            if not rest or rest.endswith(b"\n"):
                line = line[:_BLOCK]
                break
        yield line, length


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):  # a torn line may still be valid JSON, for example a number cut short
        return None
    try:
        record = from_json(line)  # takes a third of the time of json
    except ValueError:  # it also refuses some valid JSON: half a surrogate pair, deep nesting
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None


def _last_byte(handle: int, end: int) -> bytes:
    return os.pread(handle, 1, end - 1)


def _no_record(path: Path, line: int) -> ManifestError:
    remedy = "remove this line to edit its item again, or restore the file, or choose another output folder"
    return ManifestError([Problem("this line is not a record of joyedit", remedy).at(str(path), line)])
