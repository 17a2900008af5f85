"""Which items of a source begin with results of others: found in a pass of its own, before the items are made.

Only a source that names results has such a pass. In memory are the ids of turns and of the items that they name.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from joyedit.errors import Problem
from joyedit.job.source.problems import KEPT_PROBLEMS, shown
from joyedit.job.turns import MARK

Wish = tuple[str, ...]
"""The ids that a name may stand for, the one that comes first is meant: that of the same cell, then the name itself."""

_SHOWN = 3
_COMPARED = 1000
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class CellWishes:
    """An item as one cell of its line: for each of its pictures a `Wish`, or None."""

    id: str
    wishes: tuple[Wish | None, ...]


class Links(Protocol):
    """Says whose results an item begins with."""

    def earlier(self, cell: CellWishes, problems: list[Problem]) -> tuple[str | None, ...]:
        """By picture: the id of the item whose result it is. What is wrong with it is added to `problems`."""

    def chain(self, name: str) -> str | None:
        """The id by which the shard of this item is chosen, where that is not its own."""


class NoLinks:
    """The links of a source that names no results."""

    def earlier(self, cell: CellWishes, problems: list[Problem]) -> tuple[str | None, ...]:
        """Of one line with several turns: each begins with the one before it."""
        return tuple(None if wish is None else wish[0] for wish in cell.wishes)

    def chain(self, name: str) -> str | None:
        """Each item is a chain of its own."""
        return None


class LinksSoFar:
    """The links of standard input: an item may name those before it. `knows` tells whether an id was given out."""

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._chains: dict[str, str] = {}

    def earlier(self, cell: CellWishes, problems: list[Problem]) -> tuple[str | None, ...]:
        """As in `Links`. A name that nobody has yet is a problem."""
        found: list[str | None] = []
        for wish in cell.wishes:
            name = None if wish is None else next((one for one in wish if self._knows(one)), None)
            if wish is not None and (name is None or name == cell.id):
                message = f"{shown(MARK + wish[-1])} is the result of no item before this one"
                problems.append(Problem(message, "an item comes before those that name it"))
            found.append(name)
        first = next((name for name in found if name is not None), None)
        if first is not None:
            self._chains[cell.id] = self._chains.get(first, first)
        return tuple(found)

    def chain(self, name: str) -> str | None:
        """That of the first item that it names."""
        return self._chains.get(name)


@dataclass(slots=True)
class _Line:
    """Where turns stand, for messages."""

    number: int
    wishes: tuple[Wish | None, ...]


@dataclass(slots=True)
class TurnLinks:
    """The links of a manifest. `note` gets each line once, then `seal` finds out what the names stand for.

    `referred` are the ids whose results are named. `problems` are those of names that cannot be, by line.
    """

    referred: set[str] = field(default_factory=set)
    problems: list[tuple[int, Problem]] = field(default_factory=list)
    _earlier: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    _chains: dict[str, str] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)
    _beyond: set[str] = field(default_factory=set)
    _several: dict[str, list[str]] = field(default_factory=dict)
    _turns: dict[str, _Line] = field(default_factory=dict)

    def note(self, name: str | None, cells: Sequence[CellWishes], line: int, *, within: int | None) -> None:
        """The items of one line; `name` is their id without the endings of cells. Of these so many are `within` the
        limit; None: all.
        """
        if name is not None and (len(cells) > 1 or (cells and cells[0].id != name)):
            self._several[name] = [cell.id for cell in cells[: _SHOWN + 1]]
        for place, cell in enumerate(cells):
            if within is not None and place >= within:
                self._beyond.add(cell.id)
                continue
            self._ids.add(cell.id)
            if any(wish is not None for wish in cell.wishes):
                self._turns[cell.id] = _Line(line, cell.wishes)

    def seal(self, *, is_whole: bool) -> None:
        """All lines were noted. With `is_whole` unset some could not be read: their ids may be those that are named."""
        for name, turn in self._turns.items():
            found = tuple(self._meant(name, wish, turn.number, is_whole=is_whole) for wish in turn.wishes)
            self._earlier[name] = found
            self.referred.update(one for one in found if one is not None)
        self._find_circles()
        self._chains = chains_of({name: [one for one in found if one] for name, found in self._earlier.items()})
        self._ids, self._beyond, self._several, self._turns = set(), set(), {}, {}

    def earlier(self, cell: CellWishes, problems: list[Problem]) -> tuple[str | None, ...]:
        """As in `Links`. What is wrong is in `problems` of this object already."""
        return self._earlier.get(cell.id, ())

    def chain(self, name: str) -> str | None:
        """As in `Links`."""
        return self._chains.get(name)

    def _meant(self, name: str, wish: Wish | None, line: int, *, is_whole: bool) -> str | None:
        """The id that is meant; None, and a problem, where there is no such item."""
        if wish is None:
            return None
        found = next((one for one in wish if one in self._ids), None)
        if found == name:
            self._wrong(line, f"the item {shown(name)} begins with its own result", "name an earlier item")
        elif found is not None:
            return found
        elif any(one in self._beyond for one in wish):
            message = f"{shown(MARK + wish[-1])} is the result of an item that --limit leaves out"
            self._wrong(line, message, "raise the limit, or put that item before this one")
        elif wish[-1] in self._several:
            cells = self._several[wish[-1]]
            told = ", ".join(shown(MARK + one) for one in cells[:_SHOWN]) + (", ..." if len(cells) > _SHOWN else "")
            self._wrong(line, f"{shown(wish[-1])} stands for several items", f"name one of them: {told}")
        elif is_whole:
            message = f"{shown(MARK + wish[-1])} is the result of no item: there is none of the id {shown(wish[-1])}"
            self._wrong(line, message, self._remedy(wish[-1]))
        return None

    def _remedy(self, name: str) -> str:
        """A similar id, if there is one; looking for it takes long, so only for what is told."""
        if len(self.problems) < KEPT_PROBLEMS:
            found = next((one for one in self._ids if one.rpartition("/")[2] == name), None)
            near = [found] if found else difflib.get_close_matches(name[:_LONGEST], sorted(self._ids)[:_COMPARED], n=1)
            if near:
                return f"did you mean '{MARK}{near[0]}'?"
        return f"correct the id; a file of this name is './{MARK}{name}'"

    def _wrong(self, line: int, message: str, remedy: str) -> None:
        self.problems.append((line, Problem(message, remedy, key="image")))

    def _find_circles(self) -> None:
        """Find the items that wait for each other; each circle is told once."""
        open_turns = {name: sum(one in self._earlier for one in set(found)) for name, found in self._earlier.items()}
        later = defaultdict(list)
        for name, found in self._earlier.items():
            for one in set(found):
                if one in self._earlier:
                    later[one].append(name)
        free = [name for name, count in open_turns.items() if not count]
        while free:
            name = free.pop()
            del open_turns[name]
            for one in later[name]:
                open_turns[one] -= 1
                if not open_turns[one]:
                    free.append(one)
        while open_turns:
            self._tell_circle(open_turns)

    def _tell_circle(self, left: dict[str, int]) -> None:
        """Tell the circle that the first of these items leads to, and forget all that leads to it."""
        path: dict[str, None] = {}
        name = next(iter(left))
        while name not in path:
            path[name] = None
            following = next((one for one in self._earlier[name] if one in left), None)
            if following is None:  # it leads to a circle that was told
                break
            name = following
        else:
            names = list(path)
            circle = names[names.index(name) :]
            told = " -> ".join(map(shown, (*circle[:_SHOWN], *(["..."] if len(circle) > _SHOWN else []), name)))
            line = min(self._turns[one].number for one in circle)
            self._wrong(line, f"these items wait for each other's results: {told}", "let one of them begin with a file")
        for one in path:
            del left[one]


def chains_of(earlier: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """By id: the first id of its chain, for all items but those that are the first themselves.

    Items that are linked are one chain. Of several that begin with files the first by name counts, so that the order
    of lines decides nothing.
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        found = name
        while (higher := above.get(found, found)) != found:
            found = higher
        while name != found:  # the next one that asks has a shorter way
            above[name], name = found, above.get(name, name)
        return found

    sizes: Counter[str] = Counter()
    for name, names in earlier.items():
        for one in names:
            first, second = top(name), top(one)
            if first != second:
                small, large = sorted((first, second), key=lambda found: sizes[found])
                above[small] = large
                sizes[large] += sizes[small] + 1
    members = dict.fromkeys([*earlier, *(one for names in earlier.values() for one in names)])
    firsts: dict[str, str] = {}
    for name in members:
        if name not in earlier or not any(True for _ in earlier[name]):
            group = top(name)
            firsts[group] = min(firsts.get(group, name), name)
    return {name: first for name in members if (first := firsts.get(top(name), name)) != name}
