"""Compiled blocks compute what the plain ones do, and another text length compiles nothing anew."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler here"
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_blocks_match_plain_ones_at_any_text_length() -> None:
    torch.manual_seed(0)
    cfg = DiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=2)
    plain, compiled = DiT(cfg).eval(), DiT(cfg).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    compiled.load_state_dict(plain.state_dict())
    compiled.compile_blocks()
    torch._dynamo.reset()
    counters.clear()
    graphs = []
    with torch.no_grad():
        mods = plain.modulations(torch.tensor([500.0]))
        for lengths in ([9], [12], [5, 7], [8, 30], [21]):
            items = [torch.randn(len(lengths), 16, 8, 12), torch.randn(len(lengths), 16, 8, 12)]
            txt = torch.randn(sum(lengths), 64)
            expected = plain.predict(items, mods, txt, TextLengths.of(lengths))
            got = compiled.predict(items, mods, txt, TextLengths.of(lengths))
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
            graphs.append(counters["stats"]["unique_graphs"])
    # One sample and several are two kinds of shape; within each, no length compiled anew.
    assert graphs[1] == graphs[0]
    assert graphs[3] == graphs[2] == graphs[4]
