"""The parts of a batch's conditioning, and which rank of a group encodes which of them.

A part is the features of one text, or the latent of one picture. Texts behind the same pictures are read together, so
one rank has all of them. Where several ranks encode a batch, each computes its own parts, by the kernels by which one
rank computes all of them, and gives them to the others before they denoise. What a rank has in its cache changes only
the time that it takes.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from joyedit.runtime.joyimage.denoise import Conditioning, PartSpec

PICTURE_READ = 8
"""What the text encoder takes for the pixels of a picture, where the VAE's encoder takes 1 (H100: 81 and 9.5 ms)."""
TEXT_READ = 1 << 18
"""The same for one text, whatever it says: a fraction of what its pictures take."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedParts:
    """What one rank knows of a batch's conditioning.

    `own` are the parts that it computed, by their number; `count` is the number of all of them. `positive`, `negative`
    and `references` say which part goes where, as `Conditioning` has the tensors; `noise` and `scales` are those there.
    """

    own: Mapping[int, Tensor]
    count: int
    noise: Tensor
    positive: tuple[int, ...]
    negative: tuple[int | None, ...]
    references: tuple[tuple[int, ...], ...]
    scales: tuple[float, ...]

    def specs(self, rank: int) -> dict[int, PartSpec]:
        """What the other ranks have to know of this rank's parts."""
        return {number: PartSpec(rank, tuple(part.shape), part.dtype) for number, part in self.own.items()}

    def conditioning(self, parts: Sequence[Tensor]) -> Conditioning:
        """The conditioning, of all parts in order."""
        return Conditioning(
            noise=self.noise,
            references=tuple(torch.cat([parts[number] for number in slot]) for slot in self.references),
            positive=tuple(parts[number] for number in self.positive),
            negative=tuple(None if number is None else parts[number] for number in self.negative),
            scales=self.scales,
        )

    def whole(self) -> Conditioning:
        """The conditioning, where this rank has all parts."""
        return self.conditioning([self.own[number] for number in range(self.count)])

    def tensors(self) -> list[Tensor]:
        """All that is on the device."""
        return [self.noise, *self.own.values()]


def divide(costs: Mapping[K, int], ranks: int) -> dict[K, int]:
    """A rank for each of these, so that none takes much longer than the others: the same in every rank.

    The first rank gets the most costly one. Of equal ones, the order of keys decides, not that of a batch: so a
    picture that comes again often goes to the rank that has seen it.
    """
    loads = [(0, rank) for rank in range(ranks)]
    found: dict[K, int] = {}
    for key in sorted(costs, key=lambda one: (-costs[one], repr(one))):
        load, rank = heapq.heappop(loads)
        found[key] = rank
        heapq.heappush(loads, (load + costs[key], rank))
    return found
