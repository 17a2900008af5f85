"""Every way to run the blocks against `DoubleBlock.forward`, for whole and trimmed blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from joyedit.models.attention import TextLengths, sdpa_attention
from joyedit.models.blocks import DoubleBlock
from joyedit.models.config import DiTConfig
from joyedit.models.rope import rope_table
from joyedit.models.strategies import ForwardPass, InPlaceBlocks, PlainBlocks, Strategy
from nano.speed import padded_attention
from nano.trainable import PackedBlocks, UntrimmedBlocks

CFG = DiTConfig(hidden_size=64, num_heads=2, num_layers=1, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
GRIDS = [(2, 3), (3, 2)]


def block() -> DoubleBlock:
    torch.manual_seed(0)
    made = DoubleBlock(CFG).eval().requires_grad_(False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def forward_pass(lengths: list[int]) -> ForwardPass:
    return ForwardPass(
        attend=sdpa_attention,
        text=TextLengths.of(lengths),
        pe=rope_table(GRIDS, CFG.rope_dims, CFG.theta),
        img_mods=torch.randn(1, 6, 1, 1, 64),
        txt_mods=torch.randn(1, 6, 1, 64),
    )


def results(strategy: Strategy, lengths: list[int], target: int | None) -> tuple[Tensor, Tensor]:
    made = block()
    forward = forward_pass(lengths)
    img, txt = torch.randn(len(lengths), 12, 64), torch.randn(sum(lengths), 64)
    with torch.inference_mode():
        return strategy(forward)(made, 0, img, txt, target)


@pytest.mark.parametrize("target", [None, 6])
@pytest.mark.parametrize("lengths", [[5], [4, 0, 7]])
def test_in_place_is_plain(lengths: list[int], target: int | None) -> None:
    for got, expected in zip(
        results(InPlaceBlocks, lengths, target), results(PlainBlocks, lengths, target), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("strategy", [UntrimmedBlocks, PackedBlocks(padded_attention)])
def test_the_trainers_blocks_are_plain(strategy: Strategy) -> None:
    for got, expected in zip(results(strategy, [5, 7], 6), results(PlainBlocks, [5, 7], None), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_trimmed_block_computes_the_target_and_leaves_the_text() -> None:
    whole, trimmed = (results(PlainBlocks, [5, 7], target) for target in (None, 6))
    torch.testing.assert_close(trimmed[0], whole[0][:, :6], rtol=1e-4, atol=1e-5)
    assert trimmed[1].shape == whole[1].shape
    assert not torch.allclose(trimmed[1], whole[1])
