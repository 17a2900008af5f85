"""Compiled blocks compute what the plain ones do, and another text length or size compiles nothing anew."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.utils import counters

from joyedit.models.attention import TextLengths
from joyedit.models.compiled_blocks import compiled_forward
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from support.figures import EXHAUSTIVE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

# What compiles anew is decided before any code is made. Making it takes minutes, so only `make soak` does.
COMPILER = "inductor" if EXHAUSTIVE and (shutil.which("g++") or shutil.which("clang++")) else "eager"

# Text lengths and (h, w) of the items: equal lengths first, as what is equal once must not be taken for a law.
CASES = [
    ([9], (8, 12)),
    ([12], (8, 12)),
    ([21], (6, 10)),
    ([24], (8, 12)),  # as many text tokens as target tokens
    ([5, 5], (8, 12)),
    ([5, 7], (8, 12)),
    ([8, 30], (6, 10)),
    ([24, 48], (8, 12)),
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    compiled_forward.cache_clear()
    counters.clear()
    yield
    torch._dynamo.reset()


def test_compiled_blocks_match_plain_ones_at_any_length_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=COMPILER))
    torch.manual_seed(0)
    cfg = DiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
    plain, compiled = DiT(cfg).eval(), DiT(cfg).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    compiled.load_state_dict(plain.state_dict())
    compiled.compile_blocks()
    graphs: dict[int, list[int]] = {1: [], 2: []}
    with torch.inference_mode():
        mods = plain.modulations(torch.tensor([500.0]))
        for lengths, size in CASES:
            items = [torch.randn(len(lengths), 16, *size), torch.randn(len(lengths), 16, *size)]
            txt = torch.randn(sum(lengths), 64)
            expected = plain.predict(items, mods, txt, TextLengths.of(lengths))
            got = compiled.predict(items, mods, txt, TextLengths.of(lengths))
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
            graphs[len(lengths)].append(counters["stats"]["unique_graphs"])
    # Another number of samples is another graph; within it, no length and no size compiled anew.
    for found in graphs.values():
        assert found == [found[0]] * len(found)
    assert graphs[1][0] < graphs[2][0]


def test_plain_blocks_again() -> None:
    cfg = DiTConfig(hidden_size=64, num_heads=2, num_layers=1, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
    dit = DiT(cfg).eval()
    dit.compile_blocks()
    dit.plain_blocks()
    with torch.inference_mode():
        mods = dit.modulations(torch.tensor([500.0]))
        dit.predict([torch.randn(1, 16, 4, 4)], mods, torch.randn(3, 64), TextLengths.of([3]))
    assert counters["stats"]["unique_graphs"] == 0
