"""The columns of an export: which there are, and of what kind each is, learned from all rows before the first is
written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from joyedit.job.export.rows import FIRST
from joyedit.job.not_finite import NOT_FINITE

Kind = Literal["whole", "negative", "unsigned", "wide", "number", "odd", "flag", "time", "texts", "text"]
"""A whole number of 64 bits: none below 0, some below 0, some that need all bits for their value, both of these; a real
number; nothing but the texts of `NOT_FINITE`; true or false; a time; a list of texts; a text."""
_WHOLE: frozenset[Kind] = frozenset(("whole", "negative", "unsigned", "wide"))

_KNOWN: Mapping[str, Kind] = {
    **dict.fromkeys(("width", "height", "bucket_width", "bucket_height", "source_line", "output_bytes"), "whole"),
    **{f"settings_{name}": "whole" for name in ("seed", "steps", "basesize", "width", "height")},
    **{name: "number" for name in FIRST if name.startswith("seconds")},
    "settings_guidance_scale": "number",
    **dict.fromkeys(("inputs", "input_sha256", "notes"), "texts"),
    "at": "time",
}
"""What joyedit's own columns are, also where all their cells are empty."""


class Columns:
    """The columns so far. `learn` takes each row once; then `kinds` stands."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {name: _KNOWN.get(name, "text") for name in FIRST}
        self._open: set[str] = set()  # no value has come yet, and nothing is known

    def learn(self, row: Mapping[str, Any]) -> None:
        """The columns of this row."""
        for name, value in row.items():
            if name not in self.kinds:
                self.kinds[name] = _KNOWN.get(name, "text")
                if name not in _KNOWN:
                    self._open.add(name)
            if value is None:
                continue
            kind = _kind_of(value, self.kinds[name])
            self.kinds[name] = kind if name in self._open else _both(self.kinds[name], kind)
            self._open.discard(name)

    def cells(self, row: Mapping[str, Any]) -> list[Any]:
        """The values of a row in the order of the columns, each of its column's kind or None."""
        return [cell(row.get(name), kind) for name, kind in self.kinds.items()]


def cell(value: Any, kind: Kind) -> Any:
    """The value as one of this kind: the same, but a number in a column of texts is text, and a list in one is JSON. In
    a column of numbers the texts of `NOT_FINITE` are the numbers that they stand for.
    """
    if value is None:
        return None
    if kind in ("text", "odd"):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if kind == "time":
        return datetime.fromisoformat(value)
    return float(value) if kind == "number" else value


def _kind_of(value: Any, now: Kind) -> Kind:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        if value < 0:
            return "negative" if value >= -(1 << 63) else "text"
        return "whole" if value < 1 << 63 else "unsigned" if value < 1 << 64 else "text"
    if isinstance(value, float):
        return "number"
    if isinstance(value, list):
        return "texts"
    if value in NOT_FINITE:
        return "odd"
    return "time" if now == "time" and _is_time(value) else "text"


def _both(one: Kind, other: Kind) -> Kind:
    """The kind that holds values of both. It does not depend on the order in which the values come."""
    kinds = {one, other}
    if len(kinds) == 1:
        return one
    if kinds <= _WHOLE:
        more = kinds - {"whole"}
        return more.pop() if len(more) == 1 else "wide"
    return "number" if kinds <= _WHOLE | {"number", "odd"} else "text"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
