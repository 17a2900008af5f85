"""Low-rank changes of a linear layer's weight (LoRA): the weight that they make of it.

Legend: N outputs, K inputs, R rank. A LoRA of a layer is a matrix `down` (R, K), a matrix `up` (N, R) and a factor; it
changes the weight W (N, K) to W + factor * up @ down. Source: Hu et al., LoRA, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 2048
"""Rows that are changed at a time: what they take in fp32 stays small, and mostly in a GPU's cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank:
    """One LoRA of one layer: `down` (R, K), `up` (N, R), of any floating-point dtype, and the factor of their product.

    The factor is the scale that was asked for times alpha over rank.
    """

    down: Tensor
    up: Tensor
    factor: float

    @property
    def nbytes(self) -> int:
        """Bytes of both matrices."""
        return self.down.nbytes + self.up.nbytes


def merge(weight: Tensor, changes: Sequence[LowRank], out: Tensor) -> Tensor:
    """W and all its changes, summed in fp32 in their order and rounded once: (N, K) into `out`, which is returned.

    `out` may be `weight`. The result depends on the weight and the changes alone, not on when or where it is made.
    """
    device = weight.device
    parts = [(c.down.to(device).float(), c.up.to(device), c.factor) for c in changes]
    for begin in range(0, weight.shape[0], ROWS):
        rows = slice(begin, begin + ROWS)
        total = weight[rows].to(torch.float32, copy=True)
        for down, up, factor in parts:
            total.addmm_(up[rows].float(), down, alpha=factor)
        out[rows] = total
    return out
