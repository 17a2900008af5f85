"""What the readers of input files share: records, collected problems, and values as messages show them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from joyedit.errors import ManifestError, Problem

KEPT_PROBLEMS = 100
_SHOWN = 60
_MAX_TYPED = 100
"""No typing error makes a longer name, and comparing it would take long."""


class Table(dict[str, Any]):
    """A mapping of an input file: `lines` has the line of each key (YAML only), `doubled` the repeated keys."""

    lines: dict[str, int]
    doubled: tuple[str, ...]

    def __init__(self, values: dict[str, Any] | None = None, *, doubled: tuple[str, ...] = ()) -> None:
        super().__init__(values or {})
        self.lines = {}
        self.doubled = doubled


class Record(NamedTuple):
    """One item of a source before it is checked. `data` is whatever the file holds; it should be a mapping."""

    line: int
    data: object

    def place(self, problem: Problem, file: str) -> Problem:
        """`problem` of this record with its place: the line of its key if that is known, or the record's line."""
        line = self.line
        if problem.key is not None and isinstance(self.data, Table):
            line = self.data.lines.get(problem.key, line)
        return problem.at(file, line or None)


Records = Iterator[Record | Problem]
"""What a reader yields: a record for each item, and a problem for each part that it cannot read."""


class Problems:
    """Collects the problems of one file: counts all of them, and keeps the first hundred."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.total = 0

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.total += 1
            if len(self.kept) < KEPT_PROBLEMS:
                self.kept.append(problem)

    def raise_any(self) -> None:
        """Raises ManifestError with all problems, if there are any."""
        if self.total:
            raise ManifestError(self.kept, self.total)


def repeated_key(key: str) -> Problem:
    """The problem of a mapping that has `key` more than once."""
    return Problem(f"the key {shown(key)} is given twice", "keep one of them", key=key)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The remedy for an unknown name: the most similar valid name, or all valid names."""
    names = list(valid)
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6) if len(name) < _MAX_TYPED else []
    if found:
        return f"did you mean '{found[0]}'?"
    return f"valid: {', '.join(names)}" if names else ""


def one_of(choices: Iterable[str]) -> str:
    """The choices as a message lists them."""
    return "one of " + ", ".join(f"'{choice}'" for choice in choices)


def shown(value: object, limit: int = _SHOWN) -> str:
    """`value` as messages show it: short, on one line; a list or a mapping by its kind only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a huge number"
    text = utf8_safe(repr(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def utf8_safe(text: str) -> str:
    """`text` with escapes for the parts that UTF-8 cannot hold (lone surrogates)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
