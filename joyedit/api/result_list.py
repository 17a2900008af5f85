"""The results of a run, read from results.jsonl when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from joyedit.api.folder import ResultFolder
from joyedit.api.result import Result
from joyedit.errors import OutputError, os_reason
from joyedit.job.own_files import RESULTS
from joyedit.job.results.records import lines_of, parse
from joyedit.job.results.safe_open import open_to_read


class ResultList(Sequence[Result]):
    """One result for each item that has one, in the order of the source. In memory are only ids and places.

    `ids` says of each item whether an earlier run had finished it. `held` are records that are in no file, and `file`
    is the picture of a run that made one file.
    """

    def __init__(
        self,
        folder: ResultFolder,
        ids: Mapping[str, bool],
        *,
        held: Mapping[str, Mapping[str, Any]] | None = None,
        file: Path | None = None,
    ) -> None:
        self._folder = folder
        self._ids = list(ids)
        self._was_done = dict(ids)
        self._held = held
        self._file = file
        self._places: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...

    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        if isinstance(index, slice):
            return [self._result(name) for name in self._ids[index]]
        return self._result(self._ids[index])

    def __iter__(self) -> Iterator[Result]:
        return map(self._result, self._ids)

    def _result(self, name: str) -> Result:
        return Result(self._record(name), self._folder, was_done=self._was_done[name], file=self._file)

    def _record(self, name: str) -> Mapping[str, Any]:
        """The last record of an item. Raises OutputError if it is gone."""
        if self._held is not None and name in self._held:
            return self._held[name]
        path = self._folder.path / RESULTS
        try:
            if self._places is None:
                self._places = self._found(path)
            record = self._at(path, self._places.get(name))
            if record is None or record["id"] != name:  # somebody wrote the file anew
                self._places = self._found(path)
                record = self._at(path, self._places.get(name))
        except OSError as error:
            raise OutputError(f"{path}: cannot read this file: {os_reason(error)}") from error
        if record is None:
            raise OutputError(f"{path} has no record of {name} any more")
        return record

    def _found(self, path: Path) -> dict[str, int]:
        """Where the last record of each item begins."""
        places: dict[str, int] = {}
        offset = 0
        with open(open_to_read(path), "rb") as file:
            for line, length in lines_of(file):
                record = parse(line)
                if record is not None and record["id"] in self._was_done:
                    places[record["id"]] = offset
                offset += length
        return places

    def _at(self, path: Path, place: int | None) -> dict[str, Any] | None:
        if place is None:
            return None
        with open(open_to_read(path), "rb") as file:
            file.seek(place)
            line, _ = next(lines_of(file), (b"", 0))
        return parse(line)
