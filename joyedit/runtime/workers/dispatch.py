"""Which batch goes to which worker, and what becomes of the items of a worker that died. No threads, no processes.

A worker has one batch on the device and one behind it, or as many as it encodes together. The least loaded one gets
the next batch; where one has the pictures of the batch from before, that one, if it is hardly busier and no other is
idle. Items that were with a worker when it died are suspects: each goes alone to a worker that has nothing else, and
not to the one that died if there is another. An item that was with two workers when they died is given up.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from joyedit.runtime.protocol import ReadyBatch, ReadyItem

DEATHS = 2
"""At so many deaths of a worker an item was with it: then it is given up."""
_WAITING = 4
"""So many batches wait here at most, however many workers there are: the next ones are read by then."""
_PICTURES = 64
"""So many pictures a worker is thought to remember."""
_MUCH_BUSIER = 2
"""A worker that knows the pictures gets the batch unless another has nothing to do, or so many batches less."""


class Task(NamedTuple):
    """A batch for a worker. `at_once`: it must not wait there for batches to be encoded with."""

    worker: int
    batch: ReadyBatch
    at_once: bool


class Lost(NamedTuple):
    """What a worker's death means: items that are given up, and how many others are to be tried again alone."""

    given_up: tuple[ReadyItem, ...]
    again: int
    was_alone: bool


@dataclass(slots=True)
class _Load:
    """What a worker has: `open` items of each batch. `is_alone`: the item there must be the only one."""

    batches: dict[int, dict[str, ReadyItem]] = field(default_factory=dict)
    batch_of: dict[str, int] = field(default_factory=dict)
    is_alone: bool = False
    pictures: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)

    def knows(self, pictures: Iterable[Hashable]) -> bool:
        return any(one in self.pictures for one in pictures)

    def give(self, number: int, batch: ReadyBatch) -> None:
        self.batches[number] = {ready.sized.key: ready for ready in batch.items}
        self.batch_of |= dict.fromkeys(self.batches[number], number)
        for one in _pictures(batch):
            self.pictures[one] = None
            self.pictures.move_to_end(one)
        while len(self.pictures) > _PICTURES:
            self.pictures.popitem(last=False)

    def take(self, name: str) -> ReadyItem | None:
        number = self.batch_of.pop(name, None)
        if number is None:
            return None
        items = self.batches[number]
        ready = items.pop(name)
        if not items:
            del self.batches[number]
            self.is_alone = False
        return ready


class Dispatch:
    """The batches of a run on their way. `depth` is how many a worker may have; `finishing`: no more are to come.

    `loading` is how many workers will join soon: what waits is for them, not for a worker that has a batch already.
    """

    def __init__(self, depth: int) -> None:
        self.finishing = False
        self.loading = 0
        self._depth = depth
        self._number = 0
        self._pending: deque[ReadyBatch] = deque()
        self._suspects: deque[ReadyItem] = deque()
        self._deaths: dict[str, tuple[int, int]] = {}  # of an item that has no result yet: how many, and with whom
        self._loads: dict[int, _Load] = {}
        self._held: int | None = None
        self._to_flush: set[int] = set()

    def join(self, worker: int) -> None:
        """This worker takes batches from now on."""
        self._loads.setdefault(worker, _Load())

    def add(self, batch: ReadyBatch) -> None:
        """A batch to be edited."""
        self._pending.append(batch)

    @property
    def has_room(self) -> bool:
        """Whether another batch should come: each that waits holds its pictures in memory."""
        return len(self._pending) < max(1, min(len(self._loads), _WAITING))

    @property
    def waiting(self) -> int:
        """How many batches, and suspects, are with no worker."""
        return len(self._pending) + len(self._suspects)

    @property
    def is_running(self) -> bool:
        """Whether any worker has an item."""
        return any(load.batches for load in self._loads.values())

    def busy(self) -> list[int]:
        """The workers that have items."""
        return [worker for worker, load in self._loads.items() if load.batches]

    def drop(self) -> bool:
        """Forget what is with no worker; whether there was anything."""
        had = self.waiting > 0
        self._pending.clear()
        self._suspects.clear()
        return had

    def flushes(self) -> list[int]:
        """Workers that are to edit what waits there for other batches: none come for a while."""
        found, self._to_flush = list(self._to_flush), set()
        return found

    def tasks(self) -> Iterator[Task]:
        """What is to be sent now; each counts as given when it comes."""
        while (task := self._next()) is not None:
            yield task

    def result(self, worker: int, name: str) -> ReadyItem | None:
        """An item came back from a worker; None if nobody waits for it."""
        load = self._loads.get(worker)
        ready = None if load is None else load.take(name)
        if ready is not None:
            self._deaths.pop(name, None)
        return ready

    def died(self, worker: int) -> Lost:
        """A worker is gone: its items are suspects, or given up."""
        load = self._loads.pop(worker, None) or _Load()
        given_up: list[ReadyItem] = []
        again = 0
        for ready in [ready for items in load.batches.values() for ready in items.values()]:
            name = ready.sized.key
            deaths = self._deaths.get(name, (0, 0))[0] + 1
            if deaths >= DEATHS:
                del self._deaths[name]
                given_up.append(ready)
            else:
                self._deaths[name] = deaths, worker
                self._suspects.append(ready)
                again += 1
        return Lost(tuple(given_up), again, load.is_alone)

    def _next(self) -> Task | None:
        free = [worker for worker, load in self._loads.items() if not load.is_alone and len(load.batches) < self._depth]
        if self._suspects:
            found = self._next_suspect([worker for worker in free if not self._loads[worker].batches])
            if found is not None:
                return found
            free = [worker for worker in free if worker != self._hold_back()]
        if not self._pending or not free:
            return None
        if len(self._pending) <= self.loading and all(self._loads[worker].batches for worker in free):
            return None
        self._split(free)
        batch = self._pending.popleft()
        return self._give(self._choose(free, batch), batch)

    def _next_suspect(self, idle: list[int]) -> Task | None:
        """A suspect for an idle worker: not the one where it was last, unless there is no other."""
        for place, ready in enumerate(self._suspects):
            where = [one for one in idle if one != self._deaths[ready.sized.key][1]]
            if not where and idle and len(self._loads) == 1:
                where = idle
            if where:
                del self._suspects[place]
                self._loads[where[0]].is_alone = True
                return self._give(where[0], ReadyBatch(index=0, items=(ready,), one_by_one=True))
        return None

    def _hold_back(self) -> int | None:
        """The worker that is to become idle, for a suspect; None where one has a suspect already."""
        if any(load.is_alone for load in self._loads.values()):
            self._held = None
            return None
        last = self._deaths[self._suspects[0].sized.key][1]
        able = [worker for worker in self._loads if worker != last] or list(self._loads)
        found = min(able, key=self._load_of, default=None)
        if found is not None and found != self._held:  # what waits there for other batches waits no longer
            self._to_flush.add(found)
        self._held = found
        return found

    def _give(self, worker: int, batch: ReadyBatch) -> Task:
        self._number += 1
        load = self._loads[worker]
        load.give(self._number, batch)
        return Task(worker, batch, load.is_alone or self.finishing or self.loading > 0)

    def _choose(self, free: list[int], batch: ReadyBatch) -> int:
        least = min(free, key=self._load_of)
        pictures = _pictures(batch)
        knowing = [worker for worker in free if pictures and self._loads[worker].knows(pictures)]
        if not knowing:
            return least
        best = min(knowing, key=self._load_of)
        waits, busier = self._load_of(least)[0], self._load_of(best)[0] - self._load_of(least)[0]
        # Reading a picture again costs less than a device without work.
        return best if not busier or (waits and busier < _MUCH_BUSIER) else least

    def _load_of(self, worker: int) -> tuple[int, int]:
        load = self._loads[worker]
        return len(load.batches), len(load.batch_of)

    def _split(self, free: list[int]) -> None:
        """At the end, one batch that is left over goes in parts to all idle workers."""
        idle = [worker for worker in free if not self._loads[worker].batches]
        if not self.finishing or len(self._pending) != 1 or len(idle) < 2 or self._suspects:
            return
        batch = self._pending.popleft()
        size = -(-len(batch.items) // len(idle))
        for start in range(0, len(batch.items), size):
            self._pending.append(replace(batch, items=batch.items[start : start + size]))


def _pictures(batch: ReadyBatch) -> list[Hashable]:
    """What tells the pictures of a batch from others: their content, and how they were fitted."""
    return [
        (seen.sha256, fit) for ready in batch.items for seen, fit in zip(ready.seen, ready.sized.fits, strict=False)
    ]
