"""Sequences that ranks share, in one process: the DiT over several ranks against the DiT alone, in fp32."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from joyedit.models.attention import BACKENDS, Spans, TextLengths
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised_blocks import quantise_blocks
from joyedit.models.quantised_rows import FP8, INT8
from joyedit.models.shared_sequences import SharedSequences, share
from joyedit.models.strategies import InPlaceBlocks, PlainBlocks, Strategy
from support.ranks import ThreadExchange, run_ranks

CFG = DiTConfig(hidden_size=96, num_heads=3, num_layers=3, text_dim=16, rope_dims=(8, 12, 12), mlp_ratio=2)
WORLDS = [1, 2, 3, 4, 5]
"""With three heads, these divide them evenly, unevenly, and leave ranks without a head."""

SHAPES = {
    "no reference": ([(4, 6)], [5]),
    "two references of other sizes": ([(4, 6), (2, 6), (6, 4)], [9]),
    "texts of unequal lengths": ([(4, 6), (4, 6)], [9, 1, 4]),
    "texts shorter than the number of ranks, one without tokens": ([(4, 6)], [1, 0, 2]),
    "as many tokens in each text": ([(4, 6), (4, 6)], [6, 6]),
    "fewer tokens than ranks": ([(2, 4)], [2, 3]),
}
"""Latent sizes of target and references, and text lengths."""


def dit(cfg: DiTConfig = CFG) -> DiT:
    generator = torch.Generator().manual_seed(0)
    network = DiT(cfg).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        spread = 0.3 if name.endswith("modulate_table") else fan_in**-0.5 if parameter.ndim > 1 else 0.1
        sharp = name.endswith(("q_norm.weight", "k_norm.weight"))
        centre = 2.0 if sharp else 0.0
        parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return network


def inputs(sizes: list[tuple[int, int]], lengths: list[int]) -> tuple[list[Tensor], Tensor, TextLengths]:
    generator = torch.Generator().manual_seed(len(lengths))
    items = [torch.randn(len(lengths), 16, *size, generator=generator) for size in sizes]
    return items, torch.randn(sum(lengths), CFG.hidden_size, generator=generator), TextLengths.of(lengths)


@torch.inference_mode()
def check(network: DiT, shape: str, size: int, timesteps: tuple[float, ...] = (500.0,)) -> None:
    """All ranks get what one rank computes alone."""
    items, txt, text = inputs(*SHAPES[shape])
    mods = network.modulations(torch.tensor(timesteps))
    expected = network.predict(items, mods, txt, text)
    found = run_ranks(size, lambda exchange: network.predict(items, mods, txt, text, exchange))
    assert expected.std() > 0.1
    for one in found:
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(one, found[0])


@pytest.mark.parametrize("strategy", [PlainBlocks, InPlaceBlocks])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_dit_over_ranks(shape: str, strategy: Strategy) -> None:
    network = dit()
    network.strategy = strategy
    for size in WORLDS:
        check(network, shape, size)


def test_samples_with_timesteps_of_their_own() -> None:
    network = dit()
    check(network, "texts of unequal lengths", 2, timesteps=(100.0, 500.0, 900.0))


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="without Triton's interpreter")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("large", [1, 2048])
@pytest.mark.parametrize("shape", list(SHAPES)[1:4:2])
def test_fused_blocks_over_ranks(shape: str, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from joyedit.models import fused_blocks

    monkeypatch.setattr(fused_blocks, "LARGE", large)
    network = dit()
    network.fuse_blocks()
    check(network, shape, 3)


@pytest.mark.parametrize("dtype", [FP8, INT8])
def test_layers_of_8_bits_over_ranks(dtype: torch.dtype) -> None:
    """Each token has its own scale, so a rank quantises its tokens as one rank would; sums may be in another order."""
    network = dit()
    quantise_blocks(network, dtype)
    items, txt, text = inputs(*SHAPES["texts of unequal lengths"])
    mods = network.modulations(torch.tensor([500.0]))
    expected = network.predict(items, mods, txt, text)
    for one in run_ranks(3, lambda exchange: network.predict(items, mods, txt, text, exchange)):
        assert (one - expected).norm() < 5e-3 * expected.norm()


def test_ranks_exchange_once_before_the_attention_and_once_behind_it() -> None:
    """A block's three tensors go together; the last block's queries go by themselves, as they are fewer."""
    network, (items, txt, text) = dit(), inputs(*SHAPES["two references of other sizes"])
    mods = network.modulations(torch.tensor([500.0]))

    def work(exchange: ThreadExchange) -> list[tuple[int, ...]]:
        network.predict(items, mods, txt, text, exchange)
        return exchange.calls

    for rank, calls in enumerate(run_ranks(3, work)):
        assert len(calls) == 2 * CFG.num_layers + 1 + 1  # one more for the last queries, one for the velocity
        counts = [rows * columns // 4 for rows, columns in SHAPES["two references of other sizes"][0]]
        own = sum(len(share(count, rank, 3)) for count in (*counts, 9))
        assert calls[0] == (own * 3 * CFG.head_dim,) * 3


def test_a_qkv_product_may_not_be_split_plainly() -> None:
    """The rows of the weight are query, key and value one after the other: its thirds are not three ranks' heads."""
    network = dit()
    qkv = network.blocks()[0].attn.img_attn_qkv
    x = torch.randn(5, CFG.hidden_size)
    whole = qkv(x).unflatten(-1, (3, CFG.num_heads, CFG.head_dim))
    plain = torch.nn.functional.linear(x, qkv.weight[:96], qkv.bias[:96]).view(5, 3, 1, CFG.head_dim)
    assert not torch.allclose(whole[:, :, :1], plain, atol=1e-2)


def test_shares_cover_everything_once() -> None:
    for count in (0, 1, 2, 7, 32):
        for size in WORLDS:
            parts = [share(count, rank, size) for rank in range(size)]
            assert [one for part in parts for one in part] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_attention_sees_whole_sequences_of_some_heads() -> None:
    """Whatever the kernel: it gets one sample at a time, with all tokens and the rank's heads."""
    seen: list[tuple[tuple[int, ...], Spans]] = []
    lengths, tokens = [3, 5], 8

    def attend(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        seen.append((tuple(query.shape), spans))
        return BACKENDS["sdpa"](query, key, value, spans)

    def work(exchange: ThreadExchange) -> None:
        shared = SharedSequences(exchange, [tokens], TextLengths.of(lengths))
        rows = tuple(len(share(tokens, exchange.rank, 2)) + length for length in shared.text.lengths)
        query, key, value = torch.randn(sum(rows), 3, 4, 32).unbind(1)
        outs = shared.attention(attend)(query, key, value, Spans(rows, rows))
        assert [tuple(out.shape) for out in outs] == [(count, 4, 32) for count in rows]

    run_ranks(2, work)
    expected = [((11, 2, 32), Spans((11,), (11,))), ((13, 2, 32), Spans((13,), (13,)))]
    assert sorted(seen, key=str) == sorted(expected * 2, key=str)
