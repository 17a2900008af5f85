"""How GPUs are divided: into groups that work on items of their own, and within a group over the work of one item.

A group of G times S ranks divides the guidance branches of its batches over G, and the tokens of each branch over S.
No torch here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from joyedit.errors import UsageError

ParallelName = Literal["auto", "data", "guidance", "sequence"]
"""`data`: each GPU has its own items. `guidance`: one guidance branch a GPU. `sequence`: each GPU has some of the
tokens."""

BRANCHES = 2
"""Guidance branches of an item."""
GUIDANCE_GAIN, SEQUENCE_GAIN = 1.98, 1.9
"""What `auto` expects of twice as many GPUs for the same item, branch by branch and token by token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The ranks of one group: over `guidance` times `sequence` of them. Ranks of a sequence are neighbours."""

    guidance: int = 1
    sequence: int = 1

    @property
    def world(self) -> int:
        """How many ranks there are."""
        return self.guidance * self.sequence

    def place(self, rank: int) -> tuple[int, int]:
        """Where a rank is: over guidance, and over the sequence."""
        return divmod(rank, self.sequence)

    def guidance_groups(self) -> list[list[int]]:
        """Ranks with the same tokens, which exchange branches: one list for each place of a sequence."""
        return [list(range(first, self.world, self.sequence)) for first in range(self.sequence)]

    def sequence_groups(self) -> list[list[int]]:
        """Ranks with the same branches, which exchange tokens: one list for each place over guidance."""
        return [list(range(first, first + self.sequence)) for first in range(0, self.world, self.sequence)]

    def __str__(self) -> str:
        names = [(self.guidance, "guidance"), (self.sequence, "sequence")]
        return " x ".join(f"{name} {count}" for count, name in names if count > 1) or "one"


ALONE = Layout()
"""One rank, which needs no others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """What all GPUs of a run do: `groups` of one layout, each with its own items."""

    groups: int
    layout: Layout = ALONE

    @property
    def gpus(self) -> int:
        """How many are used."""
        return self.groups * self.layout.world


def choose_parallel(
    wish: ParallelName, *, items: int | None, gpus: int, heads: int, guidance_on: bool = True
) -> Parallel:
    """What `gpus` GPUs do for `items` items, None if nobody knows how many. `heads`: attention heads of the DiT.

    auto: each GPU has its own items where there are at least as many items as GPUs, or nobody knows; else groups of the
    size that is expected to be done first. Raises UsageError for what cannot be.
    """
    if gpus < 1:
        raise UsageError(f"{gpus} GPUs are given; at least one is needed")
    if wish == "data":
        return Parallel(groups=gpus)
    if wish == "guidance":
        return _by_guidance(gpus, guidance_on)
    if wish == "sequence":
        if gpus > heads:
            raise UsageError(
                f"--parallel sequence divides {heads} attention heads, and {gpus} GPUs are given; use --gpus {heads} or"
                " fewer"
            )
        return Parallel(groups=1, layout=Layout(sequence=gpus))
    if items is None or items >= gpus:
        return Parallel(groups=gpus)
    sizes = [size for size in range(1, gpus + 1) if gpus % size == 0]
    layouts = [layout for size in sizes if (layout := _layout_of(size, guidance_on)).sequence <= heads]
    best = min(layouts, key=lambda layout: _time(layout, max(1, items), gpus // layout.world))
    return Parallel(groups=gpus // best.world, layout=best)


def _by_guidance(gpus: int, guidance_on: bool) -> Parallel:
    if not guidance_on:
        raise UsageError(
            "--parallel guidance divides the two branches of guidance, and it is off for all items; use --parallel"
            " sequence or data"
        )
    if gpus % BRANCHES:
        raise UsageError(
            f"--parallel guidance takes pairs of GPUs, and {gpus} are given; use --gpus with an even number"
        )
    return Parallel(groups=gpus // BRANCHES, layout=Layout(guidance=BRANCHES))


def _layout_of(size: int, guidance_on: bool) -> Layout:
    """Branches first: they exchange less than tokens."""
    guidance = BRANCHES if guidance_on and size % BRANCHES == 0 else 1
    return Layout(guidance=guidance, sequence=size // guidance)


def _time(layout: Layout, items: int, groups: int) -> float:
    """Until the last of these items is done, in parts of the time that one GPU takes for one item."""
    gain = GUIDANCE_GAIN ** math.log2(layout.guidance) * SEQUENCE_GAIN ** math.log2(layout.sequence)
    return float(math.ceil(items / groups) / gain)
