"""Rows of 8 bits with scales: E4M3 floats (fp8), or integers (int8).

Each row has a scale of its own, and a value times its row's scale is what it stands for. The rows of activations are
tokens, those of weights are output channels.

Legend: R rows (tokens), K input channels, N output channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
INT8 = torch.int8
MOST = {FP8: 448.0, INT8: 127.0}
"""The largest value of each dtype."""
LEAST = 1e-12
"""A row whose values are all smaller, an empty token's say, is scaled as if this were its largest: no division by 0."""
ROWS = 2048
"""Rows of a weight that are quantised at a time: what they take in fp32 stays small."""


class Quantised(NamedTuple):
    """Rows of 8 bits: `values` (..., K), and `scales` (..., 1) in fp32."""

    values: Tensor
    scales: Tensor

    def first(self, count: int) -> Quantised:
        """Of (B, S, K), the first `count` tokens of each sample."""
        return Quantised(self.values[:, :count], self.scales[:, :count])

    def rows(self) -> Quantised:
        """All rows in one dimension: (R, K) and (R, 1)."""
        return Quantised(self.values.flatten(0, -2), self.scales.flatten(0, -2))

    def parts(self, lengths: Sequence[int]) -> list[Quantised]:
        """Of (R, K), consecutive rows of these numbers."""
        pairs = zip(self.values.split(list(lengths)), self.scales.split(list(lengths)), strict=True)
        return [Quantised(*pair) for pair in pairs]

    def samples(self) -> list[Quantised]:
        """Of (B, S, K), each sample's (S, K)."""
        return [Quantised(*pair) for pair in zip(self.values.unbind(0), self.scales.unbind(0), strict=True)]

    def wide(self) -> Tensor:
        """What it stands for, in fp32."""
        return self.values.float() * self.scales


Rows = Tensor | Quantised
"""Activations (..., K) as a linear layer takes them."""


def quantise(x: Tensor, dtype: torch.dtype) -> Quantised:
    """Each row of (..., K), of any floating-point dtype, by its own largest value. NaN and infinity become NaN."""
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True).clamp(min=LEAST)
    most = MOST[dtype]
    scaled = wide * (most / largest)
    return Quantised((scaled.round() if dtype == INT8 else scaled).to(dtype), largest / most)


def quantised_weight(weight: Tensor, dtype: torch.dtype) -> Quantised:
    """A weight (N, K) of any floating-point dtype, each output channel by its own largest value."""
    values = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    scales = torch.empty(len(weight), 1, device=weight.device)
    for begin in range(0, len(weight), ROWS):
        part = slice(begin, begin + ROWS)
        values[part], scales[part] = quantise(weight[part], dtype)
    return Quantised(values, scales)
