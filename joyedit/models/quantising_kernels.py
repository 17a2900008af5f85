"""Triton kernels that quantise rows: attention outputs, and the MLP's hidden channels behind their GELU.

One program has a whole row, as the row's largest value decides its scale. Another kernel gives sums of integers their
scales. They are for CUDA and for inference.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from joyedit.models.quantised_rows import LEAST, MOST, Quantised

_LEAST = tl.constexpr(LEAST)
_TO_WHOLE = tl.constexpr(12582912.0)
"""1.5 * 2 ** 23: added and taken away again it rounds fp32 to whole numbers, ties to even."""


@triton.jit
def store_quantised(x, out_ptrs, scale_ptr, inside, MOST: tl.constexpr):
    """Quantise a row, fp32, zero outside; as `quantised.quantise` does."""
    largest = tl.maximum(tl.max(tl.abs(x)), _LEAST)
    scaled = x * tl.div_rn(MOST, largest)
    if MOST == 127.0:
        scaled = (scaled + _TO_WHOLE) - _TO_WHOLE
    largest += tl.sum(x * 0.0)  # NaN for a row with NaN or infinity: a maximum may pass them over
    tl.store(scale_ptr, tl.div_rn(largest, MOST))
    tl.store(out_ptrs, scaled.to(out_ptrs.dtype.element_ty), mask=inside)


@triton.jit
def _quantise(
    x_ptr, out_ptr, scale_ptr, columns, row_stride,
    GELU: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    x = tl.load(x_ptr + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    if GELU:  # 0.5 x (1 + tanh(u)) is x / (1 + exp(-2 u))
        u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        x = x / (1.0 + tl.exp(-2.0 * u))
    store_quantised(x, out_ptr + row * columns + column, scale_ptr + row, inside, MOST)


@triton.jit
def _give_scales(
    sum_ptr, row_scale_ptr, column_scale_ptr, bias_ptr, out_ptr, columns, out_stride,
    BIASED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    x = tl.load(sum_ptr + row * columns + column, mask=inside, other=0).to(tl.float32)
    x *= tl.load(row_scale_ptr + row) * tl.load(column_scale_ptr + column, mask=inside, other=0.0)
    if BIASED:
        x += tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * out_stride + column, x.to(out_ptr.dtype.element_ty), mask=inside)


def give_scales(sums: Tensor, rows: Tensor, columns: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """Sums of integers (R, N), contiguous, times a scale a row (R, 1) and one a column (N, 1), plus bias (N,).

    The result goes into `out` (R, N), whose rows may be apart in memory.
    """
    count, width = sums.shape
    block = min(2048, triton.next_power_of_2(width))
    _give_scales[(count, triton.cdiv(width, block))](
        sums, rows, columns, sums if bias is None else bias, out, width, out.stride(0),
        BIASED=bias is not None, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out


def quantise_rows(x: Tensor, dtype: torch.dtype, *, gelu: bool = False, out: Quantised | None = None) -> Quantised:
    """Rows of (R, K), or with `gelu` their GELU(tanh), quantised: `quantised.quantise` in one kernel.

    The rows may be apart in memory. `out`: contiguous memory for the result.
    """
    rows, columns = x.shape
    assert x.stride(1) == 1
    if out is None:
        values = torch.empty(x.shape, dtype=dtype, device=x.device)
        out = Quantised(values, torch.empty((rows, 1), dtype=torch.float32, device=x.device))
    if not rows:
        return out
    block = triton.next_power_of_2(columns)
    _quantise[(rows,)](
        x, out.values, out.scales, columns, x.stride(0),
        GELU=gelu, MOST=MOST[dtype], BLOCK=block, num_warps=max(1, min(16, block // 512)),
    )  # fmt: skip
    return out
