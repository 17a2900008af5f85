"""What is known in a run of each shard: which of its items came, which of them have no picture yet, what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from joyedit.job.writing.shard_plan import ShardPlan


@dataclass(kw_only=True, slots=True)
class _Shard:
    """`items` are [place in the source, id] of those that came, `pending` the ids that have no picture as asked.

    `is_changed`: a picture came that the file of the shard does not hold. `is_open`: one of its items came under an id
    that no record has, so nobody knows how many come.
    """

    came: int = 0
    items: list[tuple[int, str]] = field(default_factory=list)
    pending: set[str] = field(default_factory=set)
    is_changed: bool = False
    is_open: bool = False


class OpenShards:
    """The shards of one run. The names of items are kept only as long as their shard may have to be written.

    Whoever calls the methods holds a lock.
    """

    def __init__(self, plan: ShardPlan) -> None:
        self._plan = plan
        self._shards: dict[int, _Shard] = {}
        self._count = 0
        self._all_came = False

    def came(self, name: str, other_names: Iterable[str]) -> int:
        """An item of the source comes; it has no picture yet. Gives its shard."""
        others = list(other_names)
        is_other = self._plan.known([name]) is None and self._plan.known(others) is not None
        number = self._plan.place(name, others)
        shard = self._shards.setdefault(number, _Shard())
        shard.is_open |= is_other
        shard.came += 1
        shard.items.append((self._count, name))
        shard.pending.add(name)
        self._count += 1
        return number

    def finished(self, name: str, *, is_packed: bool, recorded_as: str | None = None) -> int | None:
        """The item has its picture. Gives the shard if that can be written now, or need not be written at all.

        `recorded_as` is the id of its record, where that is another one.
        """
        number = self._plan.known([name])
        shard = None if number is None else self._shards.get(number)
        if number is None or shard is None:
            return None
        shard.pending.discard(name)
        if recorded_as not in (None, name):
            shard.items = [(place, recorded_as if one == name else one) for place, one in shard.items]
        shard.is_changed |= not is_packed
        return number if self._is_settled(number, shard) else None

    def all_came(self) -> None:
        """The source has come to its end."""
        self._all_came = True

    def is_ready(self, number: int) -> bool:
        """Whether the shard can be written now, and its file lacks something. Else it may be forgotten."""
        shard = self._shards.get(number)
        if shard is None or not self._is_settled(number, shard):
            return False
        if not shard.is_changed:
            shard.items.clear()
        return shard.is_changed

    def settled(self) -> Iterator[int]:
        """All shards of which every item has come."""
        for number in sorted(self._shards):
            if self._has_come(number, self._shards[number]):
                yield number

    def pending(self, number: int) -> set[str]:
        """The items of this shard that have no picture as asked."""
        return self._shards[number].pending

    def unfinished(self) -> int:
        """How many items have no picture as asked."""
        return sum(len(shard.pending) for shard in self._shards.values())

    def waiting(self) -> int:
        """How many shards lack a picture, in their file or at all. This one needs no lock."""
        return sum(bool(shard.pending) or shard.is_changed for shard in list(self._shards.values()))

    def ids(self, number: int) -> list[str]:
        """The ids of its items that came, in the order of the source, each once: two may have one picture."""
        return list(dict.fromkeys(name for _, name in sorted(self._shards[number].items)))

    def is_changed(self, number: int) -> bool:
        """Whether a picture came that its file does not hold."""
        return self._shards[number].is_changed

    def written(self, number: int) -> None:
        """The file of this shard holds what it should."""
        shard = self._shards[number]
        shard.is_changed = False
        if not shard.pending:
            shard.items.clear()

    def _has_come(self, number: int, shard: _Shard) -> bool:
        has_all = self._plan.is_full(number) and shard.came >= self._plan.count[number] and not shard.is_open
        return self._all_came or has_all

    def _is_settled(self, number: int, shard: _Shard) -> bool:
        return not shard.pending and self._has_come(number, shard)
