"""Joint attention over joined samples: against a plain loop, for every backend."""

from __future__ import annotations

import itertools
import math
import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from joyedit.models import attention
from joyedit.models.attention import BACKENDS, VARLEN, Spans, TextLengths, join, separate, varlen_kernel

S, H, D = 6, 2, 8


@pytest.fixture(autouse=True)
def _forget_kernels() -> Iterator[None]:
    varlen_kernel.cache_clear()
    yield
    varlen_kernel.cache_clear()


def joined(lengths: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(sum(lengths), H, D, generator=torch.Generator().manual_seed(seed))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One sample by the textbook: (N, H, D) each."""
    scores = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(D)
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v)


def one_by_one(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
    parts = (query.split(spans.queries), key.split(spans.keys), value.split(spans.keys))
    return [softmax_attention(*sample) for sample in zip(*parts, strict=True)]


def varlen_by_loop(q: Tensor, k: Tensor, v: Tensor, **words: Tensor | int) -> Tensor:
    """What a variable-length kernel computes, sample by sample."""
    q_bounds, k_bounds, longest_q, longest_k = words.values()
    assert isinstance(q_bounds, Tensor)
    assert isinstance(k_bounds, Tensor)
    spans = []
    for bounds, longest, rows in ((q_bounds, longest_q, len(q)), (k_bounds, longest_k, len(k))):
        edges = bounds.tolist()
        assert bounds.dtype == torch.int32
        assert edges[-1] == rows
        spans.append(tuple(b - a for a, b in itertools.pairwise(edges)))
        assert longest == max(spans[-1])
    return torch.cat(one_by_one(q, k, v, Spans(*spans)))


SPANS = [
    Spans((11, 11, 11, 11), (11, 11, 11, 11)),
    Spans((9, 13, 9, 7), (9, 13, 9, 7)),
    Spans((7, 8, 8, 8), (7, 8, 8, 8)),
    Spans((4, 4, 4), (9, 13, 13)),
    Spans((5,), (12,)),
]


@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_matches_a_loop_over_samples(name: str, spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable-length kernels themselves need a GPU; here a loop stands in for them."""
    if name in VARLEN:
        module, function, _ = VARLEN[name]
        stand_in = types.ModuleType(module)
        setattr(stand_in, function, varlen_by_loop)
        monkeypatch.setitem(sys.modules, module, stand_in)
    elif name == "cudnn":
        monkeypatch.setattr(attention, "sdpa_kernel", lambda _: torch.no_grad())
    query = joined(spans.queries, 0)
    key, value = joined(spans.keys, 1), joined(spans.keys, 2)
    out = BACKENDS[name](query, key, value, spans)
    for got, expected in zip(out, one_by_one(query, key, value, spans), strict=True):
        assert torch.allclose(got, expected, atol=1e-5)


def test_an_output_with_its_log_sum_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("flash_attn_interface")
    stand_in.flash_attn_varlen_func = lambda *a, **words: (varlen_by_loop(*a, **words), torch.zeros(1))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn_interface", stand_in)
    spans = Spans((3, 5), (3, 5))
    q, k, v = (joined(spans.keys, seed) for seed in range(3))
    assert [len(out) for out in BACKENDS["fa3"](q, k, v, spans)] == [3, 5]


def test_a_package_of_the_same_name_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    with pytest.raises(ImportError, match=r"flash_attn\.flash_attn_varlen_func cannot be used"):
        varlen_kernel("fa2")


def test_another_samples_text_changes_nothing() -> None:
    """Not one bit: a sample's attention never touches the memory of another."""
    spans = Spans((9, 13, 11, 7), (9, 13, 11, 7))
    q, k, v = (joined(spans.keys, seed) for seed in range(3))
    before = BACKENDS["sdpa"](q, k, v, spans)
    changed = [x.clone() for x in (q, k, v)]
    for x in changed:
        x[9:22] *= -3
    after = BACKENDS["sdpa"](*changed, spans)
    for i in (0, 2, 3):
        assert torch.equal(before[i], after[i])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("lengths", [[3], [3, 7, 3, 1]])
def test_joined_streams_come_apart_again(lengths: list[int]) -> None:
    img = torch.randn(len(lengths), S, H, D)
    txt = torch.randn(sum(lengths), H, D)
    whole = join(img, txt, lengths)
    assert torch.equal(whole[: S + lengths[0]], torch.cat([img[0], txt[: lengths[0]]]))
    got_img, got_txt = separate(whole.split([S + length for length in lengths]), S)
    assert torch.equal(got_img, img)
    assert torch.equal(got_txt, txt)


def test_lengths_know_their_offsets_and_samples() -> None:
    text = TextLengths.of([2, 3, 2])
    assert text.offsets == (0, 2, 5, 7)
    assert text.sample_of_token(torch.device("cpu")).tolist() == [0, 0, 1, 1, 1, 2, 2]
