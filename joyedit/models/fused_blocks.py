"""The DiT's blocks with Triton kernels between the matrix products, for inference on CUDA.

The same sums as `DoubleBlock.forward`, divided into other kernels: one for the residuals and the norm after them, the
next block's first norm included; one for RMS norm, rotation and joining; GELU is the epilogue of its product.

Legend: B samples, S image tokens a sample, T text tokens of all samples, N image and text tokens of all samples,
H heads, D channels a head, M = H * D hidden channels.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from joyedit.models import triton_kernels as kernels
from joyedit.models.attention import Spans, TextLengths
from joyedit.models.blocks import MLP, NORM_EPS, DoubleBlock, JointAttention
from joyedit.models.quantised import AnyLinear, QuantisedLinear, dtype_of_rows
from joyedit.models.quantised_rows import Quantised, Rows
from joyedit.models.quantising_kernels import quantise_rows
from joyedit.models.shared_sequences import AttentionOverRanks
from joyedit.models.strategies import ForwardPass, InPlaceBlocks, RunBlock

LARGE = 2048
"""From so many image tokens a sample's own product fills a GPU: samples are not copied together first."""
FILLING = 4096
"""From so many the products of its text, some eighth as long, fill it too, and company gains nothing."""
MOST_ELEMENTS = 2**31
"""Most elements of query, key and value together: attention kernels may count in 32 bits."""

Heads = tuple[Tensor, Tensor, Tensor]
"""Query (Nq, H, D), key and value (N, H, D): in a sample, the image's rows come before those of its text."""


def fused_blocks(forward: ForwardPass) -> RunBlock:
    """The strategy: fused blocks where all samples have one timestep, else the plain ones."""
    if forward.img_mods.shape[2] > 1:
        return InPlaceBlocks(forward)
    # Between ranks, one sample's exchanges hide behind another's work, which is worth more.
    least = LARGE if isinstance(forward.attend, AttentionOverRanks) else FILLING
    one_by_one = len(forward.text.lengths) > 1 and len(forward.pe[0]) >= least
    return SampleBlocks(forward) if one_by_one else FusedBlocks(forward)


class SampleBlocks:
    """Runs each sample's blocks by themselves, where one sample fills a GPU.

    So a sample's numbers are those that it has alone, whatever its company: a product of more rows may be another
    kernel, which rounds otherwise. Samples with the same image share what the first block makes of it before the
    attention. And where ranks share sequences, one sample's exchanges run beside the products and the attention of
    another. The samples' streams stay here from block to block; the last block gives them back.
    """

    def __init__(self, forward: ForwardPass) -> None:
        lengths, attend = forward.text.lengths, forward.attend
        self._lengths = lengths
        self._streams: list[tuple[Tensor, Tensor]] = []
        self._samples: list[FusedBlocks] = []
        first_of: dict[int, FusedBlocks] = {}
        for number, length in enumerate(lengths):
            own = attend.of_sample(number) if isinstance(attend, AttentionOverRanks) else attend
            image = forward.images[number] if forward.images else number
            blocks = FusedBlocks(replace(forward, attend=own, text=TextLengths.of([length])), first_of.get(image))
            first_of.setdefault(image, blocks)
            self._samples.append(blocks)

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]:
        """The streams after the block with `target`, and what was given after every other block."""
        streams = self._streams or list(zip(img.split(1), txt.split(list(self._lengths)), strict=True))
        parts = [
            sample.parts(block, layer, *stream, target) for sample, stream in zip(self._samples, streams, strict=True)
        ]
        del streams
        self._streams = []
        for _ in range(2):  # each to its attention, then each to what follows that
            for part in parts:
                next(part)
        self._streams = [_result(part) for part in parts]
        if target is None:
            return img, txt
        return torch.cat([img for img, _ in self._streams]), txt


class FusedBlocks:
    """Runs the blocks of one forward in order. Each block also computes the first norm of the next one."""

    def __init__(self, forward: ForwardPass, like: FusedBlocks | None = None) -> None:
        """`like` runs each first part (below) before this one, for a sample with the same image."""
        self._forward = forward
        self._like = like
        self._joined: Heads | None = None
        whole = tuple(len(forward.pe[0]) + length for length in forward.text.lengths)
        self._whole = whole
        self._normed: tuple[Rows, Rows] | None = None

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]:
        """img (B, S, M) and packed txt (T, M) after the block. With `target`, (B, target, M) and txt as it was."""
        parts = self.parts(block, layer, img, txt, target)
        del img, txt
        next(parts)
        next(parts)
        return _result(parts)

    def parts(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> Generator[None, None, tuple[Tensor, Tensor]]:
        """The same in three parts: up to the attention, the attention, and what follows it."""
        forward, attn, whole = self._forward, block.attn, self._whole
        img_mod, txt_mod = forward.mods(layer)
        if self._normed is None:
            self._normed = _first_norm(attn.img_attn_qkv, img, img_mod), _first_norm(attn.txt_attn_qkv, txt, txt_mod)
        img_normed, txt_normed = self._normed
        self._normed = None
        image = self._like._joined if layer == 0 and self._like is not None else None
        joined = self._joined = _joined(attn, img_normed, txt_normed, forward, target, image)
        spans = Spans(whole, whole) if target is None else Spans((target,) * len(whole), whole, trimmed=True)
        attend = forward.attend
        if isinstance(attend, AttentionOverRanks):
            coming = attend.start(*joined, spans)
            yield
            self._joined = None
            leaving = attend.attend(coming)
            yield
            samples = attend.finish(leaving)
            del coming, leaving
        else:
            yield
            self._joined = None
            samples = attend(*joined, spans)
            yield
        if target is not None:
            del joined, img_normed, txt_normed  # The MLP needs the memory.
            img = img[:, :target]
            img_out = _linear_of(attn.img_attn_proj, samples).view_as(img)
            mlp = block.img_mlp
            normed = _norm(mlp.linears[0], img, [(img_out, img_mod[2])], img_mod[3], img_mod[4])
            img = torch.addcmul(torch.addcmul(img, img_mod[2], img_out), img_mod[5], _mlp(mlp, normed))
            return img, txt
        img_out, txt_out = _projected(attn, samples, img.shape[1])
        del joined, samples, img_normed, txt_normed  # The MLPs need the memory.
        img_next, txt_next = forward.mods(layer + 1)
        reader = forward.blocks[layer + 1].attn
        img, img_normed = _rest(block.img_mlp, img, img_out, img_mod, img_next, reader.img_attn_qkv)
        txt, txt_normed = _rest(block.txt_mlp, txt, txt_out, txt_mod, txt_next, reader.txt_attn_qkv)
        self._normed = img_normed, txt_normed
        return img, txt


def _result(parts: Generator[None, None, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What the last part gives."""
    try:
        next(parts)
    except StopIteration as end:
        out: tuple[Tensor, Tensor] = end.value
        return out
    raise AssertionError("a block has three parts")


def _first_norm(reader: nn.Module, x: Tensor, mod: Tensor) -> Rows:
    return _norm(reader, x, (), mod[0], mod[1])


def _norm(reader: nn.Module, x: Tensor, updates: Sequence[kernels.Update], shift: Tensor, scale: Tensor) -> Rows:
    """`kernels.norm_modulate`, as the linear layer `reader` takes it."""
    dtype = dtype_of_rows(reader)
    if dtype is None:
        return kernels.norm_modulate(x, updates, shift, scale, NORM_EPS)
    return kernels.quantised_norm_modulate(x, updates, shift, scale, NORM_EPS, dtype)


def _rest(
    mlp: MLP, x: Tensor, attended: Tensor, mod: Tensor, following: Tensor, reader: nn.Module
) -> tuple[Tensor, Rows]:
    """A stream after the attention: itself at the block's end, and the next block's input, as `reader` takes it.

    Both updates are added at once, so the stream between attention and MLP is not stored and is rounded once a block.
    These roundings are most of what bf16 loses.
    """
    normed = _norm(mlp.linears[0], x, [(attended, mod[2])], mod[3], mod[4])
    updates = [(attended, mod[2]), (_mlp(mlp, normed), mod[5])]
    dtype = dtype_of_rows(reader)
    if dtype is None:
        return kernels.residual_norm_modulate(x, updates, following[0], following[1], NORM_EPS)
    return kernels.quantised_residual_norm_modulate(x, updates, following[0], following[1], NORM_EPS, dtype)


def _mlp(mlp: MLP, x: Rows) -> Tensor:
    """The MLP; what its second layer quantises is quantised with the activation."""
    first, last = mlp.linears
    dtype = dtype_of_rows(last)
    if dtype is None:
        plain: Tensor = last(mlp.hidden(x)) if isinstance(x, Quantised) else mlp(x)
        return plain
    gelu = isinstance(first, QuantisedLinear)
    hidden: Tensor = first(x) if gelu else mlp.hidden(x)
    rows = quantise_rows(hidden.flatten(0, -2), dtype, gelu=gelu)
    out: Tensor = last(rows).view(*hidden.shape[:-1], -1)
    return out


def _joined(
    attn: JointAttention,
    img: Rows,
    txt: Rows,
    forward: ForwardPass,
    target: int | None,
    image: Heads | None,
) -> Heads:
    """Query, key and value of normed img and txt.

    With `target`, only the first `target` image tokens of each sample have a query. `image`: those of another sample
    with the same image, which this one may copy; it is the only sample then.
    """
    lengths, pe = forward.text.lengths, forward.pe
    tokens = len(pe[0])
    rows = _sources(tokens, lengths, pe[0].device)
    few = len(rows) * attn.img_attn_qkv.out_features < MOST_ELEMENTS
    if target is None and tokens >= LARGE and few:
        return _joined_in_place(attn, img, txt, forward, rows, image)
    img_parts, txt_parts = attn.projections(img, txt, target)
    asking = rows if target is None else _sources(target, (0,) * len(lengths), rows.device)
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
    img: Rows,
    txt: Rows,
    forward: ForwardPass,
    rows: Tensor,
    image: Heads | None,
) -> Heads:
    """As `_joined`: one product a sample writes where the attention reads. Query, key and value are strided."""
    lengths, pe = forward.text.lengths, forward.pe
    bias, tokens = attn.img_attn_qkv.bias, len(pe[0])
    qkv = bias.new_empty(len(rows), 3, attn.num_heads, attn.img_attn_qkv.in_features // attn.num_heads)
    places = qkv.flatten(1).split([n for length in lengths for n in (tokens, length)])
    images: Sequence[Rows] = () if image is not None else img.samples() if isinstance(img, Quantised) else img.unbind(0)
    for linear, samples, out in (
        (attn.img_attn_qkv, images, places[::2] if image is None else ()),
        (
            attn.txt_attn_qkv,
            txt.parts(lengths) if isinstance(txt, Quantised) else txt.split(list(lengths)),
            places[1::2],
        ),
    ):
        for sample, place in zip(samples, out, strict=True):
            _linear_into(linear, sample, place)
    norms = (attn.img_attn_q_norm, attn.img_attn_k_norm, attn.txt_attn_q_norm, attn.txt_attn_k_norm)
    ready = 0 if image is None else tokens
    kernels.norm_heads_(qkv[ready:], rows[ready:], tokens, [norm.weight for norm in norms], pe, NORM_EPS)
    query, key, value = qkv.unbind(1)
    if image is not None:
        for part, given in zip((query, key, value), image, strict=True):
            part[:tokens].copy_(given[:tokens])
    return query, key, value


def _linear_into(linear: AnyLinear, x: Rows, out: Tensor) -> None:
    """A linear layer of (R, K) into (R, N)."""
    if isinstance(linear, QuantisedLinear):
        linear(x, out)
    else:
        assert isinstance(x, Tensor)
        torch.addmm(linear.bias, x, linear.weight.t(), out=out)


@functools.lru_cache(maxsize=8)
def _sources(img_tokens: int, lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """`kernels.sources`, kept: it is the same for every block."""
    return kernels.sources(img_tokens, lengths, device)


def _projected(attn: JointAttention, samples: Sequence[Tensor], img_tokens: int) -> tuple[Tensor, Tensor]:
    """The output projections of each sample's attention (L_i, H, D): (B, S, M) and (T, M)."""
    img = _linear_of(attn.img_attn_proj, [x[:img_tokens] for x in samples])
    parts = [x[img_tokens:].flatten(1) for x in samples]
    dtype = dtype_of_rows(attn.txt_attn_proj)
    txt: Tensor = attn.txt_attn_proj(torch.cat(parts) if dtype is None else _quantised(parts, dtype))
    return img.unflatten(0, (len(samples), img_tokens)), txt


def _quantised(parts: Sequence[Tensor], dtype: torch.dtype) -> Quantised:
    """The rows of all parts, (R_i, M) each, together."""
    lengths = [len(part) for part in parts]
    values = torch.empty(sum(lengths), parts[0].shape[1], dtype=dtype, device=parts[0].device)
    out = Quantised(values, torch.empty(sum(lengths), 1, device=parts[0].device))
    for part, place in zip(parts, out.parts(lengths), strict=True):
        quantise_rows(part, dtype, out=place)
    return out


def _linear_of(linear: AnyLinear, parts: Sequence[Tensor]) -> Tensor:
    """A linear layer of the rows of all parts, each (L_i, H, D): (sum of L_i, M)."""
    rows = [part.flatten(1) for part in parts]
    lengths, dtype = [len(part) for part in parts], dtype_of_rows(linear)
    small = len(parts) == 1 or lengths[0] < LARGE
    if dtype is not None:
        quantised = _quantised(rows, dtype)
        given: Sequence[Rows] = [quantised] if small else quantised.parts(lengths)
    else:
        given = [torch.cat(rows) if len(parts) > 1 else rows[0]] if small else rows
    if small:
        together: Tensor = linear(given[0])
        return together
    out = parts[0].new_empty(sum(lengths), linear.out_features)
    for part, place in zip(given, out.split(lengths), strict=True):
        _linear_into(linear, part, place)
    return out
