"""An iterator of a program as a source: rows as they come, a few of them ahead of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from joyedit.errors import Problem, UsageError
from joyedit.job.source.layouts.mapping import ColumnMap, row_record
from joyedit.job.source.layouts.presets import preset_of
from joyedit.job.source.layouts.rows import Row
from joyedit.job.source.once_source import OnceSource
from joyedit.job.source.problems import Record, Records
from joyedit.job.source.python.cells import values_of
from joyedit.job.source.python.feed import RowFeed
from joyedit.job.source.python.pictures import NoPictureError
from joyedit.job.source.python.row_reader import RowReader, place_in
from joyedit.job.source.source_options import SourceOptions, compose_instruction


class ReadsRows(Protocol):
    """Makes records of rows, which it gets in order."""

    def read(self, index: int, row: Any) -> Record | Problem: ...


class IteratorSource(OnceSource):
    """The rows of `feed`. With `is_dataset`, they have the columns of a dataset and not the keys of a manifest."""

    def __init__(self, feed: RowFeed, name: str, options: SourceOptions, *, is_dataset: bool) -> None:
        super().__init__(name, "iterator", options)
        self._feed = feed
        self._reader: ReadsRows = (
            DatasetRows(options, name) if is_dataset else RowReader(options.item_schema(), place_in(name))
        )
        if options.dataset.where:
            raise UsageError("--where reads a dataset that can be read again (call filter of the iterator's dataset)")

    def nothing(self) -> Problem:
        """As in `OnceSource`."""
        return Problem("the iterator has no items").at(self.name)

    def _open(self) -> Records:
        for index, row in enumerate(self._feed.rows(lambda: self.stopped())):
            yield self._reader.read(index, row)


class DatasetRows:
    """Reads the rows of a dataset that streams. The columns of the first row tell which published one it is."""

    def __init__(self, options: SourceOptions, name: str) -> None:
        self._options = options
        self._stem = options.dataset.split or "row"
        self._place: Callable[[int], str] = place_in(name)
        self._columns: ColumnMap | None = None

    def read(self, index: int, row: Any) -> Record | Problem:
        """The record of the row at `index`, or what is wrong with it."""
        place = self._place(index)
        if not isinstance(row, dict):
            return Problem(f"a row of a dataset is a mapping of columns, not {type(row).__name__}").at(place)
        try:
            values = values_of(row)
        except NoPictureError as error:
            return error.problem.at(place)
        if self._columns is None:
            self._columns = self._map_of(values)
        made = Row(place, f"{self._stem}-{index:06d}", values)
        return row_record(self._columns, made, index + 1, not self._options.text_to_image)

    def _map_of(self, values: dict[str, Any]) -> ColumnMap:
        options = self._options
        lacks = compose_instruction(
            options.recipe, options.first_values, own=None, prompt=options.prompt, default=None
        )[1]
        return ColumnMap(
            preset_of(values),
            options.columns,
            options.known_parameters(),
            reads_captions=bool(lacks),
            has_keys=True,
            chains_turns=options.dataset.chains_turns,
        )
