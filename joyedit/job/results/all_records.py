"""The last record of each id of an output folder, also where its shards are not merged, and while a run goes on.

What is read are the records that were there at the start. In memory are about 30 bytes an item.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyedit.errors import OutputError, os_reason
from joyedit.job.number_table import NumberTable
from joyedit.job.own_files import RESULTS
from joyedit.job.results.records import MAX_RECORD, error_code, file_of, lines_of, output_of, parse, replaced_by
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.results.shard_folders import ShardFolder, shard_folders
from joyedit.job.results.verify import require_journal


@dataclass(frozen=True, slots=True)
class FinalRecord:
    """The last record of an item, and the shard in whose folder it stands; None for the output folder itself."""

    record: dict[str, Any]
    shard: ShardFolder | None

    @property
    def output(self) -> str | None:
        """The finished picture relative to the output folder; None if there is none."""
        return self._inside(output_of(self.record))

    @property
    def file(self) -> str | None:
        """The file of that picture: its own, or the shard of pictures that holds it."""
        return self._inside(file_of(self.record))

    def _inside(self, name: str | None) -> str | None:
        return name if name is None or self.shard is None else f"{self.shard.inside}{name}"


class AllRecords:
    """The last records of `out`, in the order of their files.

    An item that is done in one place is done; else the record of a shard comes before that of the output folder. Raises
    `UsageError` if `out` is no output folder, `OutputError` if a journal cannot be read.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        shards = shard_folders(out)
        if not shards:
            require_journal(out)
        self._places: list[ShardFolder | None] = [None] if (out / RESULTS).is_file() else []
        self._places += [one for one in shards if one.has_records]
        self._paths = [(out if one is None else one.path) / RESULTS for one in self._places]
        self._begins: list[int] = []
        self._end = 0
        self._last = NumberTable()
        for path in self._paths:
            self._index(path)

    def __len__(self) -> int:
        return len(self._last)

    def __iter__(self) -> Iterator[FinalRecord]:
        for number in range(len(self._paths)):
            for at, record in self._records(number):
                known = self._last.get(record["id"])
                if known is not None and known >> 1 == at:
                    yield FinalRecord(record, self._places[number])

    def get(self, name: str) -> FinalRecord | None:
        """The last record of this id; None if it has none. Any thread may ask."""
        at = self.place_of(name)
        return None if at is None else self.at(at)

    def place_of(self, name: str) -> int | None:
        """Where the last record of this id stands; None if there is none."""
        known = self._last.get(name)
        return None if known is None else known >> 1

    def at(self, place: int) -> FinalRecord | None:
        """The record at a place that `place_of` gave; None where it cannot be read any more."""
        number = bisect_right(self._begins, place) - 1
        try:
            with open(open_to_read(self._paths[number]), "rb") as file:
                file.seek(place - self._begins[number])
                record = parse(file.readline(MAX_RECORD))
        except OSError as error:
            raise self._error(self._paths[number], error) from error
        return None if record is None else FinalRecord(record, self._places[number])

    def _index(self, path: Path) -> None:
        known_before = self._end
        self._begins.append(known_before)
        try:
            self._end += os.stat(path).st_size
        except OSError as error:
            raise self._error(path, error) from error
        for at, record in self._records(len(self._begins) - 1):
            for name in replaced_by(record):
                self._last.pop(name)
            is_ok = error_code(record) is None
            known = self._last.get(record["id"])
            if known is None or known >> 1 >= known_before or is_ok or not known & 1:
                self._last[record["id"]] = at << 1 | is_ok

    def _records(self, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records of the journal of this number that were there at the start, each with its place."""
        path, at = self._paths[number], self._begins[number]
        end = self._begins[number + 1] if number + 1 < len(self._begins) else self._end
        try:
            with open(open_to_read(path), "rb") as file:
                for line, length in lines_of(file):
                    if at + length > end:
                        return
                    record = parse(line)
                    if record is not None:
                        yield at, record
                    at += length
        except OSError as error:
            raise self._error(path, error) from error

    @staticmethod
    def _error(path: Path, error: OSError) -> OutputError:
        return OutputError(f"cannot read {path}: {os_reason(error)}")
