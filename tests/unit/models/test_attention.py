"""Joint attention over packed texts: against a plain loop, for every backend."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from joyedit.models import attention
from joyedit.models.attention import Packed, TextLengths, flash_attention, sdpa_attention

B, S, H, D = 4, 6, 2, 8


def packed(lengths: list[int], seed: int) -> Packed:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(B, S, H, D, generator=generator),
        torch.randn(sum(lengths), H, D, generator=generator),
    )


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One sample by the textbook: (N, H, D) each."""
    scores = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(D)
    return torch.einsum("hnm,mhd->nhd", scores.softmax(-1), v)


def one_by_one(query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
    images, texts = [], []
    for i in range(B):
        span = slice(text.offsets[i], text.offsets[i + 1])
        q, k, v = (torch.cat([img[i], txt[span]]) for img, txt in (query, key, value))
        out = softmax_attention(q, k, v)
        images.append(out[:S])
        texts.append(out[S:])
    return torch.stack(images), torch.cat(texts)


def varlen_by_loop(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, _: Tensor, longest: int, __: int) -> Tensor:
    """What a variable-length kernel computes, sample by sample."""
    edges = bounds.tolist()
    assert bounds.dtype == torch.int32
    assert longest == max(b - a for a, b in itertools.pairwise(edges))
    spans = [slice(a, b) for a, b in itertools.pairwise(edges)]
    return torch.cat([softmax_attention(q[s], k[s], v[s]) for s in spans])


LENGTHS = [[5, 5, 5, 5], [3, 7, 3, 1], [1, 2, 3, 4], [9, 9, 2, 2]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_sdpa_matches_a_loop_over_samples(lengths: list[int]) -> None:
    text = TextLengths.of(lengths)
    query, key, value = (packed(lengths, seed) for seed in range(3))
    for got, expected in zip(sdpa_attention(query, key, value, text), one_by_one(query, key, value, text), strict=True):
        assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_flash_hands_the_kernel_each_sample_in_one_piece(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_kernel", lambda: varlen_by_loop)
    text = TextLengths.of(lengths)
    query, key, value = (packed(lengths, seed) for seed in range(3))
    for got, expected in zip(
        flash_attention(query, key, value, text), one_by_one(query, key, value, text), strict=True
    ):
        assert torch.allclose(got, expected, atol=1e-5)


def test_another_samples_text_changes_nothing() -> None:
    """Not one bit: a sample's attention never touches the memory of another."""
    lengths = [3, 7, 5, 1]
    text = TextLengths.of(lengths)
    query, key, value = (packed(lengths, seed) for seed in range(3))
    before = sdpa_attention(query, key, value, text)
    changed = [(img.clone(), txt.clone()) for img, txt in (query, key, value)]
    for img, txt in changed:
        img[1] += 1
        txt[text.offsets[1] : text.offsets[2]] *= -3
    after = sdpa_attention(*changed, text)
    for i in (0, 2, 3):
        span = slice(text.offsets[i], text.offsets[i + 1])
        assert torch.equal(before[0][i], after[0][i])
        assert torch.equal(before[1][span], after[1][span])
    assert not torch.equal(before[0][1], after[0][1])


def test_lengths_know_their_offsets_groups_and_samples() -> None:
    text = TextLengths.of([2, 3, 2])
    assert text.offsets == (0, 2, 5, 7)
    assert text.groups == ((2, (0, 2)), (3, (1,)))
    assert text.sample_of_token(torch.device("cpu")).tolist() == [0, 0, 1, 1, 1, 2, 2]
