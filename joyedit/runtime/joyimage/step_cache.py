"""Step reuse: steps that change little take what the blocks behind the first added in earlier steps.

In each step the first block runs for every branch. How much its residual on the target's tokens has changed since the
last computed step decides, for each branch by itself, whether the other blocks run too. A branch that does not need
them takes their residual as it was, or as a polynomial through the last computed ones predicts it. The branches go
through the blocks one by one, each block for all that need it: so neither a decision nor a number depends on the
company, and weights that pass through the device pass once a step, or not at all.

Legend: B items, S image tokens, M hidden channels, C latent channels, h and w latent pixels, L blocks, R ranks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from joyedit.job.speed.settings import FIRST_BLOCKS, StepReuse
from joyedit.models.dit import BlockPass, DiT
from joyedit.models.shared_sequences import Exchange
from joyedit.runtime.joyimage.branches import BranchCounts, Conditioning, Forward
from joyedit.runtime.joyimage.regions import BatchRegions, BranchRegions, regions_of_branches


class BranchCache:
    """What one branch keeps of its computed steps. Residuals are (1, target, M), in the DiT's dtype."""

    def __init__(self, reuse: StepReuse) -> None:
        self._most = reuse.most
        self._first: Tensor | None = None
        self._rest: deque[tuple[float, Tensor]] = deque(maxlen=reuse.order + 1)
        self._in_a_row = 0
        self._is_part = False
        self.computed = 0
        self.reused = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is something to reuse, and no more steps in a row were reused than may be."""
        return self._first is not None and self._in_a_row < self._most

    def of_tokens(self, places: Tensor | None) -> None:
        """From now on, residuals are those of the target's tokens at `places` (K,), or of all with None.

        What is known of all tokens is known of some; of what has not run nothing is known.
        """
        if places is None and self._is_part:
            self._first = None
            self._rest.clear()
            self._in_a_row = 0
        elif places is not None and not self._is_part:
            self._first = None if self._first is None else self._first.index_select(1, places)
            known = [(sigma, rest.index_select(1, places)) for sigma, rest in self._rest]
            self._rest.clear()
            self._rest.extend(known)
        self._is_part = places is not None

    def change(self, first: Tensor) -> Tensor:
        """How far the first block's residual is from the last computed step's, and how large that was: (2,) fp32.

        These are sums of absolute values over this branch's own tokens.
        """
        assert self._first is not None
        known = self._first.float()
        return torch.stack([(first.float() - known).abs().sum(), known.abs().sum()])

    def keep(self, sigma: float, first: Tensor, rest: Tensor) -> None:
        """A computed step: residuals of the first block, and of all others together, at this noise level."""
        self._first = first
        self._rest.append((sigma, rest))
        self._in_a_row = 0
        self.computed += 1

    def predict(self, sigma: float) -> Tensor:
        """The residual of all other blocks at this noise level, (1, target, M) fp32: a reused step."""
        self._in_a_row += 1
        self.reused += 1
        weights = lagrange([at for at, _ in self._rest], sigma)
        total = self._rest[0][1].float() * weights[0]
        for weight, (_, rest) in zip(weights[1:], list(self._rest)[1:], strict=True):
            total.add_(rest, alpha=weight)
        return total


def lagrange(known: Sequence[float], at: float) -> list[float]:
    """The weights with which values at `known` places make the value at `at` of the polynomial through them."""
    weights = []
    for number, place in enumerate(known):
        weight = 1.0
        for other in (*known[:number], *known[number + 1 :]):
            weight *= (at - other) / (place - other)
        weights.append(weight)
    return weights


class _Branch(NamedTuple):
    """One of a rank's own branches."""

    forward: Forward
    cache: BranchCache
    region: BranchRegions


class CachedSteps:
    """Predicts velocities with step reuse: a `Predictor`. `mods`: (steps, L, 2, 6, M), of `DiT.modulations`."""

    def __init__(
        self,
        dit: DiT,
        given: Conditioning,
        own: Sequence[int],
        mods: Tensor,
        exchange: Exchange | None,
        *,
        reuse: StepReuse,
        sigmas: Sequence[float],
        regions: BatchRegions | None = None,
    ) -> None:
        """`own`: numbers of the rank's own branches. `sigmas`: noise levels of all steps. With `regions`, without an
        exchange, only some tokens run.
        """
        self._dit = dit
        self._reuse = reuse
        self._mods = mods
        self._sigmas = sigmas
        self._exchange = exchange
        self._branches = [
            _Branch(Forward.of(dit, given, [branch], exchange), BranchCache(reuse), region)
            for branch, region in zip(own, regions_of_branches(regions, dit, given, own), strict=True)
        ]

    def __call__(self, step: int, latent: Tensor, count: int) -> list[Tensor]:
        dit, mods = self._dit, self._mods[step : step + 1]
        found = [latent.new_zeros((1, *latent.shape[1:]), dtype=dit.dtype)] * count
        running, passes = [], []
        for place in range(count):
            branch = self._branches[place]
            branch.cache.of_tokens(branch.region.places(step))
            one = branch.region.begin(dit, branch.forward, latent, mods, step)
            if one is None:  # no token of it runs
                branch.cache.computed += 1
                branch.region.count(step, len(dit.double_blocks))
            else:
                running.append(place)
                passes.append(one)
        for place, velocity in zip(running, self._run(step, passes, running), strict=True):
            found[place] = velocity
        return found

    def _run(self, step: int, passes: list[BlockPass], places: Sequence[int]) -> list[Tensor]:
        """Velocities of those of the own branches that run, at these places: `passes` are before the first block."""
        dit, sigma, blocks = self._dit, self._sigmas[step], len(self._dit.double_blocks)
        branches = [self._branches[place] for place in places]
        before = [one.target_tokens for one in passes]
        dit.run_blocks(passes, range(FIRST_BLOCKS))
        behind = [one.target_tokens for one in passes]
        first = [after - earlier for after, earlier in zip(behind, before, strict=True)]
        del before
        reused = self._decide(step, branches, first)
        needing = [one for one, is_reused in zip(passes, reused, strict=True) if not is_reused]
        dit.run_blocks(needing, range(FIRST_BLOCKS, blocks))
        found = []
        for number, (one, branch) in enumerate(zip(passes, branches, strict=True)):
            branch.region.count(step, FIRST_BLOCKS if reused[number] else blocks)
            if reused[number]:
                tokens = (behind[number] + branch.cache.predict(sigma)).to(dit.dtype)
            else:
                tokens = one.target_tokens
                branch.cache.keep(sigma, first[number], tokens - behind[number])
            found.append(dit.velocity(one, tokens))
        return found

    def counts(self) -> list[BranchCounts]:
        return [
            BranchCounts(one.cache.computed, one.cache.reused, one.region.tokens, one.region.left_out)
            for one in self._branches
        ]

    def _decide(self, step: int, branches: Sequence[_Branch], first: Sequence[Tensor]) -> list[bool]:
        """Which of the branches reuse this step. The host waits for the device here, once a step."""
        reused = [False] * len(branches)
        if not self._reuse.may_reuse(step, len(self._sigmas)):
            return reused
        asked = [
            place for place, one in enumerate(branches) if one.cache.is_ready and not one.region.decides(step)
        ]  # fmt: skip
        if not asked:
            return reused
        sums = torch.stack([branches[place].cache.change(first[place]) for place in asked])  # (asked, 2)
        if self._exchange is not None:
            sums = _over_ranks(self._exchange, sums)
        forced = self._reuse.is_forced(step)
        for place, (change, size) in zip(asked, sums.tolist(), strict=True):
            # What is not a number reuses nothing.
            reused[place] = change < self._reuse.threshold * size if forced is None else forced
        return reused


def _over_ranks(exchange: Exchange, sums: Tensor) -> Tensor:
    """The sums over the tokens of all ranks of a sequence, added in the same order in each: so all decide the same."""
    sizes = [sums.numel()] * exchange.size
    arrived = exchange.all_to_all(sums.reshape(-1).repeat(exchange.size), sizes, sizes).wait()
    total: Tensor = arrived.view(exchange.size, *sums.shape).sum(dim=0)
    return total
