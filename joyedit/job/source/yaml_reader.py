"""YAML from strangers -> plain data with line numbers, by PyYAML's own composer and safe constructors.

Plain YAML only: joyedit refuses tags, aliases that expand without end, keys that are no text, and numbers that are
not written in plain digits (012 is 10 to some readers and 12 to others). Dates stay the text that was written. A merge
key (`<<: *anchor`) gives the keys of another mapping. A file is read as a whole, up to `MAX_YAML`; a manifest's items
are composed one after the other, so that only one of them is in memory as nodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent, SequenceStartEvent

from joyedit.errors import Problem
from joyedit.job.source.problems import FewProblems, Table, cut, shown
from joyedit.job.source.syntax_remedies import yaml_remedy
from joyedit.job.source.text import NOT_UTF8, UNDECODED, BrokenFileError, line_at, whole_text

MAX_YAML = 16 << 20
"""The most bytes that a YAML file may have."""

_MAX_DEPTH = 20
_MAX_SKIPPED = 200
"""Nesting beyond this ends the reading: the parser's time grows with the square of it."""
_MAX_VALUES = 10_000
"""The most values of one item, with its aliases expanded."""
_MAX_ANCHOR = 60
_MAX_MESSAGE = 300
_MAX_ANCHORED = 100_000
"""The most values under all anchors together: these stay in memory to the end of the file."""
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG = "tag:yaml.org,2002:"
_PLAIN_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|[-+]?(?:0|[1-9][0-9]*)?\.[0-9]*|[-+]?\.inf|\.nan", re.IGNORECASE)
_MERGE = _TAG + "merge"
_BLANKS = re.compile(r"[ \t]*")
_HASH = re.compile(r"(?<=[ \t])#[^\s#]\S*")
"""What YAML takes for a comment, and a person may have written as a part of the text: `#1`, `#ff0000`."""
_NO_ANCHOR: Any = None
"""Tells the library to keep no anchors: `_Limits` keeps them, with their sizes."""


class _TooMuchError(Exception):
    """A value is too deep or has too many parts. The rest of it is skipped."""


class _Limits(Composer, SafeConstructor):
    """Composes the nodes of one value at a time, within limits, and constructs plain data from them.

    `problems` collects what is wrong inside one value; each problem has its line.
    """

    get_event: Any  # these two belong to the parser, which is libyaml's or PyYAML's own
    peek_event: Any

    def __init__(self) -> None:
        self.anchors: dict[str, Any] = {}  # the library's attribute; stays empty, `_anchored` takes its place
        self.problems = FewProblems()
        self.passes_over: Callable[[str], bool] = lambda key: False
        """Says for a key of an item whether its value is not read."""
        self.hashes: dict[int, str] = {}
        """The lines (from 0) that hold such a comment."""
        self._level = 0
        self._anchored: dict[str, tuple[Any, int, int]] = {}  # of an anchor: its node, number of values, and height
        self._anchored_values = 0
        self._values = 0
        self._depth = self._deepest = 0

    def value(self) -> object:
        """The whole value that comes next: a Table, a list, text, a number, True, False or None."""
        self._values = self._depth = self._deepest = self._level = 0
        try:
            node = self.compose_node(None, None)
        except _TooMuchError:
            self._skip(self._depth)
            return None
        return self.construct_document(node)

    def report(self, mark: Any, message: str, remedy: str = "") -> None:
        self.problems.add(partial(Problem, message, remedy, line=int(mark.line) + 1))

    def refuse_tag(self, event: Any) -> None:
        """Reports the tag of a node, if it has one, and takes it away."""
        if event.tag is not None:
            self.report(event.start_mark, f"the tag {shown(event.tag)} is refused", "plain YAML has no tags")
            event.tag, event.implicit = None, (True, False) if isinstance(event, ScalarEvent) else True

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The node of the next value, as the library's method of this name; `_values` counts its parts.

        Raises _TooMuchError where the value passes a limit.
        """
        event = self.peek_event()
        if isinstance(event, AliasEvent):
            return self._alias(event)
        if event.tag is not None:
            self.refuse_tag(event)
        before = self._values
        self._count(event, 1)
        if event.anchor is None:
            return self._compose(event)
        node, size = _nothing(event), _MAX_VALUES + 1
        outer, self._deepest = self._deepest, self._depth
        try:
            node, size = self._compose(event), self._values - before
        finally:  # an alias of a value that is too large is too large itself
            self._keep(event, node, size)
            self._deepest = max(self._deepest, outer)
        return node

    def _compose(self, event: Any) -> Any:
        if isinstance(event, ScalarEvent):
            return self.compose_scalar_node(_NO_ANCHOR)
        self._reach(event, self._depth + 1)
        self._depth += 1
        is_list = isinstance(event, SequenceStartEvent)
        node = self.compose_sequence_node(_NO_ANCHOR) if is_list else self.compose_mapping_node(_NO_ANCHOR)
        self._depth -= 1
        return node

    def _alias(self, event: Any) -> Any:
        self.get_event()
        if event.anchor not in self._anchored:
            alias = cut(event.anchor, _MAX_ANCHOR)
            self.report(event.start_mark, f"the alias *{alias} refers to an anchor that is not complete before it")
            return _nothing(event)
        node, size, height = self._anchored[event.anchor]
        self._count(event, size)
        self._reach(event, self._depth + height)
        return node

    def _reach(self, event: Any, depth: int) -> None:
        if depth > _MAX_DEPTH:
            self.report(event.start_mark, f"more than {_MAX_DEPTH} lists or mappings inside each other")
            raise _TooMuchError
        self._deepest = max(self._deepest, depth)

    def _count(self, event: Any, values: int) -> None:
        self._values += values
        if self._values > _MAX_VALUES:
            self.report(event.start_mark, f"more than {_MAX_VALUES} values in one item, with aliases expanded")
            raise _TooMuchError

    def _keep(self, event: Any, node: Any, size: int) -> None:
        if self._anchored_values + size > _MAX_ANCHORED:
            self.report(event.start_mark, f"more than {_MAX_ANCHORED} values under anchors")
        else:
            self._anchored[event.anchor] = node, size, self._deepest - self._depth
            self._anchored_values += 1 if size > _MAX_VALUES else size

    def _skip(self, level: int) -> None:
        """Reads to the end of the value, `level` lists or mappings up. Raises BrokenFileError if it nests too deep."""
        while level:
            if level > _MAX_SKIPPED:
                raise BrokenFileError(
                    Problem(
                        f"more than {_MAX_SKIPPED} lists or mappings inside each other",
                        "joyedit reads nothing after this line",
                        line=int(self.peek_event().start_mark.line) + 1,
                    )
                )
            event = self.get_event()
            level += isinstance(event, CollectionStartEvent)
            level -= isinstance(event, CollectionEndEvent)

    def construct_table(self, node: Any) -> Table:
        """A mapping as a Table, with the keys that it merges. Reports keys that are no text."""
        table = Table()
        doubled: dict[str, None] = {}
        merged: list[Any] = []
        empty: list[str] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.append(value_node)
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                self.report(key_node.start_mark, f"a key must be text, not {shown(key)}", "write it in quotes")
                continue
            if self._level == 0 and self.passes_over(key):
                continue
            self._level += 1
            value = self.construct_object(value_node, deep=True)
            self._level -= 1
            if key in table:
                doubled[key] = None
                continue
            table[key] = value
            table.lines[key] = int(key_node.start_mark.line) + 1
            if value is None and not value_node.value:
                empty.append(key)
        table.doubled, table.empty = tuple(doubled), tuple(empty)
        for value_node in merged:
            self._merge(table, value_node)
        return table

    def _merge(self, table: Table, node: Any) -> None:
        """Give `table` the keys of a merged mapping that it does not have yet; of several mappings the first counts."""
        value = self.construct_object(node, deep=True)
        for other in value if isinstance(value, list) else [value]:
            if not isinstance(other, Table):
                self.report(node.start_mark, f"<< takes a mapping or a list of mappings, not {shown(other)}")
                return
            table.empty += tuple(key for key in other.empty if key not in table)
            for key in other:
                if key not in table:
                    table[key] = other[key]
                    table.lines[key] = other.lines[key]

    def construct_list(self, node: Any) -> list[object]:
        return [self.construct_object(child, deep=True) for child in node.value]

    def construct_number(self, node: Any) -> object:
        """A whole number or a float. Reports one that is not written in plain digits (0x10, 012, 1_000, 12:30)."""
        if not _PLAIN_NUMBER.fullmatch(node.value):
            remedy = "write a number in plain digits, and a text in quotes"
            self.report(node.start_mark, f"{shown(node.value)} means another number to YAML than it shows", remedy)
            return None
        try:
            return self.construct_yaml_int(node) if node.tag == _TAG + "int" else self.construct_yaml_float(node)
        except (ValueError, OverflowError):
            self.report(node.start_mark, f"{shown(node.value)} is no number that can be read")
            return None

    def construct_text(self, node: Any) -> object:
        """A text. Reports one in which `#` begins a comment that looks like a part of it."""
        if self.hashes and not node.style:
            mark = node.end_mark
            line = self.hashes.get(int(mark.line), "")
            blanks = _BLANKS.match(line, int(mark.column))
            found = None if blanks is None else _HASH.match(line, blanks.end())
            if found is not None:
                remedy = "put the text between quotes; a comment has a space behind #"
                self.report(mark, f"the text ends before {shown(found[0])}, which is a comment to YAML", remedy)
        return node.value


def _nothing(event: Any) -> Any:
    return yaml.ScalarNode(_TAG + "null", "", event.start_mark, event.end_mark)


def loader_class(base: Any) -> Any:
    """`base` (one of PyYAML's safe loaders) with the limits and constructors from above."""

    class Loader(_Limits, base):  # type: ignore[misc]
        def __init__(self, text: str) -> None:
            base.__init__(self, text)
            _Limits.__init__(self)
            if _HASH.search(text) is not None:
                self.hashes = {place: line for place, line in enumerate(text.split("\n")) if _HASH.search(line)}

    made: Any = Loader
    made.add_constructor(_TAG + "map", Loader.construct_table)
    made.add_constructor(_TAG + "seq", Loader.construct_list)
    for kind in ("int", "float"):
        made.add_constructor(_TAG + kind, Loader.construct_number)
    for kind in ("str", "timestamp", "merge", "value"):
        made.add_constructor(_TAG + kind, Loader.construct_text)
    return made


_Loader = loader_class(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@contextmanager
def open_yaml(stream: BinaryIO, remedy: str) -> Iterator[Any]:
    """The loader of a YAML file, before the first event of its document; None for an empty file.

    Whatever the library raises inside becomes a BrokenFileError with its line. `remedy` is for a file that
    is too large.
    """
    text = whole_text(stream, limit=MAX_YAML, kind="a YAML file", remedy=remedy)
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        message = f"the control character {shown(odd[0])} is not allowed in YAML"
        problem = NOT_UTF8 if UNDECODED.match(odd[0]) else Problem(message, "remove it")
        raise BrokenFileError(Problem(problem.message, problem.remedy, line=line_at(text, odd.start())))
    loader = None
    try:
        loader = _Loader(text)
        loader.get_event()  # the start of the stream
        if loader.check_event(yaml.StreamEndEvent):
            yield None
            return
        loader.get_event()  # the start of the document
        yield loader
        loader.get_event()  # the end of the document
        if not loader.check_event(yaml.StreamEndEvent):
            line = int(loader.peek_event().start_mark.line) + 1
            raise BrokenFileError(Problem("a second YAML document begins here", "keep one in each file", line=line))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        line = int(mark.line) + 1 if mark is not None else 1
        remedy = "" if mark is None else yaml_remedy(text, int(mark.line), int(mark.column), str(error.problem))
        raise BrokenFileError(Problem(f"broken YAML: {cut(message, _MAX_MESSAGE)}", remedy, line=line)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a number of a %YAML directive, odd escapes
        raise BrokenFileError(Problem(f"broken YAML: {shown(str(error))}", line=1)) from error
    finally:
        if loader is not None:
            loader.dispose()


def read_document(stream: BinaryIO) -> tuple[object, list[Problem]]:
    """A whole small file (a recipe): its one value, and the problems in it. Raises BrokenFileError."""
    with open_yaml(stream, "a recipe is a short file") as loader:
        if loader is None:
            return None, []
        return loader.value(), loader.problems.take()
