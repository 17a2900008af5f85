"""A table as CSV -> a stream of records, each with its line. It may have any length: only one row is in memory.

Tables are read as spreadsheets and pandas write them: commas, semicolons or tabs between the cells, blank rows, an
index without a name as the first column, empty columns at the end.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.pictures.decode import SUPPORTED_SUFFIXES
from joyedit.job.source.problems import FewProblems, Record, Records, Table, repeated_key, shown
from joyedit.job.source.schema import PICTURE_KEYS, Schema, from_cell
from joyedit.job.source.text import NOT_UTF8, UNDECODED, CsvLines, LineReader

_DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=([,;|\t])"?\s*', re.IGNORECASE)
"""A first line by which spreadsheets tell each other the delimiter."""
_INDEX_NAME = re.compile(r"(?:Unnamed: \d+(?:\.\d+)?)?")
"""What pandas calls the column of its row numbers: nothing, or this once such a file was read and written again."""


class _Column(NamedTuple):
    """A column that is read: its place, its name as written, and its key (None: it is only kept)."""

    place: int
    name: str
    key: str | None


class _Header:
    """The first row. `problems` are what is wrong in it."""

    def __init__(self, row: list[str], schema: Schema, line: int) -> None:
        self.line = line
        self.length = len(row)
        self.columns: list[_Column] = []
        self.unnamed: dict[int, Problem] = {}
        """Columns that may be an index, or nothing; and the problem of one that is something else."""
        few = FewProblems()
        written: dict[str, str] = {}
        names: set[str] = set()
        for place, cell in enumerate(row):
            name = cell.strip()
            key = schema.key(name)
            is_read = key is not None or (name != "" and schema.keeps(name))
            if not is_read and _INDEX_NAME.fullmatch(name) and not (name and schema.passes_over(name)):
                message = f"column {place + 1} has no name"
                self.unnamed[place] = Problem(message, "the first line names the keys")
            elif not is_read:
                if schema.is_unknown(name):
                    few.add(partial(schema.unknown, name))
            elif written.setdefault(key or name, name) != name:
                few.add(partial(schema.two_spellings, written[key or name], name))
            elif name in names:
                few.add(partial(repeated_key, name))
            else:
                names.add(name)
                self.columns.append(_Column(place, name, key))
        self.problems = few.take()
        named = None if self.columns else next((cell for cell in row if _names_picture(cell)), None)
        self.is_row = named is not None
        """Whether the table lacks a header: this row is its first item."""
        if named is not None:
            message = f"the first line of a table names the keys, and this one has a picture: {shown(named.strip())}"
            self.problems = [Problem(message, "put a line such as image,instruction above it")]
        self._pictures = tuple(column.name for column in self.columns if column.key in PICTURE_KEYS)

    def misplaced(self, row: list[str]) -> Iterator[Problem]:
        """The problems of columns without a name that have values. Each is told once."""
        for place in [place for place in self.unnamed if not _is_no_value(row[place], is_first=place == 0)]:
            yield self.unnamed.pop(place)

    def data(self, row: list[str]) -> dict[str, Any]:
        """The values of a row by the names of their columns."""
        made = {name: row[place] if key is None else from_cell(key, row[place]) for place, name, key in self.columns}
        if self._pictures and all(made[name] is None for name in self._pictures):
            return Table(made, empty=self._pictures)
        return made


def read_csv(stream: LineReader, file: str, schema: Schema) -> Records:
    """Rows under a header that names the keys; an empty cell is a key without a value. Blank rows are passed over."""
    lines = CsvLines(stream)
    rows = csv.reader(lines, delimiter=_delimiter(lines, file, schema), strict=True)
    header: _Header | None = None
    while True:
        line = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            yield Problem(f"broken CSV: {error}", "put a cell with quotes in it between quotes").at(file, line)
            continue
        if _is_blank(row):
            continue
        if any(not cell.isascii() and UNDECODED.search(cell) for cell in row):
            yield NOT_UTF8.at(file, line)
            if header is None:
                return
        elif header is None:
            header = _Header(row, schema, line)
            yield from (problem.at(file, line) for problem in header.problems)
            if header.is_row:
                return
        elif len(row) != header.length and (len(row) < header.length or not _is_blank(row[header.length :])):
            message = f"this row has {len(row)} cells, the header has {header.length}"
            yield Problem(message, "put a cell with a comma in it between quotes").at(file, line)
        else:
            if header.unnamed:
                yield from (problem.at(file, header.line) for problem in header.misplaced(row))
            yield Record(line, header.data(row))


def begins_table(line: str, schema: Schema) -> bool:
    """Whether this first line names columns (one of them is the instruction or a picture), or gives the delimiter."""
    if _SEP_LINE.fullmatch(line):
        return True
    cells = [cell.strip().strip('"') for cell in re.split(r"[,;\t|]", line)]
    return any(schema.key(cell) in (*PICTURE_KEYS, "instruction") for cell in cells)


def _names_picture(cell: str) -> bool:
    return os.path.splitext(cell.strip())[1].lower() in SUPPORTED_SUFFIXES


def _is_blank(row: list[str]) -> bool:
    for cell in row:  # noqa: SIM110 (it is asked of each row, and all() takes longer)
        if cell and not cell.isspace():
            return False
    return True


def _is_no_value(cell: str, *, is_first: bool) -> bool:
    """Whether a cell below no name means nothing: it is empty, or the number of its row."""
    text = cell.strip()
    return not text or (is_first and text.isascii() and text.isdigit())


def _delimiter(lines: CsvLines, file: str, schema: Schema) -> str:
    """The delimiter with which the first line has most keys. Passes over blank lines, and over `sep=;`."""
    first = lines.peek()
    while first.isspace():
        next(lines)
        first = lines.peek()
    told = _SEP_LINE.fullmatch(first)
    if told is not None:
        next(lines)
        return told[1]
    if file.lower().endswith(".tsv"):
        return "\t"
    return max(_DELIMITERS, key=lambda delimiter: _fit(first, delimiter, schema))


def _fit(line: str, delimiter: str, schema: Schema) -> tuple[int, int]:
    """How well a delimiter fits the header: how many of its cells are keys, and how many it has."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return 0, 0
    return sum(schema.key(cell.strip()) is not None for cell in cells), len(cells)
