"""What a comparison tells of all items together: counts, medians, the worst twentieth, and which settings differ."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from joyedit.job.compare.pairs import STATES, Found, Pair

MOST_GROUPS = 12
_MOST_VALUES = 100
_SHOWN_VALUES = 3
WORST = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, the value that the worst twentieth does not reach, and the worst. Infinite: identical."""

    median: float
    worst_twentieth: float
    worst: float

    @classmethod
    def of(cls, values: Iterable[float], *, is_distance: bool = False) -> Spread | None:
        """Of nearest ranks; None without values. `is_distance`: large ones are the worst."""
        ordered = sorted((value for value in values if not math.isnan(value)), reverse=is_distance)
        if not ordered:
            return None
        last = len(ordered) - 1
        return cls(ordered[last // 2], ordered[round(WORST * last)], ordered[0])

    def as_json(self) -> dict[str, float | None]:
        """With null for an infinite value."""
        told = {"median": self.median, "worst_twentieth": self.worst_twentieth, "worst": self.worst}
        return {name: round(value, 6) if math.isfinite(value) else None for name, value in told.items()}


@dataclass(slots=True)
class Group:
    """Items of which the same settings differ."""

    items: int = 0
    psnr: array[float] = field(default_factory=lambda: array("d"))
    ssim: array[float] = field(default_factory=lambda: array("d"))
    lpips: array[float] = field(default_factory=lambda: array("d"))

    def add(self, found: Found) -> None:
        """One more item that was compared."""
        self.items += 1
        for kept, value in ((self.psnr, found.psnr), (self.ssim, found.ssim), (self.lpips, found.lpips)):
            if value is not None:
                kept.append(value)

    def spreads(self) -> dict[str, Spread]:
        """By the name of the figure, where there are values."""
        named = {"psnr": Spread.of(self.psnr), "ssim": Spread.of(self.ssim)}
        named["lpips"] = Spread.of(self.lpips, is_distance=True)
        return {name: spread for name, spread in named.items() if spread is not None}


class Summary:
    """Grows pair by pair. `groups` are by the names of the settings that differ."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        self.all = Group()
        self.groups: dict[tuple[str, ...], Group] = {}
        self.settings: dict[str, Counter[tuple[str, str]]] = {}
        self.below = 0

    def add(self, pair: Pair, found: Found, fail_below: float | None) -> None:
        """One more pair. With `fail_below`, what is below it or could not be compared is counted in `below`."""
        self.states[found.state] += 1
        if fail_below is not None and (not found.is_compared or (found.psnr or 0.0) < fail_below):
            self.below += 1
        differing = differences(pair)
        for name, values in differing.items():
            known = self.settings.setdefault(name, Counter())
            if values in known or len(known) < _MOST_VALUES:
                known[values] += 1
            else:
                known["...", "..."] += 1
        if found.is_compared:
            self.all.add(found)
            names = tuple(differing)
            if names not in self.groups and len(self.groups) >= MOST_GROUPS:
                names = ("other settings",)
            self.groups.setdefault(names, Group()).add(found)

    @property
    def both(self) -> int:
        """Items that are in both folders."""
        return self.states.total() - self.states["only_a"] - self.states["only_b"]

    def setting_text(self, name: str) -> str:
        """`40 in A, 20 in B (all 12 items)`: the most frequent pairs of values."""
        counted = self.settings[name]
        total = counted.total()
        who = f"all {total} items" if total == self.both else f"{total} of {self.both} items"
        if len(counted) == 1:
            ((a, b),) = counted
            return f"{a} in A, {b} in B ({who})"
        shown = [f"{a} and {b} ({count})" for (a, b), count in counted.most_common(_SHOWN_VALUES)]
        more = len(counted) - len(shown)
        return f"{who}: {', '.join(shown)}" + (f", {more} more" if more > 0 else "")

    def as_json(self) -> dict[str, Any]:
        """Counts, spreads and settings."""
        return {
            "counts": dict(self.states),
            "both": self.both,
            **{name: spread.as_json() for name, spread in self.all.spreads().items()},
            "settings": {
                name: [{"a": a, "b": b, "items": count} for (a, b), count in counted.most_common()]
                for name, counted in self.settings.items()
            },
            "groups": [
                {
                    "settings": list(names),
                    "items": group.items,
                    **{name: one.as_json() for name, one in group.spreads().items()},
                }
                for names, group in self.groups.items()
            ],
        }


def differences(pair: Pair) -> dict[str, tuple[str, str]]:
    """The recorded settings that differ, and their values as texts; also the instruction, without its text."""
    if pair.a is None or pair.b is None:
        return {}
    tables = [one.record.get("settings") for one in (pair.a, pair.b)]
    then, now = (table if isinstance(table, dict) else {} for table in tables)
    if not then or not now:  # a line that was no item
        return {}
    found = {
        name: (_text(then.get(name)), _text(now.get(name)))
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    }
    if pair.a.record.get("instruction") != pair.b.record.get("instruction"):
        found["instruction"] = ("one text", "another")
    return found


def _text(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (text if len(text) <= 60 else f"{text[:57]}...") or "empty"
