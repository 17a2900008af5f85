"""The DiT's blocks with Triton kernels between the matrix products, for inference on CUDA.

The same sums as `DoubleBlock`, cut elsewhere: residuals and the norm after them are one kernel, the next
block's first norm included; RMS norm, rotation and joining are one; GELU is the epilogue of its product.

Legend: B samples, S image tokens a sample, T text tokens of all samples, H heads, D channels a head, M = H * D
hidden channels, L blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from joyedit.models import triton_kernels as kernels
from joyedit.models.attention import AttentionFn, Spans
from joyedit.models.blocks import MLP, NORM_EPS, DoubleBlock, JointAttention

LARGE = 2048
"""Rows of an image from which its product alone fills a GPU: then samples are not copied together first."""
MOST_ELEMENTS = 2**31
"""Of query, key and value side by side: attention kernels may count in 32 bits."""


def run_blocks(
    blocks: Sequence[DoubleBlock],
    attend: AttentionFn,
    img: Tensor,
    txt: Tensor,
    img_mods: Tensor,
    txt_mods: Tensor,
    lengths: tuple[int, ...],
    pe: tuple[Tensor, Tensor],
    target: int,
) -> Tensor:
    """All blocks over img (B, S, M) and packed txt (T, M), for the first `target` image tokens: (B, target, M).

    `img_mods`, `txt_mods`: (L, 6, M), one vector for all tokens. `pe`: cosine and sine (S, D / 2), fp32.
    """
    whole = tuple(img.shape[1] + length for length in lengths)
    everything = Spans(whole, whole)
    img_normed = kernels.norm_modulate(img, (), img_mods[0, 0], img_mods[0, 1], NORM_EPS)
    txt_normed = kernels.norm_modulate(txt, (), txt_mods[0, 0], txt_mods[0, 1], NORM_EPS)
    for layer, block in enumerate(blocks[:-1]):
        img_mod, txt_mod, img_next, txt_next = (m[n] for n in (layer, layer + 1) for m in (img_mods, txt_mods))
        joined = _joined(block.attn, img_normed, txt_normed, lengths, pe, None)
        img_out, txt_out = _projected(block.attn, attend(*joined, everything), img.shape[1])
        del joined, img_normed, txt_normed  # the MLPs need the room
        img, img_normed = _rest(block.img_mlp, img, img_out, img_mod, img_next)
        txt, txt_normed = _rest(block.txt_mlp, txt, txt_out, txt_mod, txt_next)
    last, mod = blocks[-1], img_mods[-1]
    joined = _joined(last.attn, img_normed, txt_normed, lengths, pe, target)
    samples = attend(*joined, Spans((target,) * len(whole), whole))
    del joined, img_normed, txt_normed
    img = img[:, :target]
    img_out = _linear_of(last.attn.img_attn_proj, samples).view_as(img)
    img_normed = kernels.norm_modulate(img, [(img_out, mod[2])], mod[3], mod[4], NORM_EPS)
    return torch.addcmul(torch.addcmul(img, mod[2], img_out), mod[5], last.img_mlp(img_normed))


def _rest(mlp: MLP, x: Tensor, attended: Tensor, mod: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """A stream after the attention: itself at the block's end, and the next block's input.

    Between attention and MLP it is not kept: both updates are added at once, at the cost in bytes of adding
    one by one, and the stream is rounded once a block. Its roundings are most of what bf16 loses.
    """
    normed = kernels.norm_modulate(x, [(attended, mod[2])], mod[3], mod[4], NORM_EPS)
    updates = [(attended, mod[2]), (mlp(normed), mod[5])]
    return kernels.residual_norm_modulate(x, updates, following[0], following[1], NORM_EPS)


def _joined(
    attn: JointAttention,
    img: Tensor,
    txt: Tensor,
    lengths: tuple[int, ...],
    pe: tuple[Tensor, Tensor],
    target: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query (Nq, H, D), key and value (N, H, D) of normed img and txt. With `target`, only so many tokens ask."""
    rows = _sources(img.shape[1], lengths, img.device)
    few = len(rows) * attn.img_attn_qkv.out_features < MOST_ELEMENTS
    if target is None and img.shape[1] >= LARGE and few:
        return _joined_in_place(attn, img, txt, lengths, pe, rows)
    img_parts, txt_parts = attn.projections(img, txt, target)
    asking = rows if target is None else _sources(target, (0,) * len(lengths), img.device)
    norms = (
        (attn.img_attn_q_norm.weight, attn.txt_attn_q_norm.weight, *pe),
        (attn.img_attn_k_norm.weight, attn.txt_attn_k_norm.weight, *pe),
        None,
    )
    query, key, value = (
        kernels.join_heads(i, t, source, attn.num_heads, norm, NORM_EPS)
        for i, t, source, norm in zip(img_parts, txt_parts, (asking, rows, rows), norms, strict=True)
    )
    return query, key, value


def _joined_in_place(
    attn: JointAttention,
    img: Tensor,
    txt: Tensor,
    lengths: tuple[int, ...],
    pe: tuple[Tensor, Tensor],
    rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """A product for each sample writes its rows where attention reads them; query, key and value are strided."""
    qkv = img.new_empty(len(rows), 3, attn.num_heads, img.shape[2] // attn.num_heads)
    places = qkv.flatten(1).split([n for length in lengths for n in (img.shape[1], length)])
    for linear, samples, out in (
        (attn.img_attn_qkv, img.unbind(0), places[::2]),
        (attn.txt_attn_qkv, txt.split(list(lengths)), places[1::2]),
    ):
        for sample, place in zip(samples, out, strict=True):
            torch.addmm(linear.bias, sample, linear.weight.t(), out=place)
    norms = (attn.img_attn_q_norm, attn.img_attn_k_norm, attn.txt_attn_q_norm, attn.txt_attn_k_norm)
    kernels.norm_heads_(qkv, rows, img.shape[1], [norm.weight for norm in norms], pe, NORM_EPS)
    query, key, value = qkv.unbind(1)
    return query, key, value


@functools.lru_cache(maxsize=8)
def _sources(img_tokens: int, lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept, as every block asks for the same."""
    return kernels.sources(img_tokens, lengths, device)


def _projected(attn: JointAttention, samples: Sequence[Tensor], img_tokens: int) -> tuple[Tensor, Tensor]:
    """The output projections of each sample's attention (L_i, H, D): (B, S, M) and (T, M)."""
    img = _linear_of(attn.img_attn_proj, [x[:img_tokens] for x in samples])
    txt = attn.txt_attn_proj(torch.cat([x[img_tokens:].flatten(1) for x in samples]))
    return img.unflatten(0, (len(samples), img_tokens)), txt


def _linear_of(linear: nn.Linear, parts: Sequence[Tensor]) -> Tensor:
    """A linear layer of the rows of all parts, each (L_i, H, D): (sum of L_i, M)."""
    if len(parts) == 1 or len(parts[0]) < LARGE:
        together: Tensor = linear(torch.cat([x.flatten(1) for x in parts]) if len(parts) > 1 else parts[0].flatten(1))
        return together
    out = parts[0].new_empty(sum(map(len, parts)), linear.out_features)
    for part, rows in zip(parts, out.split([len(x) for x in parts]), strict=True):
        torch.addmm(linear.bias, part.flatten(1), linear.weight.t(), out=rows)
    return out
