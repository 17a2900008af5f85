"""What the readers of input files share: records, collected problems, and values as messages show them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from joyedit.errors import ManifestError, Problem
from joyedit.job.data_picture import Reference
from joyedit.job.spec import SourceRow

KEPT_PROBLEMS = 100
KEPT_OF_ITEM = 10
"""So many problems of one item are told; the others are counted."""
MAX_MESSAGE = 2000
"""The most characters of a message about one item."""
_CUT = " [cut]"
_SHOWN = 60
_SHOWN_NAMES = 30
_MAX_TYPED = 100
"""No typing error makes a longer name, and comparing it would take long."""


class Table(dict[str, Any]):
    """A mapping of an input file.

    `lines` has the line of each key (YAML only), `doubled` the repeated keys, `empty` the keys with nothing behind
    them: an empty cell of CSV, or `image:` in YAML. A null that somebody wrote is a value.
    """

    lines: dict[str, int]
    doubled: tuple[str, ...]
    empty: tuple[str, ...]

    def __init__(
        self, values: dict[str, Any] | None = None, *, doubled: tuple[str, ...] = (), empty: tuple[str, ...] = ()
    ) -> None:
        super().__init__(values or {})
        self.lines = {}
        self.doubled = doubled
        self.empty = empty

    def without(self, key: str) -> Table:
        """The same table without one of its keys."""
        if key not in self:
            return self
        rest = {name: value for name, value in self.items() if name != key}
        made = Table(rest, doubled=self.doubled, empty=self.empty)
        made.lines = self.lines
        return made


class OfDataset(NamedTuple):
    """What a record of a dataset has beside its keys.

    `place` is where it lies (`part-0.parquet#row=17`), `pictures` are those of its pictures that are no plain files, by
    their addresses, and `columns` what its record carries. `row` is all that a run which writes datasets keeps beside
    these, and `fields` are the plain values that may name the picture (None: nobody asked for them).
    """

    place: str
    pictures: Mapping[str, Reference]
    columns: dict[str, Any] | None
    row: SourceRow | None = None
    fields: Mapping[str, Any] | None = None


class Record(NamedTuple):
    """One item of a source before it is checked. `data` is whatever the file holds; it should be a mapping.

    `dataset` is None for a line of a manifest.
    """

    line: int
    data: object
    dataset: OfDataset | None = None

    @property
    def row(self) -> SourceRow | None:
        """What a run that writes datasets keeps of the row of a dataset."""
        return None if self.dataset is None else self.dataset.row

    def place(self, problem: Problem, file: str) -> Problem:
        """`problem` of this record with its place: the line of its key if that is known, or the record's line."""
        if self.dataset is not None:
            return problem.at(self.dataset.place)
        line = self.line
        if problem.key is not None and isinstance(self.data, Table):
            line = self.data.lines.get(problem.key, line)
        return problem.at(file, line or None)


Records = Iterator[Record | Problem]
"""What a reader yields: a record for each item, and a problem for each part that it cannot read."""


class Problems:
    """Collects the problems of one file: counts all of them, and keeps the first hundred.

    Of the problems that have one `once`, such as an unknown column, it keeps the first and says how many items have it.
    """

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.total = 0
        self._more: dict[str, list[int]] = {}  # by `once`: place among the kept ones, number of the others

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            more = None if problem.once is None else self._more.get(problem.once)
            if more is not None:
                more[1] += 1
                continue
            self.total += 1
            if len(self.kept) < KEPT_PROBLEMS:
                if problem.once is not None:
                    self._more[problem.once] = [len(self.kept), 0]
                self.kept.append(replace(problem, message=cut(problem.message), remedy=cut(problem.remedy)))

    def raise_any(self) -> None:
        """Raises ManifestError with all problems, if there are any."""
        if not self.total:
            return
        for index, more in self._more.values():
            if more:
                others = "1 more item" if more == 1 else f"{more} more items"
                self.kept[index] = replace(self.kept[index], message=f"{self.kept[index].message}, also in {others}")
        self._more = {}
        raise ManifestError(self.kept, self.total)


class FewProblems:
    """Collects the problems of one item: keeps the first few, and counts the others without making them."""

    def __init__(self) -> None:
        self._kept: list[Problem] = []
        self._more = 0

    def add(self, make: Callable[[], Problem]) -> None:
        """One more problem; `make` is called only if it is among the first."""
        if len(self._kept) < KEPT_OF_ITEM:
            self._kept.append(make())
        else:
            self._more += 1

    def take(self) -> list[Problem]:
        """The first problems, and one that says how many more there are. The collection is empty then."""
        told = self._kept
        if self._more:
            once = "..." if all(problem.once for problem in told) else None
            told.append(Problem(f"... and {self._more} more", line=told[-1].line, once=once))
        self._kept, self._more = [], 0
        return told


def one_message(problems: Iterable[Problem]) -> str:
    """The problems of one item as one text of bounded length."""
    first = iter(problems)
    told = [str(problem) for problem in islice(first, KEPT_OF_ITEM)]
    more = sum(1 for _ in first)
    end = f"; ... and {more} more" if more else ""
    return cut("; ".join(told), MAX_MESSAGE - len(end)) + end


def cut(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text`, or its beginning with a mark behind it if it has more than `limit` characters."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def repeated_key(key: str) -> Problem:
    """The problem of a mapping that has `key` more than once."""
    return Problem(f"the key {shown(key)} is given twice", "keep one of them", key=key)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The remedy for an unknown name: the most similar valid name, or the valid names."""
    return _nearest(name[:_MAX_TYPED], tuple(valid))


@lru_cache(maxsize=1024)
def _nearest(name: str, names: tuple[str, ...]) -> str:
    """A wrong name often stands on every line, and comparing takes long."""
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6) if len(name) < _MAX_TYPED else []
    if found:
        return f"did you mean '{found[0]}'?"
    return f"valid: {_listed(names)}" if names else ""


def one_of(choices: Iterable[str]) -> str:
    """The choices as a message lists them."""
    return "one of " + _listed([f"'{choice}'" for choice in choices])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown_names = ", ".join(cut(name, _MAX_TYPED) for name in names[:_SHOWN_NAMES])
    return f"{shown_names}, ... and {more} more" if more > 0 else shown_names


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
    # Text may have millions of characters.
    text = utf8_safe(repr(value[:limit])) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def utf8_safe(text: str) -> str:
    """`text` with escapes for the parts that UTF-8 cannot hold (lone surrogates)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
