"""The layers of the diffusion transformer and its double-stream block."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.attention import Packed, join
from joyedit.models.config import DiTConfig
from joyedit.models.rope import apply_rope, rotate_into

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
