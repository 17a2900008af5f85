"""Ranks within one process: threads of which one runs at a time, and hands over where it waits for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class World:
    """What the ranks share: what was sent, by call, sender and receiver, and who may run."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: dict[tuple[int, int, int], Tensor] = {}
        self.turn = threading.Condition()
        self.failed = False


class ThreadExchange:
    """`models.shared_sequences.Exchange` between threads. `calls` holds the sizes of what each call has sent."""

    def __init__(self, world: World, rank: int) -> None:
        self.rank, self.size = rank, world.size
        self.calls: list[tuple[int, ...]] = []
        self._world = world

    def all_to_all(self, given: Tensor, given_sizes: Sequence[int], sizes: Sequence[int]) -> _Arriving:
        assert given.ndim == 1
        assert len(given_sizes) == len(sizes) == self.size
        for receiver, part in enumerate(given.split(list(given_sizes))):
            self._world.sent[len(self.calls), self.rank, receiver] = part.clone()
        self._world.turn.notify_all()
        self.calls.append(tuple(given_sizes))
        return _Arriving(self._world, len(self.calls) - 1, self.rank, tuple(sizes))


@dataclass(frozen=True)
class _Arriving:
    world: World
    call: int
    rank: int
    sizes: tuple[int, ...]

    def wait(self) -> Tensor:
        keys = [(self.call, sender, self.rank) for sender in range(self.world.size)]
        while not all(key in self.world.sent for key in keys):
            if self.world.failed:
                raise RuntimeError("another rank failed")
            assert self.world.turn.wait(60), "another rank makes other calls"
        parts = [self.world.sent[key] for key in keys]
        assert tuple(len(part) for part in parts) == self.sizes
        return torch.cat(parts)


def run_ranks(size: int, work: Callable[[ThreadExchange], T]) -> list[T]:
    """What `work` gives in each rank. Raises the first rank's error."""
    world = World(size)
    found: dict[int, T] = {}
    errors: list[BaseException] = []

    def one(rank: int) -> None:
        with world.turn, torch.inference_mode():
            try:
                found[rank] = work(ThreadExchange(world, rank))
            except BaseException as error:
                errors.append(error)
                world.failed = True
                world.turn.notify_all()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[rank] for rank in range(size)]
