"""JSONL or a JSON list -> a stream of records, each with its line. CSV and YAML have their own modules.

A reader yields a Record for each item and a Problem for each part that it cannot read, and goes on where
it can. It checks the form only; `item_builder.py` checks what the items say. JSONL may have any length: only one
item is in memory at a time. A JSON list is read as a whole, up to `MAX_JSON`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from joyedit.errors import Problem
from joyedit.job.source.problems import Record, Records, Table
from joyedit.job.source.stoppable_stream import StoppableStream
from joyedit.job.source.syntax_remedies import json_remedy
from joyedit.job.source.text import (
    MAX_ITEM,
    MAX_LINE,
    NOT_UTF8,
    UNDECODED,
    BrokenFileError,
    LineReader,
    line_at,
    lines_of,
    nul_texts_of,
    whole_text,
)
from joyedit.job.turns import as_path

MAX_JSON = 64 << 20
"""The most bytes that a JSON list may have."""

_NO_LIST = "write each object on a line of its own, without [ ]; a file named .json holds a list"
_ONE_OBJECT = "each line is one JSON object"
_BLANK = re.compile(r"[ \t\r\n]*")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    counts = Counter(name for name, _ in pairs)
    return Table(made, doubled=tuple(name for name in made if counts[name] > 1))


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def read_jsonl(stream: LineReader, file: str) -> Records:
    """JSON Lines: one object on each line, blank lines between them allowed."""
    for got in lines_of(stream, file):
        yield got if isinstance(got, Problem) else json_line(file, *got)


def json_line(file: str, line: int, text: str) -> Record | Problem:
    """The record of one line of JSONL."""
    try:
        value = _DECODER.decode(text)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return Problem("this line is a list of items", _NO_LIST).at(file, line)
        return Record(line, value)
    except json.JSONDecodeError as error:
        message = f"{_broken_json(error)} (column {error.colno})"
        is_bracket = text.strip() in ("[", "]")
        remedy = _NO_LIST if is_bracket else json_remedy(text, error.pos, error.msg) or _ONE_OBJECT
        return Problem(message, remedy).at(file, line)
    except (ValueError, RecursionError) as error:
        return Problem(_broken_json(error)).at(file, line)


def _broken_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON: {error.msg}"
    if isinstance(error, RecursionError):
        return "broken JSON: too many brackets inside each other"
    return "broken JSON: a number has too many digits"


def read_paths(stream: BinaryIO, file: str) -> Records:
    """The path of a picture on each line; or with a NUL behind each, as `find -print0` writes them."""
    lines = StoppableStream(stream, lambda: False)
    yield from path_records(lines, file, ends_with_nul=lines.begin(MAX_LINE).endswith(b"\0"))


def path_records(lines: StoppableStream, file: str, *, ends_with_nul: bool) -> Records:
    """The records of a list of paths."""
    for got in nul_texts_of(lines, file) if ends_with_nul else lines_of(lines, file):
        yield got if isinstance(got, Problem) else Record(got[0], {"image": as_path(got[1])})


def read_json(stream: BinaryIO, file: str) -> Records:
    """A JSON list of objects. After broken JSON nothing more is read."""
    try:
        text = whole_text(stream, limit=MAX_JSON, kind="a JSON list", remedy="write JSONL, which has no limit")
        for got in _json_items(text):
            yield got if isinstance(got, Record) else got.at(file)
    except BrokenFileError as error:
        yield error.problem.at(file)


def _json_items(text: str) -> Iterator[Record | Problem]:
    """The items of the list, decoded one by one; the problems name no file. Raises BrokenFileError."""
    undecoded = not text.isascii() and UNDECODED.search(text) is not None
    at = _after_blank(text, 0)
    if text[at : at + 1] != "[":
        raise _broken_at(text, at, "a JSON manifest is a list", "write [ ... ], or name the file .jsonl")
    at = _after_blank(text, at + 1)
    line, counted = 1, 0
    closed = text[at : at + 1] == "]"
    while not closed:
        line, counted = line + text.count("\n", counted, at), at
        value, end = _decode_at(text, at, line)
        bad = UNDECODED.search(text, at, end) if undecoded else None
        if bad is not None:
            yield Problem(NOT_UTF8.message, NOT_UTF8.remedy, line=line + text.count("\n", at, bad.start()))
        elif end - at > MAX_ITEM and text.find("data:", at, at + MAX_ITEM) < 0:
            yield Problem(f"this item is longer than {MAX_ITEM >> 20} MiB", line=line)
        else:
            yield Record(line, value)
        at = _after_blank(text, end)
        if text[at : at + 1] not in (",", "]"):
            raise _broken_at(text, at, "broken JSON: expecting ',' or ']' after an item")
        closed = text[at] == "]"
        at = at if closed else _after_blank(text, at + 1)
    at = _after_blank(text, at + 1)
    if at < len(text):
        raise _broken_at(text, at, "broken JSON: something follows the end of the list")


def _decode_at(text: str, at: int, line: int) -> tuple[object, int]:
    """The value that begins at `at`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        remedy = json_remedy(text, error.pos, error.msg)
        raise _broken_at(text, error.pos, _broken_json(error), remedy) from error
    except (ValueError, RecursionError) as error:
        raise BrokenFileError(Problem(_broken_json(error), line=line)) from error


def _broken_at(text: str, at: int, message: str, remedy: str = "") -> BrokenFileError:
    line = line_at(text, at)
    if UNDECODED.match(text, at):
        message, remedy = NOT_UTF8.message, NOT_UTF8.remedy
    return BrokenFileError(Problem(message, remedy, line=line))


def _after_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None, "the pattern matches the empty text too"
    return blank.end()
