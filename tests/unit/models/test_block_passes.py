"""Forwards that go through the blocks side by side, and stop between two of them: the same numbers, bit by bit."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import BlockPass, DiT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CFG = DiTConfig(hidden_size=96, num_heads=3, num_layers=3, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)
HAS_TRITON = importlib.util.find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"


@pytest.mark.parametrize(
    "choose",
    [
        DiT.plain_blocks,
        pytest.param(DiT.fuse_blocks, marks=pytest.mark.skipif(not HAS_TRITON, reason="without Triton's interpreter")),
    ],
    ids=lambda choose: choose.__name__,
)
def test_parts_make_the_whole_and_neighbours_change_nothing(choose: Callable[[DiT], None]) -> None:
    torch.manual_seed(0)
    dit = DiT(CFG).eval().requires_grad_(False)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    choose(dit)
    forwards = [([torch.randn(1, 16, 4, 6), torch.randn(1, 16, 6, 4)], torch.randn(n, 96)) for n in (5, 9)]
    with torch.inference_mode():
        mods = dit.modulations(torch.tensor([500.0]))
        whole = [dit.predict(items, mods, txt, TextLengths.of([len(txt)])) for items, txt in forwards]
        passes = [dit.begin(items, mods, txt, TextLengths.of([len(txt)])) for items, txt in forwards]
        dit.run_blocks(passes, range(1))
        streams = [one.target_tokens.clone() for one in passes]
        dit.run_blocks(passes[1:], range(1, 3))  # the first one waits meanwhile
        assert torch.equal(passes[0].target_tokens, streams[0])
        dit.run_blocks(passes[:1], range(1, 3))
        got = [dit.velocity(one, one.target_tokens) for one in passes]
    for one, expected in zip(got, whole, strict=True):
        assert torch.equal(one, expected)


def test_nobody_needs_a_block() -> None:
    """Without forwards no weights are asked for."""
    dit = DiT(CFG)
    dit.weights = Unwanted()
    dit.run_blocks([], range(3))


class Unwanted:
    """Weights that nobody may ask for."""

    def need(self, layer: int) -> None:
        raise AssertionError(layer)

    used = need


def test_the_target_is_the_first_part_of_the_image() -> None:
    img: Tensor = torch.arange(12.0).view(1, 6, 2)
    one = BlockPass(img=img, txt=torch.empty(0, 2), target=4, grid=(2, 2), run=None)  # type: ignore[arg-type]
    assert torch.equal(one.target_tokens, img[:, :4])
