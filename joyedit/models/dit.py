"""The diffusion transformer: double-stream blocks over image items and packed text.

Legend: B samples, S image tokens of all items of a sample, T text tokens of all samples together,
N image and text tokens together, H heads, D channels a head, M = H * D hidden channels, C latent
channels, h and w latent pixels.

The input is a list of items, [target, reference 1, reference 2, ...]; a text-to-image call has one
item, Edit two, Edit-Plus up to six. Source: the published configuration and tensor names of
jdopensource/JoyAI-Image-Edit-Diffusers; parameter names are those of that checkpoint.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental import _config as fx_config

from joyedit.models.attention import Packed, Spans, TextLengths, join, sdpa_attention, separate
from joyedit.models.config import DiTConfig
from joyedit.models.rope import Grid, apply_rope, rope_table, rotate_into

TIME_CHANNELS = 256
NORM_EPS = 1e-6


def timestep_embedding(timestep: Tensor, channels: int = TIME_CHANNELS) -> Tensor:
    """Sinusoids of the timestep (0 to 1000), cosines first: (B,) -> (B, channels), fp32."""
    half = channels // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float()[:, None] * exponent.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm without affine, in fp32, returned in x's dtype."""
    return F.layer_norm(x.float(), (x.shape[-1],), eps=NORM_EPS).type_as(x)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm, then times `scale` (1 already added) plus `shift`.

    One vector for all tokens is an affine LayerNorm: one kernel, rounded once.
    """
    if shift.numel() == x.shape[-1]:
        return F.layer_norm(x, (x.shape[-1],), scale.flatten(), shift.flatten(), NORM_EPS)
    return layer_norm(x) * scale + shift


@torch.library.custom_op(
    "joyedit::linear_gelu", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer and GELU(tanh) in the epilogue of one CUDA matrix product: (..., K) -> (..., N).

    An operator of its own, as the compiler would take product and activation apart again.
    """
    out: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return out.view(*x.shape[:-1], -1)


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class MLP(nn.Module):
    """Linear, GELU(tanh), Linear, with the names of the published checkpoint (`net.0.proj`, `net.2`)."""

    fused = True
    """Off, the activation is a kernel of its own on CUDA too."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Linear(dim, inner)})
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(inner, dim)])

    def forward(self, x: Tensor) -> Tensor:
        first, _, last = self.net
        proj = first.get_submodule("proj")
        if self.fused and x.is_cuda and not torch.is_grad_enabled():
            hidden = linear_gelu(x, proj.weight, proj.bias)
        else:
            hidden = F.gelu(proj(x), approximate="tanh")
        out: Tensor = last(hidden)
        return out


class TwoLinear(nn.Module):
    """`linear_1`, an activation, `linear_2`: the time embedder (SiLU) and the text embedder (GELU tanh)."""

    def __init__(self, dim_in: int, dim: int, activation: str) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(dim_in, dim)
        self.linear_2 = nn.Linear(dim, dim)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_1(x)
        x = F.silu(x) if self.activation == "silu" else F.gelu(x, approximate="tanh")
        out: Tensor = self.linear_2(x)
        return out


class ConditionEmbedder(nn.Module):
    """Timestep -> the six modulation vectors that all blocks share; text features -> hidden size."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.time_embedder = TwoLinear(TIME_CHANNELS, cfg.hidden_size, "silu")
        self.time_proj = nn.Linear(cfg.hidden_size, 6 * cfg.hidden_size)
        self.text_embedder = TwoLinear(cfg.text_dim, cfg.hidden_size, "gelu")

    def time(self, timestep: Tensor) -> Tensor:
        """(B,) timesteps -> (B, 6, M) modulation vectors. The embedder runs in its own dtype (fp32)."""
        sinusoid = timestep_embedding(timestep).to(self.time_embedder.linear_1.weight.dtype)
        vec = self.time_embedder(sinusoid).to(self.time_proj.weight.dtype)
        out: Tensor = self.time_proj(F.silu(vec)).unflatten(-1, (6, -1))
        return out


class Modulation(nn.Module):
    """A stream's learnt offsets to the shared time vectors: shift, scale, gate for attention and MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.modulate_table = nn.Parameter(torch.zeros(1, 6, dim))


class JointAttention(nn.Module):
    """Query, key, value and output projections of both streams; the attention itself is the caller's."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.num_heads = cfg.num_heads
        self.img_attn_qkv = nn.Linear(cfg.hidden_size, 3 * cfg.hidden_size)
        self.img_attn_q_norm = nn.RMSNorm(cfg.head_dim, eps=NORM_EPS)
        self.img_attn_k_norm = nn.RMSNorm(cfg.head_dim, eps=NORM_EPS)
        self.img_attn_proj = nn.Linear(cfg.hidden_size, cfg.hidden_size)
        self.txt_attn_qkv = nn.Linear(cfg.hidden_size, 3 * cfg.hidden_size)
        self.txt_attn_q_norm = nn.RMSNorm(cfg.head_dim, eps=NORM_EPS)
        self.txt_attn_k_norm = nn.RMSNorm(cfg.head_dim, eps=NORM_EPS)
        self.txt_attn_proj = nn.Linear(cfg.hidden_size, cfg.hidden_size)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads

    def qkv(self, img: Tensor, txt: Tensor, pe: tuple[Tensor, Tensor], target: int | None) -> tuple[Packed, ...]:
        """(B, S, M) and (T, M) -> query, key and value as streams: (B, S, H, D) and (T, H, D) each.

        Query and key are normalised, those of the image rotated. With `target`, only the first `target`
        image tokens have a query, and no text has one.
        """
        (img_q, img_k, img_v), (txt_q, txt_k, txt_v) = self._project(img, txt, target)
        cos, sin = pe
        query = apply_rope(self.img_attn_q_norm(img_q), cos[:target], sin[:target])
        key = apply_rope(self.img_attn_k_norm(img_k), cos, sin)
        return (query, self.txt_attn_q_norm(txt_q)), (key, self.txt_attn_k_norm(txt_k)), (img_v, txt_v)

    def joined_qkv(
        self, img: Tensor, txt: Tensor, pe: tuple[Tensor, Tensor], lengths: tuple[int, ...], target: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, joined: (Nq, H, D), (N, H, D) and (N, H, D). `lengths` are those of the texts."""
        queries = lengths if target is None else (0,) * len(lengths)
        if torch.compiler.is_compiling() or torch.is_grad_enabled():  # the compiler writes into place by itself
            query, key, value = self.qkv(img, txt, pe, target)
            return join(*query, queries), join(*key, lengths), join(*value, lengths)
        (img_q, img_k, img_v), (txt_q, txt_k, txt_v) = self._project(img, txt, target)
        (cos, sin), (near_cos, near_sin) = pe, (pe[0][:target], pe[1][:target])
        # Image and text of every sample, in turn: what is computed is written where attention reads it.
        q, k, v = (
            x.new_empty(x.shape[0] * x.shape[1] + len(t), *x.shape[2:])
            for x, t in ((img_q, txt_q), (img_k, txt_k), (img_v, txt_v))
        )
        q_parts, k_parts, v_parts = (
            whole.split([n for length in texts for n in (x.shape[1], length)])
            for whole, x, texts in ((q, img_q, queries), (k, img_k, lengths), (v, img_v, lengths))
        )
        img_q, img_k = self.img_attn_q_norm(img_q), self.img_attn_k_norm(img_k)
        for sample in range(len(lengths)):
            rotate_into(q_parts[2 * sample], img_q[sample], near_cos, near_sin)
            rotate_into(k_parts[2 * sample], img_k[sample], cos, sin)
            v_parts[2 * sample].copy_(img_v[sample])
        for parts, texts, tokens in (
            (q_parts, queries, self.txt_attn_q_norm(txt_q)),
            (k_parts, lengths, self.txt_attn_k_norm(txt_k)),
            (v_parts, lengths, txt_v),
        ):
            for part, text in zip(parts[1::2], tokens.split(list(texts)), strict=True):
                part.copy_(text)
        return q, k, v

    def _project(
        self, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """`projections` by heads."""
        (img_q, img_k, img_v), (txt_q, txt_k, txt_v) = self.projections(img, txt, target)
        heads = self._heads
        return (heads(img_q), heads(img_k), heads(img_v)), (heads(txt_q), heads(txt_k), heads(txt_v))

    def projections(
        self, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Query, key and value of img (B, S, M) and txt (T, M) as the linear layers give them: (..., M) each.

        With `target`, only the first `target` image tokens have a query, and no text has one.
        """
        if target is None:
            img_q, img_k, img_v = self.img_attn_qkv(img).chunk(3, -1)
            txt_q, txt_k, txt_v = self.txt_attn_qkv(txt).chunk(3, -1)
            return (img_q, img_k, img_v), (txt_q, txt_k, txt_v)
        (w_q, w_kv), (b_q, b_kv) = self._split_qkv(self.img_attn_qkv)
        img_q = F.linear(img[:, :target], w_q, b_q)
        img_k, img_v = F.linear(img, w_kv, b_kv).chunk(2, -1)
        (_, w_kv), (_, b_kv) = self._split_qkv(self.txt_attn_qkv)
        txt_k, txt_v = F.linear(txt, w_kv, b_kv).chunk(2, -1)
        return (img_q, img_k, img_v), (txt_v[:0], txt_k, txt_v)

    @staticmethod
    def _split_qkv(linear: nn.Linear) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Weights and biases of a fused QKV, each as (query, key and value)."""
        rows = linear.out_features // 3
        weight, bias = linear.weight, linear.bias
        return (weight[:rows], weight[rows:]), (bias[:rows], bias[rows:])


class DoubleBlock(nn.Module):
    """One double-stream block: joint attention, then an MLP a stream, each gated and residual.

    What lies before and after the attention are two functions of tensors alone, so that they can be
    compiled once for all blocks while texts of any lengths go through the attention between them.
    Modulations come in as six rows a stream: shift, 1 + scale, gate for the attention, then the same
    for the MLP; image (6, B or 1, 1, M), text (6, T or 1, M).
    """

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.img_mod = Modulation(cfg.hidden_size)
        self.img_mlp = MLP(cfg.hidden_size, cfg.mlp_dim)
        self.txt_mod = Modulation(cfg.hidden_size)
        self.txt_mlp = MLP(cfg.hidden_size, cfg.mlp_dim)
        self.attn = JointAttention(cfg)

    def before_attention(
        self,
        img: Tensor,
        txt: Tensor,
        img_mod: Tensor,
        txt_mod: Tensor,
        pe: tuple[Tensor, Tensor],
        lengths: tuple[int, ...] | None,
        target: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor] | tuple[Packed, ...]:
        """Query, key and value of img (B, S, M) and packed txt (T, M): joined, or as streams without `lengths`.

        With `target`, only the first `target` image tokens have a query.
        """
        img = modulate(img, img_mod[0], img_mod[1])
        txt = modulate(txt, txt_mod[0], txt_mod[1])
        if lengths is None:
            return self.attn.qkv(img, txt, pe, target)
        return self.attn.joined_qkv(img, txt, pe, lengths, target)

    def after_attention(
        self, img: Tensor, txt: Tensor, out: Packed, img_mod: Tensor, txt_mod: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add the attention's output (B, S, H, D) and (T, H, D) and the MLPs to both streams."""
        img = torch.addcmul(img, img_mod[2], self.attn.img_attn_proj(out[0].flatten(-2)))
        txt = torch.addcmul(txt, txt_mod[2], self.attn.txt_attn_proj(out[1].flatten(-2)))
        img = torch.addcmul(img, img_mod[5], self.img_mlp(modulate(img, img_mod[3], img_mod[4])))
        txt = torch.addcmul(txt, txt_mod[5], self.txt_mlp(modulate(txt, txt_mod[3], txt_mod[4])))
        return img, txt

    def finish(self, img: Tensor, out: Tensor, img_mod: Tensor) -> Tensor:
        """`after_attention` of the last block, for the target's tokens alone, which come first: (B, target, M).

        Nothing else is read after it, so the references and the texts gave keys and values only.
        """
        img = torch.addcmul(img[:, : out.shape[1]], img_mod[2], self.attn.img_attn_proj(out.flatten(-2)))
        return torch.addcmul(img, img_mod[5], self.img_mlp(modulate(img, img_mod[3], img_mod[4])))


class DiT(nn.Module):
    """`JoyImageEditTransformer3DModel` of the published checkpoint, for any number of items."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.attend: Callable[..., Any] = sdpa_attention  # an AttentionFn, where streams are joined
        # A Conv3d in the checkpoint; with kernel = stride = patch it is one linear layer a patch.
        self.img_in = nn.Linear(cfg.in_channels * cfg.patch[0] * cfg.patch[1], cfg.hidden_size)
        self.condition_embedder = ConditionEmbedder(cfg)
        self.double_blocks = nn.ModuleList(DoubleBlock(cfg) for _ in range(cfg.num_layers))
        self.proj_out = nn.Linear(cfg.hidden_size, cfg.out_channels * cfg.patch[0] * cfg.patch[1])
        # Off, the last block computes for all tokens what only the target's prediction is read from.
        self.trim_last_block = True
        # Off, `attend` takes and gives both streams apart (`Packed`), not joined: an attention that packs for itself.
        self.join_streams = True
        self.plain_blocks()
        self._pe_cache: dict[tuple[tuple[Grid, ...], torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype

    def plain_blocks(self) -> None:
        """Run the blocks as they are written."""
        self._before: Callable[..., Any] = DoubleBlock.before_attention
        self._after: Callable[..., Any] = DoubleBlock.after_attention
        self._finish: Callable[..., Any] = DoubleBlock.finish
        self._compiled = False
        self._fused: Callable[..., Tensor] | None = None

    def fuse_blocks(self) -> None:
        """Run Triton kernels between the matrix products. Raises ImportError where Triton is missing.

        For CUDA only. There they serve inference with one timestep for all samples; anything else runs as written.
        """
        from joyedit.models.fused_blocks import run_blocks

        self.plain_blocks()
        self._fused = run_blocks

    def compile_blocks(self) -> None:
        """Compile what lies before and after the attention, once for all blocks; the attention stays as it is.

        All sizes are dynamic, so that no instruction and no bucket compiles anew: rows are read whole,
        and their number decides nothing inside a kernel. Only another number of samples does.
        """
        self.plain_blocks()
        self._before, self._after, self._finish = _compiled_parts()
        self._compiled = True

    def patchify(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, rows * columns, C * ph * pw), channel first inside a patch."""
        ph, pw = self.cfg.patch
        x = latent.unflatten(3, (-1, pw)).unflatten(2, (-1, ph))  # (B, C, rows, ph, columns, pw)
        patches: Tensor = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return patches

    def unpatchify(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, rows * columns, ph * pw * C) -> (B, C, h, w); on the way out the channel comes last."""
        ph, pw = self.cfg.patch
        x = tokens.unflatten(1, grid).unflatten(3, (ph, pw, -1))  # (B, rows, columns, ph, pw, C)
        latent: Tensor = x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return latent

    def grid(self, latent: Tensor) -> Grid:
        """Rows and columns of tokens of a latent (..., h, w)."""
        ph, pw = self.cfg.patch
        rows, columns = latent.shape[-2] // ph, latent.shape[-1] // pw
        if rows * ph != latent.shape[-2] or columns * pw != latent.shape[-1]:
            raise ValueError(f"latent of {tuple(latent.shape[-2:])} is not a multiple of the patch {ph}x{pw}")
        return rows, columns

    def position_table(self, grids: Sequence[Grid], device: torch.device) -> tuple[Tensor, Tensor]:
        """The rotary table of these items, kept for the next step with the same shapes."""
        key = (tuple(grids), device)
        if key not in self._pe_cache:
            if len(self._pe_cache) >= 32:
                self._pe_cache.clear()
            self._pe_cache[key] = rope_table(grids, self.cfg.rope_dims, self.cfg.theta, device)
        return self._pe_cache[key]

    def embed_text(self, txt: Tensor) -> Tensor:
        """Encoder features (T, text_dim) -> (T, M). The same at every step, so done once an edit."""
        out: Tensor = self.condition_embedder.text_embedder(txt.to(self.dtype))
        return out

    def modulations(self, timestep: Tensor) -> Tensor:
        """Shift, 1 + scale and gate of every block and stream at these timesteps, from 0 to 1000.

        (N,) -> (N, L, 2, 6, M), streams image and text. It depends on nothing else, so a run makes it
        once for its whole schedule.
        """
        tables = torch.stack(
            [torch.cat([b.img_mod.modulate_table, b.txt_mod.modulate_table]) for b in self.blocks()]
        )  # (L, 2, 6, M)
        shift, scale, gate, *mlp = (tables + self.condition_embedder.time(timestep)[:, None, None]).unbind(3)
        return torch.stack([shift, scale + 1, gate, mlp[0], mlp[1] + 1, mlp[2]], dim=3)

    def blocks(self) -> list[DoubleBlock]:
        return [block for block in self.double_blocks if isinstance(block, DoubleBlock)]

    def forward(self, items: Sequence[Tensor], timestep: Tensor, txt: Tensor, text: TextLengths) -> Tensor:
        """Velocity of the target: `predict` at these timesteps, (1,) or (B,), from 0 to 1000."""
        return self.predict(items, self.modulations(timestep), txt, text)

    def predict(self, items: Sequence[Tensor], mods: Tensor, txt: Tensor, text: TextLengths) -> Tensor:
        """Velocity of the target.

        `items`: latents [target, reference 1, ...], each (B, C, h_i, w_i), normalised as the VAE's
        config says. `mods`: (1 or B, L, 2, 6, M) of `modulations`. `txt`: (T, M), packed and embedded
        by `embed_text`, with its lengths. Returns (B, C, h_0, w_0) in the network's dtype.
        """
        if len(text.lengths) != items[0].shape[0] or text.total != txt.shape[0]:
            raise ValueError(
                f"{len(text.lengths)} texts of {text.total} tokens given for {items[0].shape[0]} samples"
                f" and {txt.shape[0]} tokens"
            )
        grids = [self.grid(item) for item in items]
        patches = torch.cat([self.patchify(item.to(self.dtype)) for item in items], dim=1)
        img = self.img_in(patches)  # (B, S, M)
        pe = self.position_table(grids, img.device)
        target = grids[0][0] * grids[0][1]
        if self._fused is not None and self._can_fuse(mods):
            streams = mods[0].unbind(1)  # (L, 6, M) each
            blocks = self.blocks()
            img = self._fused(blocks, self.attend, img, txt, *streams, text.lengths, pe, target)
            return self.unpatchify(self.proj_out(layer_norm(img)), grids[0])
        img_mods = mods[:, :, 0].permute(1, 2, 0, 3).unsqueeze(3)  # (L, 6, B, 1, M)
        txt_mods = mods[:, :, 1].permute(1, 2, 0, 3)  # (L, 6, B, M)
        if len(mods) > 1:
            # index_select, as the gradient of indexing sorts its many equal indices first.
            txt_mods = txt_mods.index_select(2, text.sample_of_token(img.device))  # (L, 6, T, M)
        with self._sizes_apart():
            img = self._run_blocks(img, txt, img_mods, txt_mods, text, pe, target)
        return self.unpatchify(self.proj_out(layer_norm(img)), grids[0])

    def _can_fuse(self, mods: Tensor) -> bool:
        """Whether the fused blocks compute what is asked for here."""
        plain = torch.is_grad_enabled() or not self.trim_last_block or not self.join_streams
        return len(mods) == 1 and not plain

    def _run_blocks(
        self,
        img: Tensor,
        txt: Tensor,
        img_mods: Tensor,
        txt_mods: Tensor,
        text: TextLengths,
        pe: tuple[Tensor, Tensor],
        target: int,
    ) -> Tensor:
        """All blocks over (B, S, M) and (T, M), for the first `target` image tokens: (B, target, M)."""
        lengths = text.lengths if self.join_streams else None
        whole = tuple(img.shape[1] + length for length in text.lengths)
        spans = Spans(whole, whole)
        blocks = self.blocks()
        last = blocks.pop() if self.trim_last_block else None
        for layer, block in enumerate(blocks):
            img_mod, txt_mod = img_mods[layer], txt_mods[layer]
            qkv = self._before(block, img, txt, img_mod, txt_mod, pe, lengths)
            out = self._attend(qkv, spans, text, img.shape[1])
            img, txt = self._after(block, img, txt, out, img_mod, txt_mod)
        if last is None:
            return img[:, :target]
        qkv = self._before(last, img, txt, img_mods[-1], txt_mods[-1], pe, lengths, target)
        img_out, _ = self._attend(qkv, Spans((target,) * len(whole), whole), text, target)
        finished: Tensor = self._finish(last, img, img_out, img_mods[-1])
        return finished

    def _attend(self, qkv: Sequence[Any], spans: Spans, text: TextLengths, img_tokens: int) -> Packed:
        """The attention's output as streams. They are taken apart out here: offsets would end up in the graph."""
        if self.join_streams:
            return separate(self.attend(*qkv, spans), img_tokens)
        streams: Packed = self.attend(*qkv, text)
        return streams

    def _sizes_apart(self) -> AbstractContextManager[Any]:
        """Sizes that happen to be equal are not taken for one: the next instruction's would compile anew."""
        if not self._compiled:
            return nullcontext()
        patched: AbstractContextManager[Any] = fx_config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
        return patched


@functools.cache
def _compiled_parts() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The parts of a block, each compiled once in a process, when it is first called."""
    parts = (DoubleBlock.before_attention, DoubleBlock.after_attention, DoubleBlock.finish)
    before, after, finish = (torch.compile(part, dynamic=True) for part in parts)
    return before, after, finish
