"""What a run leaves out of its denoising steps: the settings in force, and the counts of what was left out.

Three savings, each by itself or together. *Step reuse*: in a step that changes little, the blocks behind the first are
not computed; what they added in earlier steps takes their place. *Guidance reuse*: the branch without the instruction
is not computed in each step; its difference to the other branch is kept meanwhile. *Regions*, in a file of their own:
what of a picture is like its reference runs no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from joyedit.job.speed.regions import Regions

FIRST_BLOCKS = 1
"""Blocks that every step computes. Their change since the last computed step decides about the others."""
FIRST_SHARE, LAST_SHARE = 0.1, 0.05
"""Of all steps, so many at the beginning and at the end are always computed: at least two, and one."""
FEW_STEPS = 20
"""Up to so many steps are few."""
MOST_IN_A_ROW = 4
"""After so many reused steps one is computed, whatever its change."""


def first_steps(steps: int) -> int:
    """How many steps at the beginning are computed as a whole."""
    return max(2, math.ceil(FIRST_SHARE * steps))


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReuse:
    """When a step is reused, and what stands for it.

    `threshold`: the relative change of the first block's residual below which a step is reused; 0 reuses none.
    `order`: how the residual of the other blocks is predicted from computed steps: 0 keeps the last one, 1 draws a line
    through the last two, 2 a parabola through the last three. `most` reused steps follow each other. `forced` is for
    measurements on random weights, whose changes mean nothing: this share of the steps that may be reused is
    computed, evenly spread, whatever the change.
    """

    threshold: float
    order: int = 1
    most: int = MOST_IN_A_ROW
    forced: float | None = None

    def may_reuse(self, step: int, steps: int) -> bool:
        """Whether a step, counted from 0, lies between those that are always computed."""
        return first_steps(steps) <= step < steps - max(1, math.ceil(LAST_SHARE * steps))

    def is_forced(self, step: int) -> bool | None:
        """Whether `forced` reuses this step; None where the change decides."""
        if self.forced is None:
            return None
        return math.floor((step + 1) * self.forced) == math.floor(step * self.forced)

    @property
    def text(self) -> str:
        """For people."""
        ways = {0: "kept", 1: "predicted by a line", 2: "predicted by a parabola"}
        return f"steps that change by less than {self.threshold:g} are {ways[self.order]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceReuse:
    """In which steps the branch without the instruction is computed.

    The first steps do, and behind them every `every`-th one if its noise level lies from `low` to `high`. In the others
    the difference of the branches stays as it was.
    """

    every: int = 1
    low: float = 0.0
    high: float = 1.0

    def computes(self, step: int, sigmas: Sequence[float]) -> bool:
        """Whether a step, counted from 0, computes both branches. `sigmas`: noise levels of all steps."""
        behind = step + 1 - first_steps(len(sigmas))
        return behind <= 0 or (behind % self.every == 0 and self.low <= sigmas[step] <= self.high)

    @property
    def text(self) -> str:
        """For people."""
        told = ["the branch without the instruction is computed"]
        told += [f"every {self.every} steps"] if self.every > 1 else []
        if (self.low, self.high) != (0.0, 1.0):
            told.append(f"at noise levels from {self.low:g} to {self.high:g}")
        return " ".join(told)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """What is left out; nothing where all parts are None.

    `few` takes the place of `reuse` for items with `FEW_STEPS` or fewer, which change more from step to step.
    """

    reuse: StepReuse | None = None
    guidance: GuidanceReuse | None = None
    regions: Regions | None = None
    few: StepReuse | None = None

    def at(self, steps: int) -> Speed:
        """What is left out of an item with so many steps; `few` is None there."""
        if self.few is None:
            return self
        return replace(self, reuse=self.few if steps <= FEW_STEPS else self.reuse, few=None)

    @property
    def is_exact(self) -> bool:
        """Whether everything is computed."""
        return self.reuse is None and self.guidance is None and self.regions is None

    def as_record(self) -> dict[str, Any]:
        """For the settings of a record, of what `at` gives; empty where everything is computed."""
        told: dict[str, Any] = {}
        if self.reuse is not None:
            told["reuse"] = {name: getattr(self.reuse, name) for name in ("threshold", "order", "most")}
        if self.guidance is not None:
            told["guidance_reuse"] = {"every": self.guidance.every, "levels": [self.guidance.low, self.guidance.high]}
        if self.regions is not None:
            told["regions"] = self.regions.as_record()
        return told

    def in_words(self) -> str:
        """For people; empty where everything is computed."""
        parts = [part.text for part in (self.reuse, self.guidance, self.regions) if part is not None]
        if self.few is not None:
            parts.insert(1, f"of items with {FEW_STEPS} steps or fewer, {self.few.text}")
        return "; ".join(parts)


EXACT = Speed()
"""Everything is computed."""


PARTS = frozenset(("reuse", "guidance_reuse"))
"""The keys of `Speed.as_record`."""


class BlockSteps(NamedTuple):
    """How many times a block of the DiT ran for an item, over all steps and both branches, and how often it did not.

    `reused` were left out by step reuse, `unguided` by guidance reuse. Where regions are on, `tokens` went through the
    blocks that ran, counted for each block, and `left_out` did not.
    """

    computed: int
    reused: int
    unguided: int
    tokens: int = 0
    left_out: int = 0

    @property
    def all(self) -> int:
        """What an exact run computes, in blocks."""
        return self.computed + self.reused + self.unguided

    @property
    def share_of_tokens(self) -> float:
        """Of the tokens of the blocks that ran, the share that went through them, from 0 to 1."""
        return self.tokens / (self.tokens + self.left_out) if self.left_out else 1.0

    @classmethod
    def of(cls, blocks: int, steps: int, whole: int, reused: int) -> BlockSteps:
        """Of one branch: so many `steps` in all, of which `whole` were computed and `reused` were reused."""
        return cls(
            computed=whole * blocks + reused * FIRST_BLOCKS,
            reused=reused * (blocks - FIRST_BLOCKS),
            unguided=(steps - whole - reused) * blocks,
        )

    @classmethod
    def total(cls, counts: Iterable[BlockSteps]) -> BlockSteps:
        """All of them together."""
        return cls(*map(sum, zip((0,) * len(cls._fields), *counts, strict=True)))

    def as_record(self) -> dict[str, Any]:
        """For a record or a report: the share that ran, and the counts."""
        share = round(self.computed / self.all, 4) if self.all else 1.0
        told = {"share": share, "block_steps": self.computed, "reused": self.reused, "unguided": self.unguided}
        if self.tokens or self.left_out:
            tokens = round(self.share_of_tokens, 4)
            told |= {"tokens": self.tokens, "tokens_left_out": self.left_out, "share_of_tokens": tokens}
        return told
