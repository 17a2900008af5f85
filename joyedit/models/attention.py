"""Joint attention over [image, text] for samples whose texts differ in length, without a mask.

Legend: B samples, S image tokens a sample, T text tokens of all samples together, H heads,
D channels a head. Texts are *packed*: one after the other along a single axis, no padding, so
nothing of one sample can reach another. Samples with texts of equal length go in one call.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Packed = tuple[Tensor, Tensor]
"""One of query, key or value as its two streams: image (B, S, H, D) and packed text (T, H, D).

A query may hold fewer image tokens than the keys, and then no text: what nobody reads has no query.
"""

AttentionFn = Callable[[Packed, Packed, Packed, "TextLengths"], Packed]


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Lengths of the packed texts, and the samples grouped by length."""

    lengths: tuple[int, ...]
    offsets: tuple[int, ...]
    groups: tuple[tuple[int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> TextLengths:
        offsets = [0]
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            offsets.append(offsets[-1] + length)
            groups.setdefault(length, []).append(index)
        return cls(tuple(lengths), tuple(offsets), tuple((length, tuple(ids)) for length, ids in groups.items()))

    @property
    def total(self) -> int:
        return self.offsets[-1]

    def sample_of_token(self, device: torch.device) -> Tensor:
        """Index of the sample that each packed token belongs to: (T,), int64."""
        counts = torch.tensor(self.lengths, device=device)
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=device), counts)


def sdpa_attention(query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
    """Joint attention through torch's scaled_dot_product_attention, one call a text length."""
    if len(text.groups) == 1:
        length = text.groups[0][0]
        return _sdpa_equal(query, key, value, length)
    img_out = torch.empty_like(query[0])
    txt_out = torch.empty_like(query[1])
    device = query[0].device
    for length, samples in text.groups:
        index = torch.tensor(samples, device=device)
        starts = torch.tensor([text.offsets[i] for i in samples], device=device)
        tokens = (starts[:, None] + torch.arange(length, device=device)).reshape(-1)
        asked = tokens if len(query[1]) else tokens[:0]
        k, v = ((img[index], txt[tokens]) for img, txt in (key, value))
        img, txt = _sdpa_equal((query[0][index], query[1][asked]), k, v, length)
        img_out[index] = img
        txt_out[asked] = txt
    return img_out, txt_out


def _sdpa_equal(query: Packed, key: Packed, value: Packed, length: int) -> Packed:
    img_tokens = query[0].shape[1]
    q, k, v = (_joint(packed, length).transpose(1, 2) for packed in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    if not len(query[1]):
        return out, query[1]
    return out[:, :img_tokens], out[:, img_tokens:].flatten(0, 1)


def _joint(packed: Packed, length: int) -> Tensor:
    """Both streams of samples with texts of one length: (B, S + length, H, D); image alone without text."""
    img, txt = packed
    return torch.cat([img, txt.unflatten(0, (-1, length))], dim=1) if len(txt) else img


def flash_attention(query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed:
    """Joint attention through FlashAttention's variable-length kernel: all samples in one call.

    The kernel is flash-attn's where that is installed, else torch's own build of it (torch >= 2.10).
    """
    batch, asked = query[0].shape[:2]
    tokens = key[0].shape[1]
    device = key[0].device
    order = _interleave(text, batch, tokens, device)
    k, v = (torch.cat([img.flatten(0, 1), txt])[order] for img, txt in (key, value))
    bounds = _bounds(text.offsets, tokens, device)
    longest = tokens + max(text.lengths)
    if not len(query[1]):
        q_bounds = _bounds([0] * (batch + 1), asked, device)
        out = varlen_kernel()(query[0].flatten(0, 1), k, v, q_bounds, bounds, asked, longest)
        return out.unflatten(0, (batch, asked)), query[1]
    q = torch.cat([query[0].flatten(0, 1), query[1]])[order]
    out = varlen_kernel()(q, k, v, bounds, bounds, longest, longest)
    joint = torch.zeros_like(out).index_copy(0, order, out)
    return joint[: batch * tokens].unflatten(0, (batch, tokens)), joint[batch * tokens :]


def _bounds(text_offsets: Sequence[int], img_tokens: int, device: torch.device) -> Tensor:
    """Where each sample begins in the sequence [image 0, text 0, image 1, ...], and its end: int32."""
    starts = [offset + i * img_tokens for i, offset in enumerate(text_offsets)]
    return torch.tensor(starts, dtype=torch.int32, device=device)


@functools.cache
def varlen_kernel() -> Callable[..., Tensor]:
    """A function of (q, k, v, bounds, bounds, longest, longest). Raises ImportError when there is none."""
    try:
        module, name = importlib.import_module("flash_attn"), "flash_attn_varlen_func"
    except ImportError:
        module, name = importlib.import_module("torch.nn.attention.varlen"), "varlen_attn"
    kernel: Callable[..., Tensor] = getattr(module, name)
    return kernel


def _interleave(text: TextLengths, batch: int, img_tokens: int, device: torch.device) -> Tensor:
    """Rows of [all image tokens, all text tokens] in the order image 0, text 0, image 1, text 1, ..."""
    base = batch * img_tokens
    parts = []
    for i in range(batch):
        parts.append(torch.arange(i * img_tokens, (i + 1) * img_tokens, device=device))
        parts.append(torch.arange(base + text.offsets[i], base + text.offsets[i + 1], device=device))
    return torch.cat(parts)


BACKENDS: dict[str, AttentionFn] = {"sdpa": sdpa_attention, "flash": flash_attention}
