"""What the readers of strangers' files share: a table that knows its lines, faults, and the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

from joyedit.errors import ManifestError, Problem

KEPT_PROBLEMS = 100
_SHOWN = 60


class Table(dict[str, Any]):
    """A mapping as it was written: `lines` has the line of each key (YAML), `doubled` what stood twice."""

    lines: dict[str, int]
    doubled: tuple[str, ...]

    def __init__(self, held: dict[str, Any] | None = None, *, doubled: tuple[str, ...] = ()) -> None:
        super().__init__(held or {})
        self.lines = {}
        self.doubled = doubled


class Record(NamedTuple):
    """One item as it was read: `data` is whatever stood there; a mapping, if all is well."""

    line: int
    data: object


class Fault(NamedTuple):
    """One thing wrong inside a record, before it is known where that stands. `key` helps to find the line."""

    message: str
    remedy: str = ""
    key: str | None = None


class Problems:
    """Collects the faults of one file: keeps the first hundred, counts them all."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.total = 0

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.total += 1
            if len(self.kept) < KEPT_PROBLEMS:
                self.kept.append(problem)

    def raise_any(self) -> None:
        """Raises ManifestError with all of them, if there are any."""
        if self.total:
            raise ManifestError(self.kept, self.total)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The remedy for an unknown name: the valid one that looks most like it, or all of them."""
    names = list(valid)
    # A long name is no typing error, and comparing it would take long.
    found = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6) if len(name) < 100 else []
    if found:
        return f"did you mean '{found[0]}'?"
    return f"valid: {', '.join(names)}" if names else ""


def shown(value: object, limit: int = _SHOWN) -> str:
    """`value` as a message names it: short, on one line, and never a dump of a container."""
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
    text = ascii_safe(repr(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def ascii_safe(text: str) -> str:
    """`text` with what cannot be written as UTF-8 (lone surrogates) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
