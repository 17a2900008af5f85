"""Triton kernels for what lies between the matrix products: norms, modulation, gates, rotation, activation.

The products run at the chip's rate, what lies between them at that of its memory, so each kernel reads
and writes every value once. They are for CUDA and for inference: none has a gradient. Sums are in fp32, and
values are rounded where the plain networks round them or less often.

Legend: B samples, S image tokens a sample, T text tokens of all samples, N image and text tokens of all
samples together, H heads, D channels a head, M hidden channels, C channels of a picture.

Triton comes with torch where torch is built for CUDA; elsewhere importing this raises ImportError.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from joyedit.models.quantised_rows import MOST, Quantised
from joyedit.models.quantising_kernels import store_quantised

WIDEST = 32768
"""Columns of a softmax that one program holds."""
WIDE_SCORES = 2**27
"""Scores that are there at once, in fp32 and as weights in bf16: 0.75 GiB."""


@triton.jit
def _residual_norm(
    x_ptr, first_ptr, first_gate_ptr, second_ptr, second_gate_ptr, shift_ptr, scale_ptr, sum_ptr, out_ptr,
    row_scale_ptr, columns, rows_a_sample, sample_stride, eps,
    UPDATES: tl.constexpr, KEPT: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    place = row // rows_a_sample * sample_stride + row % rows_a_sample * columns + column
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if UPDATES > 0:
        update = tl.load(first_ptr + row * columns + column, mask=inside, other=0.0).to(tl.float32)
        x += tl.load(first_gate_ptr + column, mask=inside, other=0.0).to(tl.float32) * update
    if UPDATES > 1:
        update = tl.load(second_ptr + row * columns + column, mask=inside, other=0.0).to(tl.float32)
        x += tl.load(second_gate_ptr + column, mask=inside, other=0.0).to(tl.float32) * update
    if KEPT:
        tl.store(sum_ptr + row * columns + column, x.to(sum_ptr.dtype.element_ty), mask=inside)
    centred = tl.where(inside, x - tl.sum(x) / columns, 0.0)
    normed = centred / tl.sqrt(tl.sum(centred * centred) / columns + eps)
    shift = tl.load(shift_ptr + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + column, mask=inside, other=0.0).to(tl.float32)
    out = normed * scale + shift
    if MOST > 0:
        out = tl.where(inside, out, 0.0)
        store_quantised(out, out_ptr + row * columns + column, row_scale_ptr + row, inside, MOST)
    else:
        tl.store(out_ptr + row * columns + column, out.to(out_ptr.dtype.element_ty), mask=inside)


Update = tuple[Tensor, Tensor]
"""What is added to a residual stream (..., M), contiguous, and its gate (M,)."""


def norm_modulate(x: Tensor, updates: Sequence[Update], shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine of x plus its gated `updates`, at most two, times `scale` plus `shift`, each (M,).

    `x`: (T, M), or (B, S, M) of which a sample's tokens may be the first of more.
    """
    return _launch_norm(x, updates, shift, scale, eps, kept=False)[1]


def quantised_norm_modulate(
    x: Tensor, updates: Sequence[Update], shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
) -> Quantised:
    """`norm_modulate`, each of its rows quantised to `dtype` before it is rounded."""
    out = _quantised_like(x, dtype)
    _launch_norm(x, updates, shift, scale, eps, kept=False, out=out)
    return out


def residual_norm_modulate(
    x: Tensor, updates: Sequence[Update], shift: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x plus its gated `updates`, rounded once, and `norm_modulate` of the sum before it was rounded.

    Shapes as there; both results are of x's shape and dtype, contiguous.
    """
    return _launch_norm(x, updates, shift, scale, eps, kept=True)


def quantised_residual_norm_modulate(
    x: Tensor, updates: Sequence[Update], shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Quantised]:
    """`residual_norm_modulate`, each row of its second result quantised to `dtype` before it is rounded."""
    out = _quantised_like(x, dtype)
    return _launch_norm(x, updates, shift, scale, eps, kept=True, out=out)[0], out


def _quantised_like(x: Tensor, dtype: torch.dtype) -> Quantised:
    values = torch.empty(x.shape, dtype=dtype, device=x.device)
    return Quantised(values, torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device))


def _launch_norm(
    x: Tensor,
    updates: Sequence[Update],
    shift: Tensor,
    scale: Tensor,
    eps: float,
    *,
    kept: bool,
    out: Quantised | None = None,
) -> tuple[Tensor, Tensor]:
    assert len(updates) <= 2
    columns = x.shape[-1]
    rows_a_sample, sample_stride = x.shape[-2], x.stride(0) if x.ndim == 3 else 0
    values = torch.empty(x.shape, dtype=x.dtype, device=x.device) if out is None else out.values
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device) if kept else x
    block = triton.next_power_of_2(columns)
    (first, second) = [*updates, (x, shift), (x, shift)][:2]  # where there is none, it is not read
    _residual_norm[(x.numel() // columns,)](
        x, *first, *second, shift, scale, total, values,
        x if out is None else out.scales, columns, rows_a_sample, sample_stride, eps,
        UPDATES=len(updates), KEPT=kept, MOST=0.0 if out is None else MOST[out.values.dtype],
        BLOCK=block, num_warps=max(1, min(8, block // 512)),
    )  # fmt: skip
    return total, values


@triton.jit
def _normed(x, weight_ptr, eps, D: tl.constexpr):
    """RMS norm of each row of (H, D), times a weight a channel; fp32."""
    weight = tl.load(weight_ptr + tl.arange(0, D)).to(tl.float32)[None, :]
    wide = x.to(tl.float32)
    return wide / tl.sqrt(tl.sum(wide * wide, axis=1) / D + eps)[:, None] * weight


@triton.jit
def _rotated(x, cos_ptr, sin_ptr, position, H: tl.constexpr, D: tl.constexpr):
    """Adjacent channels of (H, D), fp32, turned by the angles of a position."""
    pair = position * (D // 2) + tl.arange(0, D // 2)
    cos = tl.load(cos_ptr + pair)[None, :]
    sin = tl.load(sin_ptr + pair)[None, :]
    real, imag = tl.split(tl.reshape(x, (H, D // 2, 2)))
    return tl.reshape(tl.join(real * cos - imag * sin, imag * cos + real * sin), (H, D))


@triton.jit
def _join(
    img_ptr, txt_ptr, out_ptr, source_ptr, img_weight_ptr, txt_weight_ptr, cos_ptr, sin_ptr,
    img_tokens, img_stride, txt_stride, eps,
    HEADS: tl.constexpr, H: tl.constexpr, D: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(source_ptr + row).to(tl.int64)
    head = tl.arange(0, H)[:, None]
    offset = head * D + tl.arange(0, D)[None, :]
    inside = head < HEADS
    if source >= 0:
        x = tl.load(img_ptr + source * img_stride + offset, mask=inside, other=0.0)
        if NORMED:
            wide = _normed(x, img_weight_ptr, eps, D)
            x = _rotated(wide, cos_ptr, sin_ptr, source % img_tokens, H, D).to(out_ptr.dtype.element_ty)
    else:
        x = tl.load(txt_ptr + (-1 - source) * txt_stride + offset, mask=inside, other=0.0)
        if NORMED:
            x = _normed(x, txt_weight_ptr, eps, D).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * HEADS * D + offset, x, mask=inside)


def join_heads(
    img: Tensor,
    txt: Tensor,
    sources: Tensor,
    heads: int,
    norm: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Image and text rows, joined as `sources` says: (B, S, M) and (T, M) -> (N, H, D).

    Both may be columns of a wider tensor. `norm`: the RMS norm's weights (D,) of image and text, and cosine
    and sine (S, D / 2), fp32, that rotate the image's rows; None copies.
    """
    dim = img.shape[-1] // heads
    out = img.new_empty(len(sources), heads, dim)
    img_weight, txt_weight, cos, sin = norm or (img, txt, img, img)
    _join[(len(sources),)](
        img, txt, out, sources, img_weight, txt_weight, cos, sin,
        img.shape[1], img.stride(1), txt.stride(0), eps,
        HEADS=heads, H=triton.next_power_of_2(heads), D=dim, NORMED=norm is not None, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _norm_heads(
    qkv_ptr, source_ptr, img_q_ptr, img_k_ptr, txt_q_ptr, txt_k_ptr, cos_ptr, sin_ptr, img_tokens, eps,
    HEADS: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    is_key = tl.program_id(1)
    source = tl.load(source_ptr + row).to(tl.int64)
    head = tl.arange(0, H)[:, None]
    place = (row * 3 + is_key) * HEADS * D + head * D + tl.arange(0, D)[None, :]
    inside = head < HEADS
    x = tl.load(qkv_ptr + place, mask=inside, other=0.0)
    if source >= 0:
        wide = _normed(x, img_k_ptr if is_key else img_q_ptr, eps, D)
        x = _rotated(wide, cos_ptr, sin_ptr, source % img_tokens, H, D).to(qkv_ptr.dtype.element_ty)
    else:
        x = _normed(x, txt_k_ptr if is_key else txt_q_ptr, eps, D).to(qkv_ptr.dtype.element_ty)
    tl.store(qkv_ptr + place, x, mask=inside)


def norm_heads_(
    qkv: Tensor, sources: Tensor, img_tokens: int, weights: Sequence[Tensor], table: tuple[Tensor, Tensor], eps: float
) -> None:
    """`join_heads` of query and key in place, where a product has written its rows joined already.

    `qkv`: (N, 3, H, D). `weights`: (D,) each, of the image's query and key, then of the text's. `table`: cosine
    and sine (S, D / 2), fp32, with S = `img_tokens`.
    """
    rows, _, heads, dim = qkv.shape
    _norm_heads[(rows, 2)](
        qkv, sources, *weights, *table, img_tokens, eps,
        HEADS=heads, H=triton.next_power_of_2(heads), D=dim, num_warps=4,
    )  # fmt: skip


def sources(img_tokens: int, lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where each joined row comes from: an image row, or -1 - a text row. (N,), int32.

    Made on the device: a copy from the host would wait for all that the device was given before.
    """
    parts = []
    text = 0
    for sample, length in enumerate(lengths):
        parts.append(torch.arange(sample * img_tokens, (sample + 1) * img_tokens, dtype=torch.int32, device=device))
        parts.append(torch.arange(-1 - text, -1 - text - length, -1, dtype=torch.int32, device=device))
        text += length
    return torch.cat(parts)


@triton.jit
def _norm_silu(
    x_ptr, bias_ptr, residual_ptr, gamma_ptr, out_ptr,
    pixels, channels, floor,
    BIASED: tl.constexpr, RESIDUAL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.arange(0, BLOCK)[None, :]
    known = channel < channels
    inside = (row < pixels) & known
    place = row * channels + channel
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        x += tl.load(bias_ptr + channel, mask=known, other=0.0).to(tl.float32)
    if RESIDUAL:
        x += tl.load(residual_ptr + place, mask=inside, other=0.0).to(tl.float32)
    else:
        gamma = tl.load(gamma_ptr + channel, mask=known, other=0.0).to(tl.float32)
        mean = tl.sum(x * x, axis=1) / channels
        x = x / tl.sqrt(mean + floor)[:, None] * gamma
        x = x / (1.0 + tl.exp(-x))
    tl.store(out_ptr + place, x.to(out_ptr.dtype.element_ty), mask=inside)


def norm_silu(x: Tensor, gamma: Tensor, floor: float, bias: Tensor | None = None) -> Tensor:
    """SiLU of the RMS norm over the channels of `x + bias`: (B, C, H, W) -> the same, channels last."""
    return _launch_silu(x, bias, None, gamma, floor)


def biased_sum(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    """`x + bias + residual`, (B, C, H, W) channels last."""
    return _launch_silu(x, bias, residual, None, 0.0)


def _launch_silu(x: Tensor, bias: Tensor | None, residual: Tensor | None, gamma: Tensor | None, floor: float) -> Tensor:
    _refuse_planes(x, residual)
    channels = x.shape[1]
    pixels = x.numel() // channels
    out = torch.empty_like(x)
    rows, block = _tile(channels)
    _norm_silu[(triton.cdiv(pixels, rows),)](
        x, x if bias is None else bias, x if residual is None else residual, x if gamma is None else gamma, out,
        pixels, channels, floor,
        BIASED=bias is not None, RESIDUAL=residual is not None, ROWS=rows, BLOCK=block,
        num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _double(x_ptr, out_ptr, pixels, height, width, channels, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    line = row // width
    source = (line // height * (height // 2) + line % height // 2) * (width // 2) + row % width // 2
    channel = tl.arange(0, BLOCK)[None, :]
    inside = (row < pixels)[:, None] & (channel < channels)
    x = tl.load(x_ptr + source.to(tl.int64)[:, None] * channels + channel, mask=inside, other=0.0)
    tl.store(out_ptr + row.to(tl.int64)[:, None] * channels + channel, x, mask=inside)


def double(x: Tensor) -> Tensor:
    """Each pixel four times: (B, C, H, W) -> (B, C, 2H, 2W), channels last."""
    _refuse_planes(x)
    batch, channels, height, width = x.shape
    size = (batch, channels, 2 * height, 2 * width)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows, block = _tile(channels)
    pixels = out.numel() // channels
    _double[(triton.cdiv(pixels, rows),)](
        x, out, pixels, 2 * height, 2 * width, channels, ROWS=rows, BLOCK=block, num_warps=4
    )
    return out


@triton.jit
def _softmax(x_ptr, out_ptr, columns, scale, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    x = tl.load(x_ptr + row * columns + column, mask=inside, other=-float("inf")) * scale
    x = tl.exp(x - tl.max(x))
    tl.store(out_ptr + row * columns + column, (x / tl.sum(x)).to(out_ptr.dtype.element_ty), mask=inside)


def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one head that is too wide for fused kernels: (B, N, C) each -> (B, N, C).

    By products with fp32 scores, some rows at a time. N is at most WIDEST.
    """
    out = q.new_empty(q.shape)
    rows = max(1, WIDE_SCORES // q.shape[1])
    for query, key, value, result in zip(q, k, v, out, strict=True):
        for part, place in zip(query.split(rows), result.split(rows), strict=True):
            torch.mm(_attention_weights(part, key), value, out=place)
    return out


def _attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """Softmax of the scaled scores of (R, C) and (N, C): (R, N) in the dtype of the query."""
    if query.is_cuda and query.dtype != torch.float32:
        scores = torch.mm(query, key.t(), out_dtype=torch.float32)
    else:
        scores = torch.mm(query.float(), key.t().float())
    weights = torch.empty(scores.shape, dtype=query.dtype, device=query.device)
    block = triton.next_power_of_2(len(key))
    _softmax[(len(query),)](
        scores, weights, len(key), query.shape[1] ** -0.5, BLOCK=block, num_warps=max(4, min(16, block // 1024))
    )
    return weights


def _refuse_planes(*pictures: Tensor | None) -> None:
    if not all(x is None or x.is_contiguous(memory_format=torch.channels_last) for x in pictures):
        raise ValueError("the channels of a pixel have to lie next to each other")


def _tile(channels: int) -> tuple[int, int]:
    """Pixels and channels that one program takes."""
    block = triton.next_power_of_2(channels)
    return max(1, 4096 // block), block
