"""Joint attention over [image, text] for samples whose texts differ in length, without a mask.

Legend: B samples, S image tokens a sample, T text tokens of all samples, N image and text tokens of all samples,
H heads, D channels a head.

Samples are *joined*: image 0, text 0, image 1, text 1, ... along one axis, no padding. Each sample is
one contiguous view, so nothing of one sample can reach another, and no kernel needs a copy first.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from joyedit.models.rope import apply_rope, rotate_into
from joyedit.models.transfer import to_device

Packed = tuple[Tensor, Tensor]
"""Both streams of all samples: image (B, S, H, D) and text (T, H, D), the texts one after the other."""


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Lengths of the packed texts, one a sample."""

    lengths: tuple[int, ...]
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int]) -> TextLengths:
        return cls(tuple(lengths), tuple(itertools.accumulate(lengths, initial=0)))

    @property
    def total(self) -> int:
        return self.offsets[-1]

    def sample_of_token(self, device: torch.device) -> Tensor:
        """Index of the sample that each packed token belongs to: (T,), int64."""
        counts = torch.tensor(self.lengths, device=device)
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=device), counts)


@dataclass(frozen=True, slots=True)
class Spans:
    """Tokens of each sample in the joined queries, and in the joined keys and values.

    There may be fewer queries than keys: what nobody reads has no query. `trimmed`: only the target's tokens have one.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    trimmed: bool = False


AttentionFn = Callable[[Tensor, Tensor, Tensor, Spans], list[Tensor]]
"""Joined query (Nq, H, D), key and value (Nk, H, D) -> each sample's output, (Lq_i, H, D)."""


def join(img: Tensor, txt: Tensor, lengths: Sequence[int]) -> Tensor:
    """(B, S, ...) and packed (T, ...) -> (N, ...): image 0, text 0, image 1, text 1, ..."""
    pairs = zip(img.unbind(0), txt.split(list(lengths)), strict=True)
    return torch.cat([part for pair in pairs for part in pair])


def separate(samples: Sequence[Tensor], img_tokens: int) -> Packed:
    """The inverse, from one tensor a sample. A single sample is not copied."""
    if len(samples) == 1:
        return samples[0][:img_tokens][None], samples[0][img_tokens:]
    return torch.stack([x[:img_tokens] for x in samples]), torch.cat([x[img_tokens:] for x in samples])


class JointSequences:
    """The image and text tokens of each sample as one sequence. All blocks of one forward share it."""

    def __init__(self, attention: AttentionFn, lengths: tuple[int, ...], pe: tuple[Tensor, Tensor]) -> None:
        """`lengths`: text tokens of each sample. `pe`: cosine and sine (S, D / 2) of the image tokens, fp32."""
        self.attention = attention
        self.lengths = lengths
        self.pe = pe

    def join(self, img: Tensor, txt: Tensor, *, rotate: bool = False, target: int | None = None) -> Any:
        """(B, S, H, D) and (T, H, D) -> (N, H, D). `rotate` applies the rotary positions to the image tokens.

        With `target`, img holds the first `target` tokens of each sample and txt none.
        """
        if rotate:
            img = apply_rope(img, self.pe[0][:target], self.pe[1][:target])
        return join(img, txt, self.text_tokens(target))

    def attend(self, query: Any, key: Any, value: Any, target: int | None = None) -> Packed:
        """Attention of joined query, key and value: image (B, S, H, D) and text (T, H, D).

        With `target`, the query was joined with it, and so many image tokens a sample and no text come out.
        """
        whole = tuple(len(self.pe[0]) + length for length in self.lengths)
        if target is None:
            return separate(self.attention(query, key, value, Spans(whole, whole)), len(self.pe[0]))
        return separate(self.attention(query, key, value, Spans((target,) * len(whole), whole, trimmed=True)), target)

    def text_tokens(self, target: int | None) -> tuple[int, ...]:
        """Text tokens of each sample that have a query."""
        return self.lengths if target is None else (0,) * len(self.lengths)


class InPlaceSequences(JointSequences):
    """The same, where each value is written once, where the attention reads it. It has no gradient."""

    def join(self, img: Tensor, txt: Tensor, *, rotate: bool = False, target: int | None = None) -> Tensor:
        lengths = self.text_tokens(target)
        joined = img.new_empty(img.shape[0] * img.shape[1] + len(txt), *img.shape[2:])
        parts = joined.split([tokens for length in lengths for tokens in (img.shape[1], length)])
        for sample, part in zip(img, parts[::2], strict=True):
            if rotate:
                rotate_into(part, sample, self.pe[0][:target], self.pe[1][:target])
            else:
                part.copy_(sample)
        for text, part in zip(txt.split(list(lengths)), parts[1::2], strict=True):
            part.copy_(text)
        return joined


def sdpa_attention(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
    """Through torch's scaled_dot_product_attention: one call for neighbours of equal lengths."""
    out: list[Tensor] = []
    q_start = k_start = 0
    for count, q_tokens, k_tokens in _runs(spans):
        q_end, k_end = q_start + count * q_tokens, k_start + count * k_tokens
        q = query[q_start:q_end].unflatten(0, (count, q_tokens))
        k, v = (x[k_start:k_end].unflatten(0, (count, k_tokens)) for x in (key, value))
        joint = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
        out += joint.transpose(1, 2).unbind(0)
        q_start, k_start = q_end, k_end
    return out


def _runs(spans: Spans) -> Iterator[tuple[int, int, int]]:
    """Neighbours of equal lengths: how many, and their tokens of queries and of keys."""
    for (q_tokens, k_tokens), same in itertools.groupby(zip(spans.queries, spans.keys, strict=True)):
        yield len(list(same)), q_tokens, k_tokens


def _sdpa_by(backend: SDPBackend) -> AttentionFn:
    """`sdpa_attention` held to one of torch's kernels; RuntimeError where that cannot serve."""

    def attend(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        with sdpa_kernel(backend):
            return sdpa_attention(query, key, value, spans)

    return attend


def _varlen_by(name: str) -> AttentionFn:
    """All samples in one call of a variable-length kernel; ImportError where it is not installed."""

    def attend(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
        bounds = [_bounds(lengths, query.device) for lengths in (spans.queries, spans.keys)]
        words = zip(VARLEN[name][2], (*bounds, max(spans.queries), max(spans.keys)), strict=True)
        out = varlen_kernel(name)(query, key, value, **dict(words))
        # Some releases of flash-attn give the log-sum-exp beside the output.
        joined: Tensor = out[0] if isinstance(out, tuple) else out
        return list(joined.split(spans.queries))

    return attend


@functools.lru_cache(maxsize=256)
def _bounds(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each sample begins, and the end of the last: int32. Kept, as every block asks for the same."""
    bounds = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    return to_device(bounds, device)


_FLASH_WORDS = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")

VARLEN = {
    "fa4": ("flash_attn.cute", "flash_attn_varlen_func", _FLASH_WORDS),
    "fa3": ("flash_attn_interface", "flash_attn_varlen_func", _FLASH_WORDS),
    "fa2": ("flash_attn", "flash_attn_varlen_func", _FLASH_WORDS),
    "varlen": ("torch.nn.attention.varlen", "varlen_attn", ("cu_seq_q", "cu_seq_k", "max_q", "max_k")),
}
"""Module, function, and its words for the bounds and longest of queries and keys, of each variable-length kernel:
FlashAttention 4, 3 and 2, torch's own (>= 2.10)."""


@functools.cache
def varlen_kernel(name: str) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """A function of q, k, v and the words in VARLEN. Raises ImportError where it is missing."""
    module, function, _ = VARLEN[name]
    if name == "fa4":  # its compiler warns of its own parts
        warnings.filterwarnings("ignore", category=UserWarning, module="cutlass")
    try:
        kernel: Callable[..., Tensor] = getattr(importlib.import_module(module), function)
    except ImportError:
        raise
    # Another package of that name, or one for another torch or driver: these raise whatever they like.
    except Exception as error:
        raise ImportError(f"{module}.{function} cannot be used ({error})") from error
    return kernel


BACKENDS: dict[str, AttentionFn] = {
    **{name: _varlen_by(name) for name in VARLEN},
    "cudnn": _sdpa_by(SDPBackend.CUDNN_ATTENTION),
    "flash-sdpa": _sdpa_by(SDPBackend.FLASH_ATTENTION),
    "sdpa": sdpa_attention,
}
