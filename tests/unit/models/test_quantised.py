"""Layers of 8 bits: what quantising and products give, for rows of zeros too, and that each row is for itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised import QuantisedLinear, linear_part, product
from joyedit.models.quantised_blocks import LAYERS, QUANTISED, dtype_of_quantised, quantise_blocks
from joyedit.models.quantised_rows import FP8, INT8, Quantised, quantise, quantised_weight

KINDS = [FP8, INT8]
CFG = DiTConfig(hidden_size=64, num_heads=2, num_layers=2, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
LOST = {FP8: 0.03, INT8: 0.012}
"""The most that quantising a row of normal values loses, relative to its norm."""


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def network() -> DiT:
    generator = torch.Generator().manual_seed(0)
    dit = DiT(CFG).eval().requires_grad_(False)
    for parameter in dit.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        nn.init.normal_(parameter, std=spread, generator=generator)
    return dit


@torch.inference_mode()
def velocity(dit: DiT, lengths: list[int], number: int | None = None) -> Tensor:
    """Of samples of these texts, or of one of them alone."""
    generator = torch.Generator().manual_seed(3)
    items = [torch.randn(len(lengths), 16, 8, 8, generator=generator) for _ in range(2)]
    texts = [torch.randn(length, 16, generator=generator) for length in lengths]
    if number is not None:
        items, texts = [item[number : number + 1] for item in items], texts[number : number + 1]
    txt = torch.cat([dit.embed_text(text) for text in texts])
    return dit(items, torch.full((1,), 500.0), txt, TextLengths.of([len(text) for text in texts]))


@pytest.mark.parametrize("dtype", KINDS)
def test_each_row_by_its_own_largest_value(dtype: torch.dtype) -> None:
    x = torch.randn(6, 64) * torch.tensor([1e-4, 1.0, 1.0, 3e4, 1.0, 1.0])[:, None]
    x[2] = 0
    made = quantise(x, dtype)
    assert made.values.dtype == dtype
    assert made.scales.shape == (6, 1)
    for row in (0, 1, 3):
        assert relative(made.wide()[row], x[row]) < LOST[dtype]
        largest = x[row].abs().argmax()
        assert made.wide()[row, largest] == pytest.approx(float(x[row, largest]), rel=1e-6)
    assert made.wide()[2].eq(0).all()
    assert made.wide().isfinite().all()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(dtype: torch.dtype, value: float) -> None:
    x = torch.randn(3, 32)
    x[1, 4] = value
    wide = quantise(x, dtype).wide()
    assert wide[1].isnan().all()
    assert wide[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", KINDS)
def test_products_are_those_of_the_values(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(5, 48), torch.randn(32, 48), torch.randn(32)
    a, b = quantise(x, dtype), quantised_weight(weight, dtype)
    expected = F.linear(a.wide(), b.wide(), bias)
    torch.testing.assert_close(product(a, b, bias, torch.float32, None), expected, rtol=1e-4, atol=1e-4)
    out = torch.empty(5, 32)
    assert product(a, b, bias, torch.float32, out) is out
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    nothing = Quantised(a.values[:0], a.scales[:0])
    assert product(nothing, b, bias, torch.bfloat16, None).shape == (0, 32)


@pytest.mark.parametrize("dtype", KINDS)
def test_layer_and_its_parts(dtype: torch.dtype) -> None:
    linear = nn.Linear(48, 30).requires_grad_(False)
    layer = QuantisedLinear.of(linear, dtype)
    x = torch.randn(2, 4, 48)
    found = layer(x)
    assert found.shape == (2, 4, 30)
    assert 0 < relative(found, linear(x)) < 2 * LOST[dtype]
    assert layer(quantise(x, dtype)).equal(found)
    parts = [linear_part(layer, x, rows) for rows in (slice(10), slice(10, None))]
    torch.testing.assert_close(torch.cat(parts, -1), found)
    torch.testing.assert_close(linear_part(linear, x, slice(3, 9)), linear(x)[..., 3:9])
    assert {name: p.dtype for name, p in layer.named_parameters()} == {
        "weight": dtype, "weight_scale": torch.float32, "bias": torch.float32
    }  # fmt: skip


@pytest.mark.parametrize("dtype", KINDS)
def test_a_network_of_8_bits(dtype: torch.dtype) -> None:
    """It is near the exact one, and a sample near itself in a batch, where fp32 sums in another order."""
    dit = network()
    exact = velocity(dit, [5, 9])
    quantise_blocks(dit, dtype)
    found = velocity(dit, [5, 9])
    assert 1e-4 < relative(found, exact) < 2 * LOST[dtype]
    for number in range(2):
        torch.testing.assert_close(velocity(dit, [5, 9], number), found[number : number + 1], rtol=0, atol=2e-2)


def test_names_of_quantised_parameters() -> None:
    dit = network()
    weights = {name for name, _ in dit.named_parameters() if dtype_of_quantised(name, "fp8") == FP8}
    assert len(weights) == CFG.num_layers * len(QUANTISED["fp8"][1])
    assert {name for name, _ in dit.named_parameters() if dtype_of_quantised(name, "exact")} == set()
    quantise_blocks(dit, FP8, QUANTISED["fp8"][1])
    for name, parameter in dit.named_parameters():
        assert parameter.dtype == (dtype_of_quantised(name, "fp8") or torch.float32), name


def test_only_some_layers() -> None:
    dit = network()
    exact = velocity(dit, [4])
    quantise_blocks(dit, FP8, LAYERS[1::2])
    assert isinstance(dit.blocks()[0].img_mlp.linears[0], nn.Linear)
    assert isinstance(dit.blocks()[0].img_mlp.linears[1], QuantisedLinear)
    assert 1e-4 < relative(velocity(dit, [4]), exact) < 0.06
