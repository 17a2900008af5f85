"""What the ranks of a group exchange, by torch.distributed: NCCL between CUDA devices, gloo between processes on CPUs.

Legend: B branches of a batch, C latent channels, h and w latent pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from joyedit.models.shared_sequences import share
from joyedit.runtime.joyimage.denoise import PartSpec
from joyedit.runtime.parallel.place import Place

RENDEZVOUS = "rendezvous"
"""The file by which the ranks find each other."""
_ALIGNED = 256
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Arriving:
    """What comes from other ranks. What is sent has to stay until it came, so it is held."""

    out: Tensor
    given: Tensor
    work: Any

    def wait(self) -> Tensor:
        """On CUDA, what is queued from now on waits; the host does not."""
        self.work.wait()
        return self.out


class RankExchange:
    """The ranks of one process group. `sent` counts the bytes that this rank gave others, `calls` the exchanges."""

    def __init__(self, group: Any, members: Sequence[int], rank: int) -> None:
        self._group: Any = group
        self.rank = members.index(rank)
        self.size = len(members)
        self.sent = self.calls = 0

    def all_to_all(self, given: Tensor, given_sizes: Sequence[int], sizes: Sequence[int]) -> Arriving:
        """As `models.shared_sequences.Exchange` has it."""
        out = given.new_empty(sum(sizes))
        work = dist.all_to_all_single(
            out, given, list(sizes), list(given_sizes), group=self._group, async_op=True
        )  # fmt: skip
        self.calls += 1
        self.sent += (sum(given_sizes) - given_sizes[self.rank]) * given.itemsize
        return Arriving(out, given, work)

    def close(self) -> None:
        """Forget the process group: its connections close when nothing holds it, and other ranks notice."""
        self._group = None

    def to_all(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """Every rank's part, one behind the other: one-dimensional, of these sizes."""
        flat = part.reshape(-1)
        return self.all_to_all(flat.repeat(self.size), [flat.numel()] * self.size, sizes).wait()


class GroupRanks:
    """The ranks of a group as the denoising sees them: `joyimage.denoise.Ranks`. The process group is open."""

    def __init__(self, place: Place, device: torch.device) -> None:
        """Meet the other ranks; all of them call this. Raises what torch raises where one does not come in time."""
        layout = place.layout
        self.rank, self.world = place.rank, layout.world
        self._device = device
        self._cuda = device.type == "cuda"
        self.guidance: RankExchange | None = None
        self.sequence: RankExchange | None = None
        self._all: RankExchange | None = None  # where neither of the others is among all ranks
        timeout = timedelta(seconds=place.timeout)
        _count_groups_anew()
        dist.init_process_group(
            "nccl" if self._cuda else "gloo",
            init_method=f"file://{place.folder.resolve() / RENDEZVOUS}",
            rank=place.rank,
            world_size=layout.world,
            timeout=timeout,
        )
        try:
            self.guidance = _own_exchange(layout.guidance_groups(), place.rank, timeout)
            self.sequence = _own_exchange(layout.sequence_groups(), place.rank, timeout)
            if self.guidance is not None and self.sequence is not None:
                self._all = _own_exchange([range(layout.world)], place.rank, timeout)
            for exchange in self.exchanges():  # opens the connections, which torch does in the first call
                exchange.to_all(torch.zeros(1, device=device), [1] * exchange.size)
        except BaseException:
            self.close()
            raise

    def exchanges(self) -> list[RankExchange]:
        """Those that this rank takes part in."""
        found = (self.guidance, self.sequence, self._all)
        return [exchange for exchange in found if exchange is not None]

    def everywhere(self, own: Mapping[int, Tensor], specs: Sequence[PartSpec]) -> list[Tensor]:
        """The parts of these specs, in order, each from the rank that has it: bytes are exchanged, so nothing is
        rounded.
        """
        exchange = self._all or self.guidance or self.sequence
        assert exchange is not None, "a group has several ranks"
        sizes = [sum(_room(spec) for spec in specs if spec.rank == rank) for rank in range(self.world)]
        flat = torch.zeros(sizes[self.rank], dtype=torch.uint8, device=self._device)
        for number, place in _places(specs, self.rank).items():
            values = own[number].contiguous().view(-1).view(torch.uint8)
            flat[place : place + len(values)] = values
        came = exchange.to_all(flat, sizes).split(sizes)
        found: dict[int, Tensor] = dict(own)
        for rank, theirs in enumerate(came):
            for number, place in _places(specs, rank).items():
                spec = specs[number]
                found.setdefault(number, theirs[place : place + spec.nbytes].view(spec.dtype).view(spec.shape))
        return [found[number] for number in range(len(specs))]

    def own(self, branches: int) -> range:
        """A contiguous part of a batch's branches."""
        return self._shares(branches)[0 if self.guidance is None else self.guidance.rank]

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        """(own, C, h, w) -> (B, C, h, w), the same in every rank."""
        if self.guidance is None:
            return velocity
        one = velocity.shape[1:].numel()
        sizes = [len(part) * one for part in self._shares(branches)]
        return self.guidance.to_all(velocity, sizes).view(branches, *velocity.shape[1:])

    def _shares(self, branches: int) -> list[range]:
        size = 1 if self.guidance is None else self.guidance.size
        return [share(branches, rank, size) for rank in range(size)]

    def abort(self) -> None:
        """Break off what NCCL waits for; any thread may do this. gloo does so itself when a rank is gone."""
        abort = getattr(dist.distributed_c10d, "_abort_process_group", None)  # torch has no other way
        if self._cuda and abort is not None:
            with suppress(RuntimeError, ValueError, AssertionError):  # it is broken off already
                abort()

    def close(self, lost: bool = False) -> None:
        """Leave the group. `lost`: it is out of step, and nobody waits for what was exchanged last."""
        if dist.is_initialized():
            if lost:
                self.abort()
            elif self._cuda:
                torch.cuda.synchronize()
            with suppress(RuntimeError, ValueError, AssertionError):  # another rank is gone, or it is broken off
                dist.destroy_process_group()
            for exchange in self.exchanges():
                exchange.close()


def _own_exchange(groups: Sequence[Sequence[int]], rank: int, timeout: timedelta) -> RankExchange | None:
    """The exchange among the group that the rank is in; all ranks open all groups. None where groups are of one."""
    if len(groups[0]) == 1:
        return None
    found = None
    for members in groups:
        group = dist.new_group(list(members), timeout=timeout, pg_options=_options())
        if rank in members:
            found = RankExchange(group, members, rank)
    return found


def _room(spec: PartSpec) -> int:
    """Bytes that a part takes on its way: the next one begins where values of any dtype may."""
    return -(-spec.nbytes // _ALIGNED) * _ALIGNED


def _places(specs: Sequence[PartSpec], rank: int) -> dict[int, int]:
    """Where each part of a rank begins in what it sends, by number."""
    numbers = [number for number, spec in enumerate(specs) if spec.rank == rank]
    begins = itertools.accumulate((_room(specs[number]) for number in numbers), initial=0)
    return dict(zip(numbers, begins, strict=False))


def _count_groups_anew() -> None:
    """Ranks find each other by the number of a group, which torch counts in each process, also where one failed to
    start. It has no public way to begin again.
    """
    world: Any = getattr(dist.distributed_c10d, "_world", None)
    if world is not None and not dist.is_initialized():
        world.group_count = 0


def _options() -> Any:
    """Exchanges come before products that fill the device: otherwise they would begin when these have ended."""
    if not torch.cuda.is_available() or dist.get_backend() != "nccl":
        return None
    options = dist.ProcessGroupNCCL.Options()
    options.is_high_priority_stream = True
    return options
