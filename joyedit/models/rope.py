"""Rotary positions of the image tokens: axes (time, height, width), adjacent channels form the pairs.

Legend: S image tokens, D channels a head. Text tokens are not rotated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TokenGrid = tuple[int, int]
"""(rows, columns) of tokens of one item."""


def rope_table(
    grids: Sequence[TokenGrid], dims: Sequence[int], theta: float, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every image token's angles.

    `grids` lists the items in sequence order: the target first, then the references. The time
    position of an item is its index; rows and columns start at 0 in every item.
    Returns two fp32 tensors of shape (S, D / 2), S the tokens of all items.
    """
    frequencies = [1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)) for dim in dims]
    angles = []
    for index, (rows, columns) in enumerate(grids):
        axes = torch.meshgrid(
            torch.full((1,), float(index), device=device),
            torch.arange(rows, dtype=torch.float32, device=device),
            torch.arange(columns, dtype=torch.float32, device=device),
            indexing="ij",
        )
        parts = [torch.outer(axis.reshape(-1), freq) for axis, freq in zip(axes, frequencies, strict=True)]
        angles.append(torch.cat(parts, dim=1))  # (rows * columns, D / 2)
    table = torch.cat(angles)
    return table.cos(), table.sin()


def _has_complex(device: torch.device) -> bool:
    """Whether torch has the operations on complex numbers there that are used here."""
    return device.type != "mps"


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `x` (B, S, H, D) by the table (S, D / 2); computed in fp32, returned in x's dtype."""
    pairs = x.float().unflatten(-1, (-1, 2))  # (B, S, H, D/2, 2)
    cos, sin = cos[:, None, :], sin[:, None, :]
    # The compiler fuses this form, and has none for complex numbers. Apple GPUs have few operations for them.
    if torch.compiler.is_compiling() or not _has_complex(x.device):
        real, imag = pairs[..., 0], pairs[..., 1]
        rotated = torch.stack((real * cos - imag * sin, imag * cos + real * sin), dim=-1)
    else:  # one kernel: a pair is a complex number, the rotation a product
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return rotated.flatten(-2).type_as(x)


def rotate_into(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """`apply_rope` of `x` (S, H, D), written into `out`, which has its shape and dtype."""
    if not _has_complex(x.device):
        out.copy_(apply_rope(x[None], cos, sin)[0])
        return
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    table = torch.complex(cos, sin)[:, None, :]
    if out.dtype == torch.float32:
        torch.mul(pairs, table, out=torch.view_as_complex(out.unflatten(-1, (-1, 2))))
    else:
        out.copy_(torch.view_as_real(pairs * table).flatten(-2))
