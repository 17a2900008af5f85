"""YAML from strangers, read event by event: plain data with line numbers, one item in memory at a time.

Plain YAML only: tags are refused, an alias may not expand without end, a key may not stand twice.
Dates stay the text that was written.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import yaml

from joyedit.job.source.problems import Fault, Table, shown

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 20
_MAX_SKIPPED = 200
"""Nesting beyond this ends the reading: the parser's time grows with the square of it."""
_MAX_VALUES = 10_000
"""The most values one item may hold, with its aliases expanded."""
_MAX_ANCHORS = 10_000
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHUNK = 1 << 16
_TAG = "tag:yaml.org,2002:"


class YamlError(Exception):
    """The file is no YAML from this line on; nothing after it can be read."""

    def __init__(self, line: int, fault: Fault) -> None:
        self.line = line
        self.fault = fault
        super().__init__(fault.message)


class YamlReader:
    """One YAML document as a stream of values.

    `faults` gathers (line, fault) of what was refused inside the values read so far; whoever
    takes a value empties it. Every method may raise YamlError.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.faults: list[tuple[int, Fault]] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        self._event: Any = None
        self._loader = self._guarded(lambda: _LOADER(_Utf8(stream)))
        self._take()  # the start of the stream
        self.empty = self._kind() == "StreamEndEvent"
        if not self.empty:
            self._take()  # the start of the document

    def close(self) -> None:
        self._loader.dispose()

    @property
    def line(self) -> int:
        """The line of what comes next."""
        return int(self._peek().start_mark.line) + 1

    def opens(self) -> str:
        """What comes next: "list", "mapping" or "value" ("" at the end of a list or mapping)."""
        return {
            "SequenceStartEvent": "list",
            "MappingStartEvent": "mapping",
            "SequenceEndEvent": "",
            "MappingEndEvent": "",
        }.get(self._kind(), "value")

    def enter(self) -> None:
        """Step into the list or mapping that comes next, or out of the one that ends here."""
        event = self._take()
        if type(event).__name__.endswith("StartEvent"):
            self._check_tag(event)

    def value(self) -> object:
        """The whole value that comes next: a Table, a list, text, a number, True, False or None."""
        return self._build(0)[0]

    def end(self) -> None:
        """Nothing may follow the document's one value."""
        self._take()
        if self._kind() != "StreamEndEvent":
            raise YamlError(self.line, Fault("a second YAML document begins here", "keep one in each file"))

    def _kind(self) -> str:
        return type(self._peek()).__name__

    def _peek(self) -> Any:
        if self._event is None:
            self._event = self._guarded(self._loader.get_event)
        return self._event

    def _take(self) -> Any:
        event, self._event = self._peek(), None
        return event

    @staticmethod
    def _guarded(step: Any) -> Any:
        try:
            return step()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = " ".join(part for part in (error.context, error.problem) if part)
            line = mark.line + 1 if mark is not None else 1
            raise YamlError(line, Fault(f"broken YAML: {message}")) from error
        except yaml.YAMLError as error:
            raise YamlError(1, Fault(f"broken YAML: {shown(str(error))}")) from error
        except (ValueError, RecursionError) as error:  # number of a %YAML directive, odd escapes
            raise YamlError(1, Fault(f"broken YAML: {error}")) from error

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None:
            self._fault(event, Fault(f"the tag {shown(event.tag)} is refused", "plain YAML has no tags"))

    def _fault(self, event: Any, fault: Fault) -> None:
        self.faults.append((int(event.start_mark.line) + 1, fault))

    def _build(self, depth: int) -> tuple[object, int]:
        """The next value and the number of values in it, aliases expanded."""
        event = self._take()
        kind = type(event).__name__
        if kind == "AliasEvent":
            if event.anchor not in self._anchors:
                self._fault(event, Fault(f"the alias *{event.anchor} names no anchor that is complete here"))
                return None, 1
            return self._anchors[event.anchor]
        self._check_tag(event)
        value: object
        if kind == "ScalarEvent":
            value, weight = self._scalar(event), 1
        elif depth >= _MAX_DEPTH:
            self._fault(event, Fault(f"more than {_MAX_DEPTH} lists or mappings inside each other"))
            self._skip()
            value, weight = None, 1
        elif kind == "SequenceStartEvent":
            value, weight = self._list(event, depth)
        else:
            value, weight = self._mapping(event, depth)
        if event.anchor is not None:
            if len(self._anchors) >= _MAX_ANCHORS:
                self._fault(event, Fault(f"more than {_MAX_ANCHORS} anchors"))
            else:
                self._anchors[event.anchor] = (value, weight)
        return value, weight

    def _list(self, event: Any, depth: int) -> tuple[object, int]:
        values: list[object] = []
        weight = 1
        while self.opens():
            value, more = self._build(depth + 1)
            weight = self._weigh(event, weight, more)
            if weight <= _MAX_VALUES:
                values.append(value)
        self._take()
        return values, min(weight, _MAX_VALUES + 1)

    def _mapping(self, event: Any, depth: int) -> tuple[object, int]:
        table = Table()
        doubled: list[str] = []
        weight = 1
        while self.opens():
            line, start = self.line, self._peek()
            key, _ = self._build(depth + 1)
            value, more = self._build(depth + 1)
            weight = self._weigh(event, weight, more)
            if not isinstance(key, str):
                self._fault(start, Fault(f"a key must be text, not {shown(key)}", "write it in quotes"))
            elif key in table:
                doubled.append(key)
            elif weight <= _MAX_VALUES:
                table[key] = value
                table.lines[key] = line
        self._take()
        table.doubled = tuple(doubled)
        return table, min(weight, _MAX_VALUES + 1)

    def _weigh(self, event: Any, weight: int, more: int) -> int:
        """The sum; told once, where it passes the limit."""
        if weight <= _MAX_VALUES < weight + more:
            self._fault(event, Fault(f"more than {_MAX_VALUES} values in one item, with aliases expanded"))
        return weight + more

    def _skip(self) -> None:
        """Pass over the rest of a list or mapping whose start was taken. Raises YamlError where that has no end."""
        level = 1
        while level:
            if level > _MAX_SKIPPED:
                message = f"more than {_MAX_SKIPPED} lists or mappings inside each other"
                raise YamlError(self.line, Fault(message, "nothing after this line is read"))
            kind = type(self._take()).__name__
            level += kind.endswith("StartEvent")
            level -= kind.endswith("EndEvent")

    def _scalar(self, event: Any) -> object:
        tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            if tag == _TAG + "int":
                return self._loader.construct_yaml_int(node)
            if tag == _TAG + "float":
                return self._loader.construct_yaml_float(node)
        except (ValueError, OverflowError):
            self._fault(event, Fault(f"{shown(event.value)} is no number that can be read"))
            return None
        if tag == _TAG + "bool":
            return self._loader.construct_yaml_bool(node)
        return None if tag == _TAG + "null" else event.value


def read_document(stream: BinaryIO) -> tuple[object, list[tuple[int, Fault]]]:
    """A whole small file (a recipe): its one value and the faults in it. Raises YamlError."""
    reader = YamlReader(stream)
    try:
        if reader.empty:
            return None, []
        value = reader.value()
        reader.end()
        return value, reader.faults
    finally:
        reader.close()


class _Utf8:
    """Decodes for the parser, so that bytes that are no text are told with their line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._texts = self._decode(stream)

    def read(self, _size: int = -1) -> str:
        return next(self._texts, "")

    @staticmethod
    def _decode(stream: BinaryIO) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        line = 1
        while True:
            chunk = stream.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += bytes(error.object[: error.start]).count(b"\n")
                raise YamlError(line, Fault("not valid UTF-8", "save the file as UTF-8")) from error
            odd = _UNPRINTABLE.search(text)
            if odd is not None:
                line += text.count("\n", 0, odd.start())
                fault = Fault(f"the control character {shown(odd[0])} is not allowed in YAML", "remove it")
                raise YamlError(line, fault)
            line += text.count("\n")
            if text:
                yield text
            if not chunk:
                return
