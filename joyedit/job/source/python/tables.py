"""Tables in memory: DataFrames of pandas, tables of Arrow, and datasets of Hugging Face, read in place.

No row is copied before its turn. Rows have the ids of their own, or by their place, as those of a dataset in files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from joyedit.errors import UsageError
from joyedit.job.source.layouts.arrow import picture_columns_of
from joyedit.job.source.layouts.rows import Reader, Row, Rows
from joyedit.job.source.python.cells import cell, holds_picture, values_of
from joyedit.job.source.python.pictures import NoPictureError
from joyedit.job.source.python.row_reader import place_in

_CHUNK = 64
"""So many rows are taken out of a table at once."""
_LOOKED = 100
"""In so many rows a reader looks for pictures where no schema tells which columns hold them."""


class TableReader(Reader):
    """A table whose rows come in chunks. `place` is how messages name the table."""

    stem = "row"
    """What ids by place begin with."""

    def __init__(self, place: str) -> None:
        super().__init__("", (place,))
        self.place = place

    def _row(self, index: int, values: Callable[[], dict[str, Any]]) -> Row:
        """The row at `index`; the problem of one whose picture cannot be read."""
        place, stable = place_in(self.place)(index), f"{self.stem}-{index:06d}"
        try:
            return Row(place, stable, values())
        except NoPictureError as error:
            return Row(place, stable, {}, problem=error.problem)


class PandasReader(TableReader):
    """A DataFrame. An index with a name is a column too. Raises UsageError for two columns of one name."""

    format = "pandas"

    def __init__(self, frame: Any, place: str) -> None:
        super().__init__(f"{place}.iloc")
        self._frame = frame
        self._names = list(map(str, self._chunk(0, 0).columns))
        twice = next((name for name in self._names if self._names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"{place}: this DataFrame has the column {twice!r} twice (rename one of them)")

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        """As in `Reader`."""
        pictures = self.picture_columns()
        for start in range(0, len(self._frame), _CHUNK):
            chunk = self._chunk(start, start + _CHUNK)
            taken = {
                name: chunk.iloc[:, number].tolist()
                for number, name in enumerate(self._names)
                if wanted is None or name in wanted or name in pictures
            }
            for offset in range(len(chunk)):
                yield self._row(start + offset, lambda at=offset, of=taken: {n: cell(c[at]) for n, c in of.items()})  # type: ignore[misc]

    def columns(self) -> list[str]:
        """As in `Reader`."""
        return self._names

    def picture_columns(self) -> frozenset[str]:
        """As in `Reader`, by the first rows."""
        begin = self._chunk(0, _LOOKED)
        found = (n for number, n in enumerate(self._names) if any(map(holds_picture, begin.iloc[:, number].tolist())))
        return frozenset(found)

    def count(self) -> int:
        """As in `Reader`."""
        return len(self._frame)

    def _chunk(self, start: int, end: int) -> Any:
        chunk = self._frame.iloc[start:end]
        named = [name for name in chunk.index.names if name is not None and name not in chunk.columns]
        return chunk.reset_index(level=named) if named else chunk


class ArrowTableReader(TableReader):
    """What gives tables of Arrow of one schema: `batches` begins anew at each call."""

    format = "Arrow"

    def __init__(self, batches: Callable[[], Iterator[Any]], schema: Any, count: int, place: str) -> None:
        super().__init__(place)
        self._batches = batches
        self._schema = schema
        self._count = count

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        """As in `Reader`."""
        index, pictures = 0, self.picture_columns()
        names = [name for name in self._schema.names if wanted is None or name in wanted or name in pictures]
        for batch in self._batches():
            columns = {name: batch.column(name) for name in names}
            for at in range(batch.num_rows):
                yield self._row(index, lambda at=at, of=columns: {n: cell(c[at].as_py()) for n, c in of.items()})  # type: ignore[misc]
                index += 1

    def columns(self) -> list[str]:
        """As in `Reader`."""
        return list(self._schema.names)

    def picture_columns(self) -> frozenset[str]:
        """As in `Reader`."""
        return frozenset(picture_columns_of(self._schema))

    def count(self) -> int:
        """As in `Reader`."""
        return self._count


class MappingsReader(TableReader):
    """A sequence whose rows are made when they are asked for, as by a transform of a dataset of Hugging Face."""

    format = "rows"

    def __init__(self, rows: Sequence[Mapping[str, Any]], place: str) -> None:
        super().__init__(place)
        self._given = rows

    def rows(self, wanted: Collection[str] | None = None) -> Rows:
        """As in `Reader`. All columns come, because the transform makes them together."""
        for index in range(len(self._given)):
            yield self._row(index, lambda at=index: values_of(self._given[at]))  # type: ignore[misc]

    def columns(self) -> list[str]:
        """As in `Reader`, of the first row."""
        return list(map(str, self._given[0])) if len(self._given) else []

    def picture_columns(self) -> frozenset[str]:
        """As in `Reader`, of the first row."""
        first = self._given[0] if len(self._given) else {}
        return frozenset(str(name) for name, value in first.items() if holds_picture(value))

    def count(self) -> int:
        """As in `Reader`."""
        return len(self._given)


def of_arrow_table(table: Any, place: str) -> ArrowTableReader:
    """The reader of a table or a batch of records of pyarrow."""

    def batches() -> Iterator[Any]:
        for start in range(0, table.num_rows, _CHUNK):
            yield table.slice(start, _CHUNK)

    return ArrowTableReader(batches, table.schema, table.num_rows, place)


def of_hub_dataset(dataset: Any, place: str) -> TableReader:
    """The reader of a `datasets.Dataset`: pictures come as the bytes of their files, as from a Parquet file.

    A dataset with a transform of its user gives what that makes.
    """
    if (dataset.format or {}).get("type") == "custom":
        return MappingsReader(dataset, place)
    plain = dataset.with_format("arrow")
    return ArrowTableReader(lambda: plain.iter(batch_size=_CHUNK), dataset.features.arrow_schema, len(dataset), place)
