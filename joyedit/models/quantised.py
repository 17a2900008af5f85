"""Linear layers whose weights and activations are rows of 8 bits: their products, and the module.

The product of a token depends on that token alone, as each has a scale of its own.

Legend: R rows (tokens), K input channels, N output channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.quantised_rows import INT8, Quantised, Rows, quantise, quantised_weight

FAST_SUMS = True
"""Sum products of fp8 in the tensor cores alone, which is faster than adding to fp32 now and then."""
FAST_ROWS = 128
"""Of fewer rows the sums go to fp32: cuBLAS has no fast kernel for few rows and many channels."""
FEWEST_ROWS = 17
"""torch's product of integers on CUDA takes no fewer rows."""


def product(x: Quantised, weight: Quantised, bias: Tensor | None, dtype: torch.dtype, out: Tensor | None) -> Tensor:
    """x (R, K) times the transpose of weight (N, K), plus bias (N,): (R, N) of `dtype`, in `out` if that is given.

    On CUDA they run on the tensor cores. Elsewhere they are emulated: the same values, multiplied in fp32.
    """
    if not len(x.values):
        return x.scales.new_empty((0, len(weight.values)), dtype=dtype) if out is None else out
    if not x.values.is_cuda:
        return _to(out, _scaled(torch.mm(x.values.float(), weight.values.float().t()), x, weight, bias, dtype))
    if x.values.dtype == INT8:
        return _integers(x, weight, bias, dtype, out)
    if dtype != torch.bfloat16:  # the only dtype that torch gives where each row has a scale
        plain = _float8(x, weight, None, None).to(dtype)
        return _to(out, plain if bias is None else plain + bias)
    return _float8(x, weight, bias, out)


def _float8(x: Quantised, weight: Quantised, bias: Tensor | None, out: Tensor | None) -> Tensor:
    scales = _aligned(x.scales.contiguous()), _aligned(weight.scales).t()
    given = (x.values.contiguous(), weight.values.t(), *scales, bias)
    fast = FAST_SUMS and len(x.values) >= FAST_ROWS
    if out is None:
        return torch._scaled_mm(*given, out_dtype=torch.bfloat16, use_fast_accum=fast)
    torch.ops.aten._scaled_mm.out(*given, out_dtype=torch.bfloat16, use_fast_accum=fast, out=out)
    return out


def _aligned(scales: Tensor) -> Tensor:
    """cuBLAS may ask for 16 bytes, and the scales of a part may begin at any row."""
    return scales.clone() if scales.data_ptr() % 16 else scales


def _integers(x: Quantised, weight: Quantised, bias: Tensor | None, dtype: torch.dtype, out: Tensor | None) -> Tensor:
    rows = len(x.values)
    values = x.values if rows >= FEWEST_ROWS else F.pad(x.values, (0, 0, 0, FEWEST_ROWS - rows))
    sums = torch._int_mm(values.contiguous(), weight.values.t())[:rows]
    try:
        from joyedit.models.quantising_kernels import give_scales
    except ImportError:  # there is no Triton
        return _to(out, _scaled(sums, x, weight, bias, dtype))
    place = torch.empty(sums.shape, dtype=dtype, device=sums.device) if out is None else out
    return give_scales(sums, x.scales.contiguous(), weight.scales, bias, place)


def _scaled(
    summed: Tensor, x: Quantised, weight: Quantised, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:  # fmt: skip
    found = summed.float() * x.scales * weight.scales.t()
    return (found if bias is None else found + bias.float()).to(dtype)


def _to(out: Tensor | None, found: Tensor) -> Tensor:
    return found if out is None else out.copy_(found)


class QuantisedLinear(nn.Module):
    """A linear layer of 8 bits. Its input is quantised, if it is not yet; its result has the dtype of its bias."""

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype) -> None:
        """Without weights: they are on the meta device."""
        super().__init__()
        self.in_features, self.out_features, self.dtype = in_features, out_features, dtype
        with torch.device("meta"):
            self.weight = _kept(torch.empty(out_features, in_features, dtype=dtype))
            self.weight_scale = _kept(torch.empty(out_features, 1))
            self.bias = _kept(torch.empty(out_features))

    @classmethod
    def of(cls, linear: nn.Linear, dtype: torch.dtype) -> QuantisedLinear:
        """The same layer, quantised. It shares the bias."""
        made = cls(linear.in_features, linear.out_features, dtype)
        weight = quantised_weight(linear.weight.data, dtype)
        made.weight, made.weight_scale = _kept(weight.values), _kept(weight.scales)
        made.bias = linear.bias
        return made

    def part(self, rows: slice) -> tuple[Quantised, Tensor]:
        """Weights and bias of some output channels."""
        return Quantised(self.weight[rows], self.weight_scale[rows]), self.bias[rows]

    def forward(self, x: Rows, out: Tensor | None = None) -> Tensor:
        """(..., K) -> (..., N). `out`: (R, N), where the result goes."""
        return self._product(x, slice(None), out)

    def partly(self, x: Rows, rows: slice) -> Tensor:
        """The output channels `rows` alone."""
        return self._product(x, rows, None)

    def _product(self, x: Rows, rows: slice, out: Tensor | None) -> Tensor:
        given = x if isinstance(x, Quantised) else quantise(x, self.dtype)
        weight, bias = self.part(rows)
        found = product(given.rows(), weight, bias, self.bias.dtype, out)
        return found.view(*given.values.shape[:-1], -1) if out is None else found


AnyLinear = nn.Linear | QuantisedLinear


def dtype_of_rows(linear: nn.Module) -> torch.dtype | None:
    """The dtype that a layer quantises its input to; None for a layer that takes it as it is."""
    return linear.dtype if isinstance(linear, QuantisedLinear) else None


def linear_part(linear: nn.Module, x: Rows, rows: slice) -> Tensor:
    """Some output channels of a linear layer: (..., K) -> (..., n)."""
    if isinstance(linear, QuantisedLinear):
        return linear.partly(x, rows)
    assert isinstance(linear, nn.Linear)
    assert isinstance(x, Tensor)
    return F.linear(x, linear.weight[rows], linear.bias[rows])


def _kept(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
