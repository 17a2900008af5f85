"""Guidance in the denoising loop: in which steps both branches are computed, and what stands for the other one.

Legend: B items, G guided items, C latent channels, h and w latent pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from joyedit.job.speed.settings import GuidanceReuse
from joyedit.models.schedule import guide, guide_along


class Guidance:
    """Guides the items of one batch. With `reuse`, some steps take the difference of the branches from an earlier one.

    Which steps these are depends on nothing but the number of the step and its noise level, so all items agree.
    """

    def __init__(
        self,
        index: Tensor,
        scale: Tensor,
        sigmas: Sequence[float],
        reuse: GuidanceReuse | None,
        always: Collection[int] = (),
    ) -> None:
        """`index`: places of the G guided items. `scale`: theirs, (G, 1, 1, 1). `sigmas`: noise levels of all steps.
        `always`: steps that compute both branches, whatever `reuse` says.
        """
        self._index = index
        self._scale = scale
        self._sigmas = sigmas
        self._reuse = reuse
        self._always = always
        self._difference: Tensor | None = None

    def needs_both(self, step: int) -> bool:
        """Whether the branches without the instruction are computed in this step."""
        return self._reuse is None or step in self._always or self._reuse.computes(step, self._sigmas)

    def __call__(self, step: int, cond: Tensor, uncond: Tensor) -> Tensor:
        """Velocities to follow, (B, C, h, w) fp32. `uncond`, (G, C, h, w), is not read where the step needs no both."""
        if not len(self._index):
            return cond
        own = cond[self._index]
        if not self.needs_both(step):
            assert self._difference is not None, "the first steps compute both"
            return cond.index_copy(0, self._index, guide_along(own, self._difference, self._scale))
        if self._reuse is not None:
            self._difference = own - uncond
        return cond.index_copy(0, self._index, guide(own, uncond, self._scale))
