"""Regions in the denoising loop: which tokens of the target run, and the way of those that do not.

A decision looks at one item alone: at the picture that its own guided velocity heads for, and at its own reference. So
it does not depend on the company, and both branches of an item run the same tokens.

Legend: B items, C latent channels, h and w latent pixels, K running tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.job.speed.regions import MARGIN, Regions
from joyedit.models.dit import BlockPass, DiT
from joyedit.models.region_blocks import KeptKeys
from joyedit.runtime.joyimage.branches import BranchCounts, Conditioning, Forward

SURE = 2.0
"""A patch that differs by so many levels is edited, however little its neighbours differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Region:
    """What one decision says of an item: `places` (K,) int64 are tokens of the target that run. The pixels that do not,
    True in `unedited` (h, w), take the velocity `line` (C, h, w) fp32.
    """

    places: Tensor
    unedited: Tensor
    line: Tensor


class BatchRegions:
    """The regions of a batch's items. `whole` steps run all tokens; in the others `places` of an item do."""

    def __init__(self, regions: Regions, given: Conditioning, patch: tuple[int, int], sigmas: Sequence[float]) -> None:
        """`patch`: rows and columns of latent pixels of a token. `sigmas`: noise levels of all steps."""
        self._regions = regions
        self._references = given.references[0]
        self._patch = patch
        self._sigmas = sigmas
        self._found: list[_Region | None] = [None] * len(given.noise)

    @classmethod
    def of(
        cls, regions: Regions | None, given: Conditioning, patch: tuple[int, int], sigmas: Sequence[float]
    ) -> BatchRegions | None:
        """None where nothing can be left out: no regions, or no single reference of the target's size."""
        if regions is None or [one.shape for one in given.references] != [given.noise.shape]:
            return None
        return cls(regions, given, patch, sigmas)

    @property
    def deciding(self) -> frozenset[int]:
        """The steps that decide. They run all tokens of all branches."""
        steps = len(self._sigmas)
        return frozenset(step for step in range(steps) if self._regions.decides(step, steps))

    def decides(self, step: int) -> bool:
        """Whether this step is one of them."""
        return self._regions.decides(step, len(self._sigmas))

    def places(self, step: int, item: int) -> Tensor | None:
        """The tokens of an item that run in this step, (K,) int64; None where all do."""
        found = self._found[item]
        return None if found is None or self.decides(step) else found.places

    def follow(self, step: int, latent: Tensor, velocity: Tensor) -> Tensor:
        """Velocities to follow, (B, C, h, w) fp32, given the guided ones. A step that decides does so here."""
        if self.decides(step):
            pairs = zip(latent, velocity, self._references, strict=True)
            self._found = [self._decide(*pair, self._sigmas[step]) for pair in pairs]
        found = self._found
        if not any(found):
            return velocity
        return torch.stack(
            [
                one if region is None else torch.where(region.unedited, region.line, one)
                for one, region in zip(velocity, found, strict=True)
            ]
        )

    def _decide(self, latent: Tensor, velocity: Tensor, reference: Tensor, sigma: float) -> _Region | None:
        """What of an item is edited; None where all of it is. The host waits for the device here."""
        reference = reference.float()
        ahead = latent - sigma * velocity  # the clean latent, if the velocity stayed as it is
        change = F.avg_pool2d((ahead - reference).abs().mean(dim=0)[None], self._patch)  # (1, rows, columns)
        edited = self._edited(change)
        places = edited.flatten().nonzero().flatten()
        if len(places) == edited.numel():
            return None
        pixels = edited[0].repeat_interleave(self._patch[0], 0).repeat_interleave(self._patch[1], 1)
        return _Region(places=places, unedited=pixels == 0, line=(latent - reference) / sigma)

    def _edited(self, change: Tensor) -> Tensor:
        """1.0 where a patch is edited, else 0.0, given how far each is from the reference: (1, rows, columns) each."""
        level, forced = self._regions.level, self._regions.forced
        if forced is not None:
            places = torch.arange(change.numel(), device=change.device)
            return (places < math.ceil(forced * change.numel())).to(change.dtype).view_as(change)
        around = F.avg_pool2d(change, 3, stride=1, padding=1, count_include_pad=False)
        edited = ((around >= level) | (change >= SURE * level)).float()
        return F.max_pool2d(edited, 2 * MARGIN + 1, stride=1, padding=MARGIN)


class BranchRegions:
    """What one branch of the batch runs, and how many tokens that were: `tokens` and `left_out`, a block each time."""

    def __init__(self, regions: BatchRegions | None, item: int, tokens: int) -> None:
        """`item`: that of the branch. `tokens`: of its whole sequence."""
        self._regions = regions
        self._item = item
        self._all = tokens
        self._kept = KeptKeys()
        self.tokens = self.left_out = 0

    def places(self, step: int) -> Tensor | None:
        """The tokens of the target that run, (K,); None where all do."""
        return None if self._regions is None else self._regions.places(step, self._item)

    def decides(self, step: int) -> bool:
        """Whether this step computes everything."""
        return self._regions is not None and self._regions.decides(step)

    def begin(self, dit: DiT, forward: Forward, latent: Tensor, mods: Tensor, step: int) -> BlockPass | None:
        """The branch up to the first block, with what of it runs; None where nothing does."""
        places = self.places(step)
        if places is None:
            return forward.begin(dit, latent, mods, self._kept if self.decides(step) else None)
        if not len(places):
            return None
        return dit.begin_region([latent[forward.items], *forward.references], mods, self._kept, places)

    def count(self, step: int, blocks: int) -> None:
        """So many blocks ran in this step."""
        if self._regions is not None:
            places = self.places(step)
            ran = self._all if places is None else len(places)
            self.tokens += blocks * ran
            self.left_out += blocks * (self._all - ran)


def regions_of_branches(
    regions: BatchRegions | None, dit: DiT, given: Conditioning, own: Sequence[int]
) -> list[BranchRegions]:
    """One for each of a rank's own branches."""
    images = sum(rows * columns for rows, columns in (dit.grid(one) for one in (given.noise, *given.references)))
    items, features = given.branch_items, given.branch_features
    return [BranchRegions(regions, items[branch], images + len(features[branch])) for branch in own]


class RegionSteps:
    """Predicts velocities of the tokens that run: a `Predictor`. `mods`: (steps, L, 2, 6, M), of `DiT.modulations`.

    The branches go through the blocks one by one, each block for all of them: their sequences differ in length.
    """

    def __init__(self, dit: DiT, given: Conditioning, own: Sequence[int], mods: Tensor, regions: BatchRegions) -> None:
        """`own`: numbers of the rank's own branches within the batch."""
        self._dit = dit
        self._mods = mods
        self._forwards = [Forward.of(dit, given, [branch], None) for branch in own]
        self._regions = regions_of_branches(regions, dit, given, own)
        self._computed = [0] * len(self._forwards)

    def __call__(self, step: int, latent: Tensor, count: int) -> list[Tensor]:
        dit, mods = self._dit, self._mods[step : step + 1]
        blocks = len(dit.double_blocks)
        passes = []
        for place in range(count):
            passes.append(self._regions[place].begin(dit, self._forwards[place], latent, mods, step))
            self._regions[place].count(step, blocks)
            self._computed[place] += 1
        dit.run_blocks([one for one in passes if one is not None], range(blocks))
        nothing = latent.new_zeros((1, *latent.shape[1:]), dtype=dit.dtype)
        return [nothing if one is None else dit.velocity(one, one.target_tokens) for one in passes]

    def counts(self) -> list[BranchCounts]:
        return [
            BranchCounts(computed, 0, region.tokens, region.left_out)
            for computed, region in zip(self._computed, self._regions, strict=True)
        ]
