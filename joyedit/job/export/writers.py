"""Rows as CSV, Parquet and JSON lines. Each writer takes the cells of one row after the other and holds few of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Literal, Protocol

from joyedit.errors import UsageError
from joyedit.job.export.columns import Columns, Kind
from joyedit.job.not_finite import as_text
from joyedit.job.results.records import line_of
from joyedit.job.results.report import joyedit_version

FormatName = Literal["csv", "parquet", "jsonl"]
NEEDS = 'Parquet needs an extra: pip install "joyedit[parquet]"'
MARK = b"joyedit"
"""The key in the metadata of a Parquet file by which joyedit knows its own."""
_GROUP_ROWS = 20_000
_GROUP_BYTES = 16 << 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A text that begins so is a formula to a spreadsheet; the last four are wide forms of the first."""


class Writer(Protocol):
    """Takes rows; `end` or `drop` comes last."""

    def add(self, cells: Sequence[Any]) -> None:
        """One row, in the order of the columns."""

    def end(self) -> None:
        """Write what was held back."""

    def drop(self) -> None:
        """Write nothing more: what is there must not look complete."""


def writer_of(format: FormatName, file: BinaryIO, columns: Columns, *, guard: bool, bom: bool) -> Writer:
    """The writer of a format. `guard`: CSV cells are no formulas; `bom`: CSV begins with a byte order mark.

    Raises UsageError where an extra is missing.
    """
    if format == "csv":
        return CsvWriter(file, columns, guard=guard, bom=bom)
    return JsonlWriter(file, columns) if format == "jsonl" else ParquetWriter(file, columns)


class CsvWriter:
    """CSV as RFC 4180 has it, in UTF-8, but with line feeds alone: quotes are doubled, and lines stay in their cells.

    A guarded text that a spreadsheet would take for a formula gets an apostrophe in front.
    """

    def __init__(self, file: BinaryIO, columns: Columns, *, guard: bool = True, bom: bool = False) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=False)
        # Python before 3.13 quotes a carriage return only where that is in the end of a line.
        self._csv = csv.writer(_LineFeeds(self._text), lineterminator=_LineFeeds.TAKEN)
        self._guard = guard
        if bom:
            self._text.write("\ufeff")
        self._csv.writerow([self._shown(name) for name in columns.kinds])

    def add(self, cells: Sequence[Any]) -> None:
        """One row."""
        self._csv.writerow([self._shown(one) for one in cells])

    def end(self) -> None:
        """Everything is in the file; it stays open."""
        self._text.flush()
        self._text.detach()

    def drop(self) -> None:
        """Nothing: half a table of texts has no end that could be written."""

    def _shown(self, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return repr(value)
        if isinstance(value, list):
            return _json(value)
        text = value if isinstance(value, str) else value.isoformat()
        return f"'{text}" if self._guard and text.startswith(_FORMULA) else text


class _LineFeeds:
    """Takes rows of CSV that end with carriage return and line feed, and writes them with a line feed alone."""

    TAKEN = "\r\n"

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def write(self, row: str) -> int:
        """One whole row."""
        return self._text.write(f"{row.removesuffix(self.TAKEN)}\n")


class JsonlWriter:
    """One flat JSON object a line, with every column in it."""

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        self._file = file
        self._names = list(columns.kinds)

    def add(self, cells: Sequence[Any]) -> None:
        """One row."""
        self._file.write(f"{_json(dict(zip(self._names, map(_plain, cells), strict=True)))}\n".encode())

    def end(self) -> None:
        """Nothing is held back."""

    def drop(self) -> None:
        """Nothing, as with CSV."""


class ParquetWriter:
    """Parquet with the types of the columns, in groups of some thousand rows."""

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        self._pyarrow, parquet = pyarrow_modules()
        fields = [(name, self._type(kind)) for name, kind in columns.kinds.items()]
        self._schema = self._pyarrow.schema(fields, metadata={MARK: joyedit_version().encode()})
        self._file = _Droppable(file)
        self._writer = parquet.ParquetWriter(self._file, self._schema)
        self._rows: list[Sequence[Any]] = []
        self._bytes = 0

    def add(self, cells: Sequence[Any]) -> None:
        """One row."""
        self._rows.append(cells)
        self._bytes += sum(len(one) for one in cells if isinstance(one, str))
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._write()

    def end(self) -> None:
        """The last rows, and the end of the file."""
        self._write()
        self._writer.close()

    def drop(self) -> None:
        """pyarrow ends the file itself when its writer goes: that end would make a whole table of some rows."""
        self._file.is_dropped = True

    def _write(self) -> None:
        if not self._rows:
            return
        arrays = [
            self._pyarrow.array(cells, field.type)
            for cells, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0

    def _type(self, kind: Kind) -> Any:
        made = self._pyarrow
        types: Mapping[Kind, Any] = {
            "whole": made.int64(),
            "negative": made.int64(),
            "unsigned": made.uint64(),
            "wide": made.decimal128(20, 0),
            "number": made.float64(),
            "flag": made.bool_(),
            "time": made.timestamp("ms", tz="UTC"),
            "texts": made.list_(made.string()),
            "odd": made.string(),
            "text": made.string(),
        }
        return types[kind]


class _Droppable(io.RawIOBase):
    """An open file of bytes that takes no more from some moment on."""

    def __init__(self, file: BinaryIO) -> None:
        self.is_dropped = False
        self._file = file
        self._at = 0

    def write(self, data: Any) -> int:
        """All of it."""
        taken = memoryview(data).nbytes
        if not self.is_dropped:
            self._file.write(data)
        self._at += taken
        return taken

    def tell(self) -> int:
        """Bytes so far."""
        return self._at

    def flush(self) -> None:
        """To the file."""
        if not self.is_dropped:
            self._file.flush()

    def close(self) -> None:
        """Nothing: who opened the file closes it."""

    def writable(self) -> bool:
        """Always."""
        return True


def pyarrow_modules() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`. Raises UsageError that names the extra."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(NEEDS) from error
    return pyarrow, pyarrow.parquet


def _plain(value: Any) -> Any:
    return as_text(value) if value is None or isinstance(value, (str, int, float, list)) else value.isoformat()


def _json(value: Any) -> str:
    return line_of(value)
