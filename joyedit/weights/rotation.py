"""Weights that were rotated before they were quantised (ConvRot), turned back.

Groups of input channels were multiplied by a regular Hadamard matrix, which spreads single large values over the group.
The matrix is symmetric and orthogonal, so the same product turns a group back.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

SMALLEST, LARGEST = 4, 4**6
"""Sides of such a matrix: powers of 4."""
_FOUR = ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1))


def is_size(number: object) -> bool:
    """Whether there is such a matrix with sides of this length."""
    return type(number) is int and SMALLEST <= number <= LARGEST and number in {4**power for power in range(1, 7)}


@functools.lru_cache(maxsize=4)
def regular_hadamard(size: int, device: torch.device) -> Tensor:
    """The matrix of order 4, multiplied with itself (Kronecker) up to this size, with rows of length 1: fp32."""
    four = torch.tensor(_FOUR, dtype=torch.float32)
    found = four
    while len(found) < size:
        found = torch.kron(found, four)
    unit: Tensor = found / size**0.5
    return unit.to(device)


def turned_back(weight: Tensor, size: int) -> Tensor:
    """A rotated weight (N, K), fp32, whose groups have `size` input channels, as it was: (N, K)."""
    groups = weight.unflatten(1, (-1, size))
    found: Tensor = (groups @ regular_hadamard(size, weight.device)).flatten(1)
    return found
