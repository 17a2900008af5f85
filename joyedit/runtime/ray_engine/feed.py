"""The way of planned batches into Ray Data: an actor that holds those on their way, and a datasource that reads it.

A source is a stream, and nobody knows its length. So the datasource has one read task, which asks the actor for one
batch after the other, and holds the planner up while enough are on their way. What is in memory does not grow with the
source.

Ray may run the read task again when something it gave was lost. The task then gives the same rows in the same order,
as Ray expects: batches have numbers, the actor keeps each until its outcome has come back, and a batch that is over is
an empty row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from joyedit.runtime.ray_engine.rows import as_table

Stage = Literal["read", "edit", "write"]
Answer = Literal["begin", "stopped", "died"]

MOST_BEGUN: Mapping[Stage, int] = {"read": 2, "edit": 1, "write": 2}
"""So many processes may die with one batch in a stage. Ray itself would try without end, and an item that kills every
actor would stop the run: so a batch with which an actor died comes back, and its items go out again, each alone."""
A_WORKER = 8
"""So many batches are on their way for each actor: being read, edited and written, and some behind them. Ray bounds the
pictures on their way by its memory; descriptions are so small that it would take all of a long source."""


class Feed:
    """An asyncio actor. Every method may be called by several processes at once. It holds at most `most` batches."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, bytes] = {}
        self._count = 0
        self._ended = False
        self._stopped = False
        self._begun: Counter[tuple[Stage, int]] = Counter()
        self._changed = asyncio.Condition()

    async def put(self, data: bytes) -> bool:
        """Add the next batch; waits for room. False if the run stops."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or len(self._held) < self._most)
            if self._stopped:
                return False
            self._held[self._count] = data
            self._count += 1
            self._changed.notify_all()
            return True

    async def get(self, number: int) -> bytes | None:
        """The batch of this number; empty if it is over, None behind the last one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or self._ended or number < self._count)
            return self._held.get(number, b"") if number < self._count else None

    async def begin(self, stage: Stage, number: int) -> Answer:
        """A process is about to work on this batch. `died`: too many processes did, and have not come to its end."""
        if self._stopped:
            return "stopped"
        if self._begun[stage, number] >= MOST_BEGUN[stage]:
            return "died"
        self._begun[stage, number] += 1
        return "begin"

    async def ended(self, stage: Stage, number: int) -> None:
        """The work is done. If its result is lost with a machine, Ray may have it done again."""
        self._begun.pop((stage, number), None)

    async def over(self, number: int) -> None:
        """The outcome of this batch has come back: nobody needs it again."""
        for stage in MOST_BEGUN:
            self._begun.pop((stage, number), None)
        async with self._changed:
            self._held.pop(number, None)
            self._changed.notify_all()

    async def end(self) -> None:
        """No more batches come."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def stop(self) -> None:
        """The run stops: no batch is to be begun any more."""
        async with self._changed:
            self._stopped = True
            self._changed.notify_all()

    async def is_stopped(self) -> bool:
        """Whether the run stops."""
        return self._stopped


def begins(feed: Any, stage: Stage, number: int) -> Answer:
    """Ask the actor, from another process."""
    import ray

    answer: Answer = ray.get(feed.begin.remote(stage, number))
    return answer


def blocks(feed: Any) -> Iterator[Any]:
    """The read task: a table for each batch, in order."""
    import ray

    number = 0
    while (data := ray.get(feed.get.remote(number))) is not None:
        yield as_table(data)
        number += 1


def feed_source(feed: Any) -> Any:
    """The datasource of this actor."""
    from ray.data import Datasource
    from ray.data.block import BlockMetadata
    from ray.data.datasource import ReadTask

    class FeedSource(Datasource):  # type: ignore[misc]  # Ray's types are not read
        """One stream of rows."""

        def estimate_inmemory_data_size(self) -> int | None:
            """Nobody knows."""
            return None

        def get_read_tasks(self, parallelism: int, *more: object, **named: object) -> Iterable[Any]:
            """One, whatever is asked for."""
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(partial(blocks, feed), unknown)]

    return FeedSource()
