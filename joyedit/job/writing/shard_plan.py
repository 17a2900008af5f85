"""Which shard an item belongs to.

An item whose picture lies in a shard, or once lay in one, stays with that shard. All others fill the shards that have
room, in the order of the source. So a run that was killed goes on with the same shards, items that come to a source
later go to the end, and nothing has to be kept beside the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from joyedit.job.number_table import NumberTable
from joyedit.job.results.records import packed_in, replaced_by


class ShardPlan:
    """`size` is how many items a shard has, `records` are all records of the output folder, in order."""

    def __init__(self, size: int, records: Iterable[Mapping[str, Any]]) -> None:
        self._size = size
        self._shards = NumberTable()
        self._next = 0
        self.count: Counter[int] = Counter()
        """How many items belong to each shard."""
        for record in records:
            packed = packed_in(record)
            before = [self._shards.pop(name) for name in replaced_by(dict(record))]
            self.count.subtract(number for number in before if number is not None)
            if packed is not None:
                self._put(str(record["id"]), packed.shard)
            elif any(number is not None for number in before):
                self._put(str(record["id"]), next(number for number in before if number is not None))

    def known(self, names: Iterable[str]) -> int | None:
        """The shard of the item that has, or had, one of these ids; None if it has none yet."""
        if not len(self._shards):
            return None
        return next((number for name in names if (number := self._shards.get(name)) is not None), None)

    def place(self, name: str, other_names: Iterable[str] = ()) -> int:
        """The shard of an item that comes now."""
        number = self._shards.get(name)
        if number is None:
            number = self.known(other_names)
        if number is None:
            while self.count[self._next] >= self._size:
                self._next += 1
            number = self._next
            self.count[number] += 1
        self._shards[name] = number
        return number

    def is_full(self, number: int) -> bool:
        """Whether no other item can come to this shard."""
        return self.count[number] >= self._size

    def belongs(self, name: str, number: int) -> bool:
        """Whether an item belongs to this shard."""
        return self._shards.get(name) == number

    def _put(self, name: str, number: int) -> None:
        before = self._shards.get(name)
        if before is not None:
            self.count[before] -= 1
        self._shards[name] = number
        self.count[number] += 1
