"""The four kinds of manifest file -> a stream of records, each with its line. Nothing is judged but the form.

Each reader yields a Record for every item and a Problem for everything that is none, and goes on where
it can. Only one item is in memory at a time, whatever the length of the file.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from joyedit.errors import Problem
from joyedit.job.source.problems import Fault, Record, Table, shown
from joyedit.job.source.schema import Schema, from_cell
from joyedit.job.source.yaml_reader import YamlError, YamlReader

Records = Iterator[Record | Problem]

MAX_ITEM = 4 << 20
"""The most bytes that one item may take. A file of one endless line must not fill the memory."""

_BOM = codecs.BOM_UTF8
_CHUNK = 1 << 16
_TOO_LONG = Fault(f"longer than {MAX_ITEM >> 20} MiB", "one item stands on one line")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    names = [name for name, _ in pairs]
    return Table(made, doubled=tuple(name for name in made if names.count(name) > 1))


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def _problem(file: str, line: int | None, fault: Fault) -> Problem:
    return Problem(file=file, line=line, message=fault.message, remedy=fault.remedy)


def lines_of(stream: BinaryIO, file: str) -> Iterator[tuple[int, str] | Problem]:
    """The lines that are not blank, as text without their ends; a Problem for one that is no text."""
    number = 0
    while raw := stream.readline(MAX_ITEM + 1):
        number += 1
        if len(raw) > MAX_ITEM:
            yield _problem(file, number, _TOO_LONG)
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_ITEM)
            continue
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if raw.isspace() or not raw:
            continue
        try:
            yield number, raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            message = f"not valid UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})"
            yield _problem(file, number, Fault(message, "save the file as UTF-8"))


def json_line(file: str, line: int, text: str) -> Record | Problem:
    """The record of one line of JSONL."""
    try:
        return Record(line, _DECODER.decode(text))
    except json.JSONDecodeError as error:
        remedy = "each line is one JSON object"
        return _problem(file, line, Fault(f"broken JSON: {error.msg} (column {error.colno})", remedy))
    except ValueError:
        return _problem(file, line, Fault("broken JSON: a number with too many digits"))
    except RecursionError:
        return _problem(file, line, Fault("broken JSON: too many brackets inside each other"))


def read_jsonl(stream: BinaryIO, file: str) -> Records:
    """JSON Lines: one object on each line, blank lines between them allowed."""
    for got in lines_of(stream, file):
        yield got if isinstance(got, Problem) else json_line(file, *got)


def read_json(stream: BinaryIO, file: str) -> Records:
    """A JSON list of objects. After broken JSON nothing more is read."""
    try:
        yield from _JsonList(stream, file).records()
    except _BrokenError as error:
        yield error.problem


class _BrokenError(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class _JsonList:
    """Takes a list apart element by element; holds one element and one chunk of the file."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self.stream = stream
        self.file = file
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.at = 0
        self.line = 1  # of self.at
        self.done = False

    def records(self) -> Records:
        if self._next() != "[":
            raise self._broken("a JSON manifest is a list", "write [ ... ], or name the file .jsonl")
        self._move(self.at + 1)
        if self._next() == "]":
            self._move(self.at + 1)
        else:
            while True:
                self._next()
                line = self.line
                yield Record(line, self._element())
                mark = self._next()
                if mark not in (",", "]"):
                    raise self._broken("broken JSON: expecting ',' or ']' after an item")
                self._move(self.at + 1)
                if mark == "]":
                    break
        if self._next():
            raise self._broken("broken JSON: something follows the end of the list")

    def _element(self) -> object:
        wanted = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # The element may go on behind what was read so far; a fault well before the end is one.
                cut = error.msg.startswith("Unterminated") or error.pos > len(self.text) - 32
                if self.done or not cut:
                    self._move(min(error.pos, len(self.text)))
                    raise self._broken(f"broken JSON: {error.msg}") from error
            except ValueError as error:
                raise self._broken("broken JSON: a number with too many digits") from error
            except RecursionError as error:
                raise self._broken("broken JSON: too many brackets inside each other") from error
            else:
                if end - self.at <= MAX_ITEM and (end < len(self.text) or self.done):
                    self._move(end)
                    return value
            if len(self.text) - self.at > MAX_ITEM:
                raise self._broken(f"an item is {_TOO_LONG.message}")
            self._read(wanted)
            wanted = min(2 * wanted, MAX_ITEM)

    def _next(self) -> str:
        """The next character that is not blank, now at `self.at`; "" at the end of the file."""
        while True:
            at = self.at
            while at < len(self.text) and self.text[at] in " \t\r\n":
                at += 1
            self._move(at)
            if at < len(self.text):
                return self.text[at]
            if self.done:
                return ""
            self._read(_CHUNK)

    def _move(self, at: int) -> None:
        self.line += self.text.count("\n", self.at, at)
        self.at = at

    def _read(self, size: int) -> None:
        chunk = self.stream.read(size)
        try:
            more = self.decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = bytes(error.object[: error.start]).count(b"\n")
            self.line += self.text.count("\n", self.at) + before
            raise self._broken("not valid UTF-8", "save the file as UTF-8") from error
        self.text, self.at = self.text[self.at :] + more, 0
        self.done = not chunk

    def _broken(self, message: str, remedy: str = "") -> _BrokenError:
        return _BrokenError(_problem(self.file, self.line, Fault(message, remedy)))


def read_csv(stream: BinaryIO, file: str, schema: Schema) -> Records:
    """Comma-separated values under a header that names the keys; an empty cell is a key not given."""
    lines = _CsvLines(stream)
    rows = csv.reader(lines, strict=True)
    keys: list[str | None] | None = None
    while True:
        line = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            remedy = "a cell with quotes in it is quoted itself"
            yield _problem(file, line, Fault(f"broken CSV: {error}", remedy))
            continue
        if not row or row == [""]:
            continue
        bad = next((cell for cell in row if _undecoded(cell)), None)
        if bad is not None:
            yield _problem(file, line, Fault("not valid UTF-8", "save the file as UTF-8"))
            if keys is None:
                return
        elif keys is None:
            keys, faults = _csv_header(row, schema)
            for fault in faults:
                yield _problem(file, line, fault)
        elif len(row) != len(keys):
            message = f"this row has {len(row)} cells, the header has {len(keys)}"
            yield _problem(file, line, Fault(message, "a cell with a comma in it is quoted"))
        else:
            cells = zip(keys, row, strict=True)
            yield Record(line, {key: from_cell(key, cell) for key, cell in cells if key is not None})


def _undecoded(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell)


def _csv_header(row: list[str], schema: Schema) -> tuple[list[str | None], list[Fault]]:
    """The key of each column (None: a column that is passed over, because of a fault), and the faults."""
    keys: list[str | None] = []
    faults: list[Fault] = []
    written: dict[str, str] = {}
    if len(row) == 1 and (";" in row[0] or "\t" in row[0]):
        return [None], [Fault("the header has one column only", "the cells are separated by commas")]
    for number, cell in enumerate(row, 1):
        name = cell.strip()
        key = schema.key(name)
        if not name:
            faults.append(Fault(f"column {number} has no name", "the first line names the keys"))
        elif key is None:
            faults.append(schema.unknown(name))
        elif key in written:
            faults.append(
                Fault(f"'{written[key]}' and '{name}' are two spellings of one key", "keep one of them")
                if name != written[key]
                else Fault(f"the key '{name}' stands twice", "keep one of them")
            )
            key = None
        else:
            written[key] = name
        keys.append(key)
    return keys, faults


class _CsvLines:
    """The lines for the csv module, counted; bytes that are no text come through as lone surrogates."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.number = 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        raw = self.stream.readline(MAX_ITEM)
        if not raw:
            raise StopIteration
        if self.number == 0:
            raw = raw.removeprefix(_BOM)
        self.number += raw.endswith(b"\n") or len(raw) < MAX_ITEM
        return raw.decode("utf-8", "surrogateescape")


def read_yaml(stream: BinaryIO, file: str) -> Records:
    """The items of a YAML manifest: a list, or the `items:` of a mapping. Nothing follows broken YAML."""
    for got in _yaml(stream, file):
        if not isinstance(got, _Defaults):
            yield got


def read_yaml_defaults(stream: BinaryIO, file: str) -> Record | None:
    """The `defaults:` of a YAML manifest, wherever they stand; None if it has none."""
    for got in _yaml(stream, file):
        if isinstance(got, _Defaults):
            return got.record
    return None


class _Defaults:
    """The `defaults:` on their way through the stream; a record of None says that there can be none."""

    def __init__(self, record: Record | None) -> None:
        self.record = record


def _yaml(stream: BinaryIO, file: str) -> Iterator[Record | Problem | _Defaults]:
    reader: YamlReader | None = None
    try:
        reader = YamlReader(stream)
        yield from _yaml_document(reader, file)
    except YamlError as error:
        yield _problem(file, error.line, error.fault)
    finally:
        if reader is not None:
            reader.close()


def _yaml_document(reader: YamlReader, file: str) -> Iterator[Record | Problem | _Defaults]:
    if reader.empty:
        return
    kind = reader.opens()
    if kind == "list":
        yield _Defaults(None)
        yield from _yaml_items(reader, file)
    elif kind == "mapping":
        yield from _yaml_sections(reader, file)
    else:
        line = reader.line
        value = reader.value()
        reader.faults.clear()
        if value is not None:
            message = f"a YAML manifest is a list of items, not {shown(value)}"
            yield _problem(file, line, Fault(message, "or a mapping with 'items:' and 'defaults:'"))
    reader.end()


def _yaml_sections(reader: YamlReader, file: str) -> Iterator[Record | Problem | _Defaults]:
    sections = Schema(("items", "defaults"))
    seen: set[str | None] = set()
    first = reader.line
    reader.enter()
    while reader.opens():
        line = reader.line
        name = reader.value()
        if name in ("items", "defaults") and name in seen:
            yield _problem(file, line, Fault(f"the key '{name}' stands twice", "keep one of them"))
            reader.value()
        elif name == "items" and reader.opens() == "list":
            yield from _yaml_items(reader, file)
        elif name == "items":
            message = f"items must be a list, not {shown(reader.value())}"
            yield _problem(file, line, Fault(message, "each item begins with '- '"))
        else:
            value = reader.value()
            if name == "defaults":
                yield _Defaults(Record(line, value))
            else:
                known = sections.unknown(name) if isinstance(name, str) else Fault(f"unknown key {shown(name)}")
                yield _problem(file, line, known)
        seen.add(name if isinstance(name, str) else None)
        yield from _yaml_faults(reader, file)
    reader.enter()
    if "items" not in seen:
        yield _problem(file, first, Fault("there is no 'items:'", "the list of items stands under it"))


def _yaml_items(reader: YamlReader, file: str) -> Records:
    reader.enter()
    while reader.opens():
        line = reader.line
        value = reader.value()
        if reader.faults:
            yield from _yaml_faults(reader, file)
        else:
            yield Record(line, value)
    reader.enter()


def _yaml_faults(reader: YamlReader, file: str) -> Iterator[Problem]:
    for line, fault in reader.faults:
        yield _problem(file, line, fault)
    reader.faults.clear()
