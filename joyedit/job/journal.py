"""results.jsonl: one record for each item, appended when the item reached its final state.

A record is one JSON object on one line:

    id            the item's id
    status        "ok" or "failed"
    instruction   the text as it went to the model, template filled in
    inputs        paths of the references, in order
    output        path of the picture, relative to the output folder; null if there is none
    bucket        [height, width] of the target in pixels; null if the item never had one
    settings      steps, guidance_scale, seed, negative_prompt, basesize, width, height (as asked for,
                  or null), schedule, model, dtype, attention, joyedit (its version); empty for an item
                  that failed before it was planned
    seconds       the item's share of each stage: read, encode, denoise, decode, write
    notes         what was done to the pictures beyond the ordinary, as texts
    error         null, or {"code": a stable word, "message": one line}
    source        {"file", "line"}: where the item was written down; line is null if there are no lines

The record of a picture is written after the picture is in place under its final name.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from joyedit.errors import ManifestError, OutputError, Problem
from joyedit.job.output import sync_folder
from joyedit.job.spec import ItemResult

RESULTS = "results.jsonl"

SYNC_RECORDS = 16
SYNC_SECONDS = 1.0


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
    }


def line_of(record: dict[str, Any]) -> str:
    """`record` as one line of JSON, without the newline. Valid UTF-8 whatever the paths hold."""
    text = json.dumps(record, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8 comes as lone surrogates
        text = json.dumps(record, allow_nan=False)
    return text


class Journal:
    """The open results.jsonl of one run. Append from any thread; close when done.

    Each record reaches the operating system at once, and the disk in small groups: after every
    `SYNC_RECORDS` records, with the first record after `SYNC_SECONDS`, and at the end. Each method
    raises `OutputError` when the file cannot be written.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = folder / RESULTS
        self._lock = threading.Lock()
        self._clock = clock
        self._unsynced = 0
        self._synced_at = clock()
        try:
            keep_earlier(self.path)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - close() is the caller's
            sync_folder(folder)
        except OSError as error:
            raise self._error(error) from error

    def append(self, result: ItemResult) -> str:
        """Add the record of `result`; gives the line that was written."""
        line = line_of(record_of(result))
        data = memoryview(line.encode() + b"\n")
        try:
            with self._lock:
                while data:
                    data = data[self._file.write(data) :]
                self._unsynced += 1
                if self._unsynced >= SYNC_RECORDS or self._clock() - self._synced_at >= SYNC_SECONDS:
                    self._sync()
        except OSError as error:
            raise self._error(error) from error
        return line

    def close(self) -> None:
        """Flush everything to the disk and close. A second call does nothing."""
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

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0
        self._synced_at = self._clock()

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror or error}")


def keep_earlier(path: Path) -> Path | None:
    """Move the journal of an earlier run out of the way: results.jsonl becomes results.1.jsonl, or
    the next number that is free. Gives the new path, or None if there was nothing to keep.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return None
    number = 1
    while (kept := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    os.rename(path, kept)
    return kept


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal, one at a time.

    A last line that is torn (the run was killed while it wrote) is left out. A line that is broken
    anywhere else raises `ManifestError` with file and line.
    """
    with open(path, "rb") as file:
        number = 0
        line = file.readline()
        while line:
            number += 1
            following = file.readline()
            record = _parse(line)
            if record is not None:
                yield record
            elif following:
                problem = Problem(
                    file=str(path),
                    line=number,
                    message="this line is no record of joyedit",
                    remedy="remove it, or restore the file",
                )
                raise ManifestError([problem])
            line = following


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):  # a torn line may still be valid JSON: a number cut short, say
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("id"), str) else None
