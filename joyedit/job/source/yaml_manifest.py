"""A YAML manifest -> its records and its `defaults:`.

The file is a list of items, or a mapping with `items:` and, before or after them, `defaults:`. Sections whose names
begin with `x-` may hold anchors for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import yaml

from joyedit.errors import Problem
from joyedit.job.source.problems import KEPT_OF_ITEM, Record, Records, repeated_key, shown
from joyedit.job.source.schema import Schema
from joyedit.job.source.text import BrokenFileError
from joyedit.job.source.yaml_reader import open_yaml

_SECTIONS = Schema(("items", "defaults"))


class _Defaults:
    """The `defaults:` on their way through the stream."""

    def __init__(self, record: Record) -> None:
        self.record = record


_Parts = Iterator[Record | Problem | _Defaults]


def read_yaml(stream: BinaryIO, file: str, schema: Schema) -> Records:
    """The items of the manifest. After broken YAML nothing more is read."""
    for got in _parts(stream, file, schema):
        if not isinstance(got, _Defaults):
            yield got


def read_yaml_defaults(stream: BinaryIO, file: str, schema: Schema) -> Record | None:
    """The `defaults:` of the manifest; None if it has none. The problems of the rest are for `read_yaml`."""
    for got in _parts(stream, file, schema):
        if isinstance(got, _Defaults):
            return got.record
    return None


def _parts(stream: BinaryIO, file: str, schema: Schema) -> _Parts:
    try:
        with open_yaml(stream, "write JSONL, which has no limit") as loader:
            if loader is not None:
                loader.passes_over = schema.passes_over
                for got in _document(loader):
                    yield got.at(file) if isinstance(got, Problem) else got
    except BrokenFileError as error:
        yield error.problem.at(file)


def _document(loader: Any) -> _Parts:
    if loader.check_event(yaml.SequenceStartEvent):
        yield from _items(loader)
    elif loader.check_event(yaml.MappingStartEvent):
        yield from _sections(loader)
    else:
        line = _line(loader)
        value = loader.value()
        if value is not None:
            message = f"a YAML manifest is a list of items, not {shown(value)}"
            yield Problem(message, "or a mapping with 'items:' and 'defaults:'", line=line)


def _sections(loader: Any) -> _Parts:
    seen: set[str] = set()
    wrong = 0
    first = _line(loader)
    loader.refuse_tag(loader.get_event())
    while not loader.check_event(yaml.MappingEndEvent):
        line, name = _line(loader), loader.value()
        is_list = loader.check_event(yaml.SequenceStartEvent)
        known = name in ("items", "defaults") and name not in seen
        if isinstance(name, str) and name.startswith("x-"):
            loader.value()
        elif not known:
            loader.value()
            wrong += 1
            if wrong <= KEPT_OF_ITEM:
                yield _unknown(name, line)
        elif name == "items" and is_list:
            yield from _items(loader)
        elif name == "items":
            message = f"items must be a list, not {shown(loader.value())}"
            yield Problem(message, "each item begins with '- '", line=line)
        else:
            yield _Defaults(Record(line, loader.value()))
        if known:
            seen.add(name)
        yield from loader.problems.take()
    loader.get_event()
    if wrong > KEPT_OF_ITEM:
        yield Problem(f"... and {wrong - KEPT_OF_ITEM} more", line=line)
    if "items" not in seen:
        yield Problem("there is no 'items:'", "the list of items stands under it", line=first)


def _unknown(name: object, line: int) -> Problem:
    """The problem of a section that is not known, or stands there a second time."""
    if name in ("items", "defaults"):
        return repeated_key(str(name)).at(line=line)
    unknown = _SECTIONS.unknown(name) if isinstance(name, str) else Problem(f"unknown key {shown(name)}")
    return unknown.at(line=line)


def _items(loader: Any) -> Iterator[Record | Problem]:
    loader.refuse_tag(loader.get_event())
    yield from loader.problems.take()
    while not loader.check_event(yaml.SequenceEndEvent):
        line, value = _line(loader), loader.value()
        wrong = loader.problems.take()
        if wrong:
            yield from wrong
        else:
            yield Record(line, value)
    loader.get_event()


def _line(loader: Any) -> int:
    """The line of what comes next."""
    return int(loader.peek_event().start_mark.line) + 1
