"""The parameters of a recipe: typed values with choices, limits and a default.

Flags, tables and JSON write a value in their own ways; here it is one text of one form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from joyedit.errors import Problem
from joyedit.job.boxes import RULE as BOX_RULE
from joyedit.job.boxes import box_text, read_box
from joyedit.job.source.problems import nearest, one_of, shown

Kind = Literal["text", "number", "integer", "choice", "box", "boolean"]
KINDS: tuple[str, ...] = get_args(Kind)

BOX = "box"
"""The only name of a parameter that is a box, and the key of an item for the same."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(?:\.0+)?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})")
_BOOLEANS: Mapping[str, str] = {
    "true": "true", "yes": "true", "on": "true", "1": "true",
    "false": "false", "no": "false", "off": "false", "0": "false",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter. Without a default it needs a value; without choices it takes any value of its kind.

    `if_true` and `if_false` are what a boolean puts into the instruction.
    """

    description: str = ""
    default: str | None = None
    choices: tuple[str, ...] = ()
    kind: Kind = "text"
    minimum: float | None = None
    maximum: float | None = None
    if_true: str = ""
    if_false: str = ""

    def read(self, text: str) -> str | None:
        """The value in its one form (`30` for `30.0`, `true` for `yes`); None for what is no value of this kind."""
        if self.kind == "boolean":
            return _BOOLEANS.get(text.strip().lower())
        if self.kind == "box":
            box = read_box(text)
            return None if box is None else box_text(box)
        if self.kind in ("number", "integer"):
            number = (_INTEGER if self.kind == "integer" else _NUMBER).fullmatch(text.strip())
            return None if number is None or not self._is_within(float(number[0])) else _plain(number[0])
        return text if not self.choices or text in self.choices else None

    def _is_within(self, number: float) -> bool:
        is_above = self.minimum is None or number >= self.minimum
        return is_above and (self.maximum is None or number <= self.maximum)

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return one_of(self.choices)
        if self.kind == "box":
            return BOX_RULE
        if self.kind == "boolean":
            return "true or false"
        words = {"integer": "a whole number", "number": "a number"}.get(self.kind, "text")
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"{words} from {self.minimum:g}"
        return words if self.maximum is None else f"{words} up to {self.maximum:g}"

    def problem(self, name: str, text: str) -> Problem | None:
        """What is wrong with a value; None if nothing is."""
        if self._has(text):
            return None
        remedy = nearest(text, self.choices) if self.choices else ""
        return Problem(f"{name} must be {self.rule}, not {shown(text)}", remedy, key=name)

    def _has(self, text: str) -> bool:
        read = self.read(text)
        return read is not None and (not self.choices or read in self.choices)

    def put(self, text: str) -> str:
        """What a value puts into the instruction."""
        read = self.read(text)
        if self.kind == "boolean":
            return self.if_true if read == "true" else self.if_false
        return text if read is None else read


def _plain(number: str) -> str:
    """A number as people write it: no plus, no zeros that say nothing."""
    sign = "-" if number.startswith("-") else ""
    whole, _, rest = number.lstrip("+-").partition(".")
    whole, rest = whole.lstrip("0") or "0", rest.rstrip("0")
    made = f"{whole}.{rest}" if rest else whole
    return made if made == "0" else sign + made
