"""A matrix: every item of a source is edited with each combination of some values.

`--seeds 3`, `--sweep steps=20,40` and the `matrix:` of a recipe are axes of one matrix. A combination is a cell. It
says what it changes, and it gives the item's id its own ending, such as `_seed-7_steps-20`, which depends on nothing
but the values. So a matrix may grow later, and what is finished stays done.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.printable import brief

SEED = "seed"
SWEPT = (SEED, "steps", "guidance_scale", "basesize", "negative_prompt")
"""The settings that an axis may change, beside the parameters of a recipe."""

MOST_CELLS = 10_000
"""The most edits of one item."""
MOST_SEED = 2**64 - 1

Value = int | float | str

_SHORT = 24
_SHOWN_VALUES = 6
_SHOWN_TEXT = 40
_WORDS = re.compile(r"[a-z0-9]+(?: [a-z0-9]+)*")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """The values that one setting or parameter takes in turn.

    `count` stands in place of values: so many seeds, from the item's own on. `is_weak`: the axis is a recipe's, so a
    line that says something itself leaves it.
    """

    key: str
    values: tuple[Value, ...] = ()
    count: int = 0
    is_weak: bool = False

    def __len__(self) -> int:
        return self.count or len(self.values)

    def values_from(self, seed: int) -> Sequence[Value]:
        """The values for an item with this seed of its own."""
        return range(seed, seed + self.count) if self.count else self.values

    @property
    def text(self) -> str:
        """The axis in words: `seed 1, 2, 3`."""
        if self.count:
            return f"{self.count} seeds"
        shown = [brief(_plain(value), _SHOWN_TEXT) for value in self.values[:_SHOWN_VALUES]]
        more = len(self.values) - len(shown)
        return f"{self.key} {', '.join(shown)}" + (f" and {more} more" if more else "")


class Cell(NamedTuple):
    """One combination: the ending of the item's id, the settings that it changes, and the values of the recipe."""

    suffix: str = ""
    settings: Mapping[str, Any] = {}
    values: Mapping[str, str] = {}


ALONE = (Cell(),)
"""The cells of an item that no matrix multiplies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """The axes in order; the last one changes fastest."""

    axes: tuple[Axis, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.axes)

    @property
    def size(self) -> int:
        """How many cells there are; 1 without axes."""
        return math.prod(map(len, self.axes))

    @property
    def keys(self) -> frozenset[str]:
        """What the axes change."""
        return frozenset(axis.key for axis in self.axes)

    @property
    def text(self) -> str:
        """The matrix in words: `view front, left x 3 seeds`."""
        return " x ".join(axis.text for axis in self.axes)

    @property
    def first_values(self) -> dict[str, str]:
        """The values of the recipe in the first cell."""
        return {axis.key: str(axis.values[0]) for axis in self.axes if axis.key not in SWEPT}

    def axis(self, key: str) -> Axis | None:
        """The axis of this key; None if there is none."""
        return next((axis for axis in self.axes if axis.key == key), None)

    def without(self, said: Collection[str]) -> Matrix:
        """The matrix for an item that says these keys itself: what a recipe sweeps, the item's own word ends."""
        if not any(axis.is_weak and axis.key in said for axis in self.axes):
            return self
        return Matrix(axes=tuple(axis for axis in self.axes if not (axis.is_weak and axis.key in said)))

    def over(self, lower: Matrix) -> Matrix:
        """These axes; `lower` gives the ones of other keys, and they come first."""
        mine = self.keys
        return Matrix(axes=(*(axis for axis in lower.axes if axis.key not in mine), *self.axes))

    def seed_problem(self, seed: int) -> Problem | None:
        """Why an item with this seed of its own cannot have so many from there on; None if it can."""
        axis = self.axis(SEED)
        if axis is None or seed + axis.count <= MOST_SEED + 1:
            return None
        return Problem(
            f"{axis.count} seeds from {seed} on lead beyond the largest seed", "give a smaller seed", key=SEED
        )

    def cells(self, seed: int) -> Sequence[Cell]:
        """All combinations for an item with this seed of its own."""
        if not self.axes:
            return ALONE
        return [self._cell(values) for values in itertools.product(*(axis.values_from(seed) for axis in self.axes))]

    def _cell(self, values: Sequence[Value]) -> Cell:
        pairs = list(zip(self.axes, values, strict=True))
        return Cell(
            suffix="".join(f"_{axis.key}-{slug(value)}" for axis, value in pairs),
            settings={axis.key: value for axis, value in pairs if axis.key in SWEPT},
            values={axis.key: str(value) for axis, value in pairs if axis.key not in SWEPT},
        )

    def mean(self, key: str, otherwise: float) -> float:
        """The mean value of a number over the cells; `otherwise` if no axis changes it."""
        axis = self.axis(key)
        numbers = [] if axis is None else [value for value in axis.values if isinstance(value, (int, float))]
        return sum(numbers) / len(numbers) if numbers else otherwise

    def as_json(self) -> list[list[Any]]:
        """Everything that the ids depend on; `read` takes it back."""
        return [[axis.key, list(axis.values), axis.count, axis.is_weak] for axis in self.axes]

    @classmethod
    def read(cls, given: object) -> Matrix:
        """From what `as_json` gave; what is not of that form is passed over."""
        return cls(axes=tuple(_axes(given))) if isinstance(given, list) else cls()


def _axes(given: list[Any]) -> Iterator[Axis]:
    for one in given:
        if not isinstance(one, list) or len(one) != 4:
            continue
        key, values, count, is_weak = one
        if isinstance(key, str) and isinstance(values, list) and isinstance(count, int):
            kept = tuple(value for value in values if isinstance(value, (int, float, str)))
            yield Axis(key=key, values=kept, count=count, is_weak=is_weak is True)


def _plain(value: Value) -> str:
    """The value as text; 3.0 is 3."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def slug(value: Value) -> str:
    """A value as a part of a name: the same value always gives the same text, and another value another one.

    It has no underscore: so the ids of two items never meet.
    """
    text = _plain(value)
    if len(text) <= _SHORT:
        if _NUMBER.fullmatch(text):
            return text
        if _WORDS.fullmatch(text):
            return text.replace(" ", "-")
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower())[:_SHORT].strip("-")
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{mark}" if plain else mark
