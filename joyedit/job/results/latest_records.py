"""The last record of an id in a journal that may still grow: each look reads on from where the one before stopped."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

from joyedit.job.number_table import NumberTable
from joyedit.job.results.records import MAX_RECORD, lines_of, parse, replaced_by
from joyedit.job.results.safe_open import open_to_read


class LatestRecords:
    """Any thread may ask. In memory are about 30 bytes an id, and nothing before the first question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forget(None)

    def get(self, name: str) -> dict[str, Any] | None:
        """The last record of this id; None if it has none. Raises OSError, and `OutputError` for no plain file."""
        with self._lock, open(open_to_read(self._path), "rb") as file:
            self._read_on(file)
            place = self._places.get(name)
            record = self._at(file, place)
            if place is not None and (record is None or record["id"] != name):  # somebody wrote the file anew
                self._forget(None)
                self._read_on(file)
                record = self._at(file, self._places.get(name))
        return record

    def _read_on(self, file: BinaryIO) -> None:
        """Note the places of the records that have come since the last look."""
        status = os.fstat(file.fileno())
        key = status.st_dev, status.st_ino
        if key != self._key or status.st_size < self._end:
            self._forget(key)
        file.seek(self._end)
        for line, length in lines_of(file):
            if length < MAX_RECORD and not line.endswith(b"\n"):  # the rest of it is still to come
                return
            record = parse(line)
            if record is not None:
                for other in replaced_by(record):
                    self._places.pop(other)
                self._places[record["id"]] = self._end
            self._end += length

    def _forget(self, key: tuple[int, int] | None) -> None:
        """Nothing is known of the file with this device and number."""
        self._key = key
        self._places = NumberTable()
        self._end = 0

    @staticmethod
    def _at(file: BinaryIO, place: int | None) -> dict[str, Any] | None:
        if place is None:
            return None
        file.seek(place)
        return parse(file.readline(MAX_RECORD))
