"""The denoising loop of one batch: the branches of its items through the DiT, guidance, and Euler steps in fp32.

Several ranks may do this together: each computes some of the branches, some of the tokens, or both, gets what the
others computed, and makes the same step. `Speed` says what may be left out of the steps; by default nothing is.

Legend: B items, C latent channels, h and w latent pixels, L blocks, M hidden channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from joyedit.job.speed.settings import EXACT, BlockSteps, Speed
from joyedit.models.dit import DiT
from joyedit.models.schedule import TRAIN_TIMESTEPS, euler_step
from joyedit.models.shared_sequences import Exchange
from joyedit.models.transfer import to_device
from joyedit.runtime.joyimage.branches import BranchCounts, Conditioning, ExactSteps, Predictor
from joyedit.runtime.joyimage.guidance import Guidance
from joyedit.runtime.joyimage.regions import BatchRegions, RegionSteps
from joyedit.runtime.joyimage.step_cache import CachedSteps

__all__ = ["ALONE", "Alone", "Conditioning", "Ranks", "denoise", "initial_noise"]


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part as the ranks that do not have it need to know it: who computes it, its shape and its dtype."""

    rank: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def stand_in(self) -> Tensor:
        """A tensor without values, of its shape and dtype."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


class Ranks(Protocol):
    """Ranks that encode and denoise the same batches together. All of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""

    @property
    def world(self) -> int:
        """How many there are."""

    @property
    def sequence(self) -> Exchange | None:
        """Those with the same branches, which share their tokens; None where this rank has whole sequences."""

    def everywhere(self, own: Mapping[int, Tensor], specs: Sequence[PartSpec]) -> list[Tensor]:
        """The parts of these specs, in order, each from the rank that has it; `own` are this one's, by number."""

    def own(self, branches: int) -> range:
        """Which of a batch's branches this rank computes: none, where there are too few."""

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        """Velocities of the rank's own branches, (own, C, h, w) -> those of all of them in order."""


class Alone:
    """One rank that computes everything."""

    rank, world = 0, 1
    sequence = None

    def everywhere(self, own: Mapping[int, Tensor], specs: Sequence[PartSpec]) -> list[Tensor]:
        """They are there."""
        return [own[number] for number in range(len(specs))]

    def own(self, branches: int) -> range:
        """All of them."""
        return range(branches)

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        """They are there."""
        return velocity


ALONE = Alone()


def initial_noise(seed: int, channels: int, height: int, width: int) -> Tensor:
    """An item's own noise: (1, C, h, w) fp32, drawn on the CPU so that every device gets the same."""
    generator = torch.Generator("cpu").manual_seed(seed)
    # Drawn in the published shape, with its frame axis; a generator's numbers depend on nothing else.
    return torch.randn((1, channels, 1, height, width), generator=generator)[:, :, 0]


def denoise(
    dit: DiT,
    given: Conditioning,
    sigmas: Tensor,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    ranks: Ranks = ALONE,
    *,
    speed: Speed = EXACT,
    work: list[BlockSteps] | None = None,
) -> Tensor:
    """Latents (B, C, h, w), fp32 and normalised, after all steps of `sigmas` (steps + 1,).

    With `ranks`, all of them are given the same. `speed` says what is left out; where that is something, `work` gets
    the counts of each item.
    """
    device = given.noise.device
    branches = len(given.branch_items)
    own = list(ranks.own(branches))
    levels = sigmas[:-1].tolist()
    mods = dit.modulations(to_device(sigmas[:-1] * TRAIN_TIMESTEPS, device))  # (steps, L, 2, 6, M)
    regions = BatchRegions.of(speed.regions, given, dit.cfg.patch, levels)
    predict = _predictor(dit, given, own, mods, ranks, speed=speed, levels=levels, regions=regions)
    index = to_device(torch.tensor(given.guided, dtype=torch.long), device)
    scale = to_device(torch.tensor(given.scales), device)[index].view(-1, 1, 1, 1)
    guidance = Guidance(index, scale, levels, speed.guidance, () if regions is None else regions.deciding)
    latent = given.noise.float()
    steps, items = len(levels), len(latent)
    for step in range(steps):
        wanted = branches if guidance.needs_both(step) else items
        count = sum(branch < wanted for branch in own)
        found = predict(step, latent, count)
        missing = latent.new_empty((len(own) - count, *latent.shape[1:]), dtype=dit.dtype)
        velocity = ranks.all_branches(torch.cat([*found, missing]), branches).float()
        guided = guidance(step, velocity[:items], velocity[items:])
        if regions is not None:
            guided = regions.follow(step, latent, guided)
        latent = euler_step(latent, guided, sigmas[step], sigmas[step + 1])
        on_step(step + 1, steps)
    if work is not None:
        work[:] = [] if speed.is_exact else _work(predict, given, ranks, steps, len(dit.double_blocks))
    return latent


def _predictor(
    dit: DiT,
    given: Conditioning,
    own: Sequence[int],
    mods: Tensor,
    ranks: Ranks,
    *,
    speed: Speed,
    levels: Sequence[float],
    regions: BatchRegions | None,
) -> Predictor:
    assert regions is None or isinstance(ranks, Alone), "a request with regions and several ranks is refused"
    if speed.reuse is not None:
        return CachedSteps(dit, given, own, mods, ranks.sequence, reuse=speed.reuse, sigmas=levels, regions=regions)
    if regions is not None:
        return RegionSteps(dit, given, own, mods, regions)
    return ExactSteps(dit, given, own, mods, ranks.sequence)


def _work(predict: Predictor, given: Conditioning, ranks: Ranks, steps: int, blocks: int) -> list[BlockSteps]:
    """What ran for each item: that of its branches together, whichever rank computed them."""
    counts = predict.counts()
    if not isinstance(ranks, Alone):
        own = torch.tensor(counts, dtype=torch.float32, device=given.noise.device).view(-1, len(BranchCounts._fields))
        found = ranks.all_branches(own, len(given.branch_items)).tolist()
        counts = [BranchCounts(*map(int, one)) for one in found]
    totals = [BlockSteps(0, 0, 0)] * len(given.positive)
    for item, one in zip(given.branch_items, counts, strict=True):
        ran = BlockSteps.of(blocks, steps, one.computed, one.reused)
        totals[item] = BlockSteps.total((totals[item], ran._replace(tokens=one.tokens, left_out=one.left_out)))
    return totals
