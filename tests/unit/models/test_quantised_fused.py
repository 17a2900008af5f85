"""Kernels that quantise, and blocks that are made of them, by Triton's interpreter against plain torch."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from joyedit.models import fused_blocks, triton_kernels
from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised_blocks import LAYERS, quantise_blocks
from joyedit.models.quantised_rows import FP8, INT8, Quantised, quantise
from joyedit.models.quantising_kernels import give_scales, quantise_rows
from support.float8_interpreter import rounded_as_on_gpus

__all__ = ["rounded_as_on_gpus"]
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="without Triton's interpreter"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning"),
    pytest.mark.usefixtures("rounded_as_on_gpus"),
]
KINDS = [FP8, INT8]
CFG = DiTConfig(hidden_size=96, num_heads=3, num_layers=2, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)


def same(found: Quantised, expected: Quantised) -> None:
    """But for single values at the edge of a rounding."""
    assert found.values.dtype == expected.values.dtype
    torch.testing.assert_close(found.scales, expected.scales, rtol=1e-5, atol=0)
    differ = found.values.float() != expected.values.float()
    assert differ.float().mean() < 0.01
    torch.testing.assert_close(found.wide(), expected.wide(), rtol=0.13, atol=float(expected.scales.max()) * 1.01)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("columns", [64, 96])
def test_quantise_rows(columns: int, dtype: torch.dtype) -> None:
    """Rows of zeros, and rows that are apart in memory."""
    torch.manual_seed(0)
    x = 3 * torch.randn(5, 2 * columns)[:, :columns]
    x[2] = 0
    same(quantise_rows(x, dtype), quantise(x, dtype))
    same(quantise_rows(x, dtype, gelu=True), quantise(F.gelu(x, approximate="tanh"), dtype))
    assert quantise_rows(x, dtype, gelu=True).wide()[2].eq(0).all()
    x[1, 3], x[4, 0] = float("nan"), float("inf")
    wide = quantise_rows(x, dtype).wide()
    assert wide[[1, 4]].isnan().all()
    assert wide[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("dtype", KINDS)
def test_norm_modulate(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, attended, mlp = (torch.randn(2, n, 96) for n in (9, 5, 5))
    gate, other, shift, scale = (torch.randn(96) for _ in range(4))
    x = x[:, :5]
    one = torch.addcmul(x, gate, attended)
    both = torch.addcmul(one, other, mlp)

    def normed(total: Tensor) -> Quantised:
        return quantise(F.layer_norm(total, (96,), scale, shift, 1e-6), dtype)

    found = triton_kernels.quantised_norm_modulate(x, [(attended, gate)], shift, scale, 1e-6, dtype)
    same(found, normed(one))
    total, found = triton_kernels.quantised_residual_norm_modulate(
        x, [(attended, gate), (mlp, other)], shift, scale, 1e-6, dtype
    )
    torch.testing.assert_close(total, both)
    same(found, normed(both))


@pytest.mark.parametrize("biased", [True, False])
def test_scales_of_sums_of_integers(biased: bool) -> None:
    x, weight = quantise(torch.randn(3, 32), INT8), quantise(torch.randn(50, 32), INT8)
    bias = torch.randn(50) if biased else None
    sums = (x.values.int() @ weight.values.int().t()).contiguous()
    out = torch.zeros(3, 60)
    give_scales(sums, x.scales, weight.scales, bias, out[:, :50])
    expected = F.linear(x.wide(), weight.wide(), bias)
    torch.testing.assert_close(out[:, :50], expected, rtol=1e-5, atol=1e-5)
    assert out[:, 50:].eq(0).all()


@torch.inference_mode()
def velocity(dit: DiT) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    items = [torch.randn(2, 16, 4, side, generator=generator) for side in (4, 2)]
    txt = torch.randn(5, 96, generator=generator)
    return dit(items, torch.full((1,), 500.0), txt, TextLengths.of([2, 3]))


@pytest.mark.parametrize(
    ("dtype", "layers", "large"),
    [
        (FP8, LAYERS, 1),
        (FP8, LAYERS, 2048),
        (INT8, LAYERS, 1),
        (FP8, LAYERS[1::2], 1),
        (FP8, [LAYERS[0], LAYERS[2], LAYERS[5]], 2048),
    ],
)
def test_fused_blocks_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, layers: list[str], large: int
) -> None:
    """Each way to join the streams, samples together and one by one, all layers of 8 bits and some."""
    generator = torch.Generator().manual_seed(0)
    dit = DiT(CFG).eval().requires_grad_(False)
    for parameter in dit.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5
        torch.nn.init.normal_(parameter, std=spread, generator=generator)
    quantise_blocks(dit, dtype, layers)
    expected = velocity(dit)
    monkeypatch.setattr(fused_blocks, "LARGE", large)
    dit.fuse_blocks()
    found = velocity(dit)
    assert (found - expected).norm() < 2e-3 * expected.norm()
    if large == 1:
        monkeypatch.setattr(fused_blocks, "FILLING", 1)
        by_sample = velocity(dit)
        assert (by_sample - expected).norm() < 2e-3 * expected.norm()
