"""Regions: which parts of a picture take all steps, as settings and as counts. The idea is RegionE's.

The first steps compute the whole picture. Then the picture that the model heads for is compared with the reference,
patch by patch. What is like it is unedited: it goes in a straight line to the reference, and its tokens run no more.
Some steps compute the whole picture again, and decide anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

FIRST_SHARE = 0.25
"""Of all steps, so many at the beginning compute the whole picture; at least two. The last of them decides first."""
EVERY_SHARE = 0.2
"""Of all steps, so many lie between two that decide; at least three."""
MARGIN = 1
"""So many patches around an edited one are computed too."""
AUTO_LEVEL = 0.25
"""The level of `auto`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """When a patch counts as unedited.

    `level`: the largest mean difference between the predicted latent and the reference's, in standard deviations of
    the VAE's latents; 0 leaves nothing out. `forced` is for measurements on random weights, whose pictures are like
    nothing: this share of the target's tokens runs, the first ones, whatever the difference.
    """

    level: float
    forced: float | None = None

    def decides(self, step: int, steps: int) -> bool:
        """Whether a step, counted from 0, computes the whole picture and decides what of it runs in the next ones."""
        first, every = max(2, math.ceil(FIRST_SHARE * steps)), max(3, round(EVERY_SHARE * steps))
        return step >= first - 1 and (step - first + 1) % every == 0 and step + 2 < steps

    def begins(self, steps: int) -> int:
        """The first step that may leave something out."""
        return next((step + 1 for step in range(steps) if self.decides(step, steps)), steps)

    def as_record(self) -> dict[str, Any]:
        """For the settings of a record, and for fingerprints: all that a picture depends on."""
        return {"level": self.level, "first": FIRST_SHARE, "every": EVERY_SHARE, "margin": MARGIN}

    @property
    def text(self) -> str:
        """For people."""
        return f"patches within {self.level:g} of the reference are left out after {FIRST_SHARE:.0%} of the steps"
