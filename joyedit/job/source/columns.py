"""What the user says about the columns of a table, or the keys of a manifest's lines.

`--map image=source_img` reads a column as one of joyedit's keys, `--ignore-columns` passes over columns, and
`--keep-columns` carries columns into the records. Whatever else joyedit does not know is a fault, told once a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from joyedit.errors import Problem, UsageError
from joyedit.job.not_finite import as_text
from joyedit.job.source.problems import shown

ALL = "all"
"""Stands for every column that is none of joyedit's keys."""

MAX_KEPT = 64 << 10
"""The most characters that the kept columns of one item may have."""
_MAX_DEPTH = 20
_PLAIN = re.compile(r"[\w.-]{1,60}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """`mapped` gives the key of a column, `ignored` and `kept` are names of columns (or `ALL`).

    A column that is ignored is none of joyedit's keys, even if it has the name of one. A column that is kept may be a
    key as well.
    """

    mapped: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()

    @classmethod
    def of(cls, mapped: Iterable[str], ignored: Iterable[str], kept: Iterable[str]) -> Columns:
        """From the values of the three flags. Raises UsageError with every fault of them."""
        faults: list[str] = []
        columns: dict[str, str] = {}
        for pair in mapped:
            key, _, column = (part.strip() for part in pair.partition("="))
            if not key or not column:
                faults.append(f"--map takes KEY=COLUMN, for example image=source_img, not {shown(pair)}")
            elif column in columns or key in columns.values():
                faults.append(f"--map gives {shown(column if column in columns else key)} twice")
            columns[column] = key
        made = cls(mapped=columns, ignored=_names(ignored), kept=_names(kept))
        both = sorted(made.ignored & columns.keys())
        faults += [f"--map and --ignore-columns both name the column {shown(name)}" for name in both]
        if any(map(_SURROGATE.search, (*columns, *made.ignored, *made.kept))):
            faults.append("the name of a column has bytes that are no UTF-8")
        if faults:
            raise UsageError("\n".join(faults))
        return made

    @classmethod
    def read(cls, given: object) -> Columns:
        """From what `as_json` gave."""
        given = given if isinstance(given, dict) else {}
        mapped, ignored, kept = given.get("map"), given.get("ignore"), given.get("keep")
        return cls(
            mapped={str(name): str(key) for name, key in mapped.items()} if isinstance(mapped, dict) else {},
            ignored=frozenset(map(str, ignored)) if isinstance(ignored, list) else frozenset(),
            kept=frozenset(map(str, kept)) if isinstance(kept, list) else frozenset(),
        )

    def as_json(self) -> dict[str, Any]:
        """What the user says, by the names of the flags; nothing for flags that are not given."""
        made = {"map": dict(self.mapped), "ignore": sorted(self.ignored), "keep": sorted(self.kept)}
        return {flag: given for flag, given in made.items() if given}


def _names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(name for value in values for part in value.split(",") if (name := part.strip()))


def as_value(name: str) -> str:
    """The name of a column as a message shows it behind a flag."""
    return name if _PLAIN.fullmatch(name) else "NAME"


def kept_columns(data: Mapping[str, Any], names: Iterable[str]) -> tuple[dict[str, Any] | None, Problem | None]:
    """The columns `names` of an item as JSON, for its record; or the problem of columns that are too large."""
    room = _Room()
    try:
        kept = {room.text(name): room.value(data[name]) for name in names}
    except _NoRoomError:
        message = f"the columns to keep have more than {MAX_KEPT >> 10} KiB, or are too deep"
        return None, Problem(message, "name those to keep: --keep-columns NAME,NAME", once="kept columns")
    return kept or None, None


class _NoRoomError(Exception):
    """The kept columns of an item are larger than a record may hold."""


class _Room:
    """Copies values as long as there is room for them."""

    def __init__(self) -> None:
        self._left = MAX_KEPT

    def text(self, text: str) -> str:
        self._take(len(text) + 2)
        return text

    def value(self, value: Any, depth: int = 0) -> Any:
        """The same value as JSON can hold it: a number that is none ("NaN") becomes a text."""
        self._take(1)
        if depth > _MAX_DEPTH:
            raise _NoRoomError
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self.value(one, depth + 1) for one in value]
        if isinstance(value, int) and not isinstance(value, bool):
            self._take(value.bit_length() // 3)
        return as_text(value)

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise _NoRoomError
