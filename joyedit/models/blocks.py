"""The layers of the diffusion transformer, and its double-stream block: `DoubleBlock.forward` is the whole mathematics.

Legend: B samples, S image tokens a sample, T text tokens of all samples, N image and text tokens of all samples,
H heads, D channels a head, M = H * D hidden channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.attention import JointSequences
from joyedit.models.config import DiTConfig
from joyedit.models.quantised import AnyLinear, QuantisedLinear, linear_part
from joyedit.models.quantised_rows import Quantised, Rows

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

    It is an operator of its own, as the compiler would separate product and activation again. It has no gradient.
    """
    out: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return out.view(*x.shape[:-1], -1)


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class MLP(nn.Module):
    """Linear, GELU(tanh), Linear, with the names of the published checkpoint (`net.0.proj`, `net.2`)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Linear(dim, inner)})
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(inner, dim)])

    @property
    def linears(self) -> tuple[AnyLinear, AnyLinear]:
        """Both linear layers."""
        first, last = self.net[0].get_submodule("proj"), self.net[2]
        assert isinstance(first, AnyLinear)
        assert isinstance(last, AnyLinear)
        return first, last

    def hidden(self, x: Rows) -> Tensor:
        """The first layer and its activation."""
        first, _ = self.linears
        if isinstance(x, Tensor) and x.is_cuda and not isinstance(first, QuantisedLinear):
            fused: Tensor = linear_gelu(x, first.weight, first.bias)
            return fused
        return F.gelu(first(x), approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[2](self.hidden(x))
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
    """Timestep -> six modulation vectors that all blocks share. Text features -> hidden channels."""

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


QKV = tuple[Tensor, Tensor, Tensor]
"""Query, key and value of one stream."""


class JointAttention(nn.Module):
    """The layers around the attention: QKV and output projections and the norms of query and key, for each stream."""

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

    def heads(self, img: Tensor, txt: Tensor, target: int | None) -> tuple[QKV, QKV]:
        """`projections` with their channels as heads: (B, S, H, D) each and (T, H, D) each."""
        (img_q, img_k, img_v), (txt_q, txt_k, txt_v) = self.projections(img, txt, target)
        split = self._split_heads
        return (split(img_q), split(img_k), split(img_v)), (split(txt_q), split(txt_k), split(txt_v))

    def projections(self, img: Rows, txt: Rows, target: int | None) -> tuple[QKV, QKV]:
        """Query, key and value of img (B, S, M) and txt (T, M), as the linear layers give them: (..., M) each.

        With `target`, only the first `target` image tokens have a query, and no text token has one.
        """
        if target is None:
            img_q, img_k, img_v = self.img_attn_qkv(img).chunk(3, -1)
            txt_q, txt_k, txt_v = self.txt_attn_qkv(txt).chunk(3, -1)
            return (img_q, img_k, img_v), (txt_q, txt_k, txt_v)
        query = slice(self.img_attn_qkv.out_features // 3)
        key_value = slice(query.stop, None)
        asking = img.first(target) if isinstance(img, Quantised) else img[:, :target]
        img_q = linear_part(self.img_attn_qkv, asking, query)
        img_k, img_v = linear_part(self.img_attn_qkv, img, key_value).chunk(2, -1)
        txt_k, txt_v = linear_part(self.txt_attn_qkv, txt, key_value).chunk(2, -1)
        return (img_q, img_k, img_v), (txt_v[:0], txt_k, txt_v)

    def _split_heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads


class DoubleBlock(nn.Module):
    """One double-stream block: joint attention, then an MLP for each stream, each gated and residual.

    `strategies.py` and `fused_blocks.py` hold the fast ways to run it.
    """

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.img_mod = Modulation(cfg.hidden_size)
        self.img_mlp = MLP(cfg.hidden_size, cfg.mlp_dim)
        self.txt_mod = Modulation(cfg.hidden_size)
        self.txt_mlp = MLP(cfg.hidden_size, cfg.mlp_dim)
        self.attn = JointAttention(cfg)

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        mods: tuple[Tensor, Tensor],
        sequences: JointSequences,
        target: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both streams, img (B, S, M) and packed txt (T, M), after this block.

        `mods`: six rows for each stream: shift, 1 + scale and gate for the attention, then the same for the MLP; image
        (6, B or 1, 1, M), text (6, T or 1, M). `target` trims the last block: only the first `target` image tokens are
        computed, and the result is (B, target, M) and txt as it was. All other tokens give keys and values only.
        """
        attn = self.attn
        img_mod, txt_mod = mods

        # Norm, modulation, and query, key and value of both streams.
        (img_q, img_k, img_v), (txt_q, txt_k, txt_v) = attn.heads(
            modulate(img, img_mod[0], img_mod[1]), modulate(txt, txt_mod[0], txt_mod[1]), target
        )  # (B, S, H, D) each, (T, H, D) each

        # Norm of query and key, rotary positions of the image, and one joint sequence for each sample.
        query = sequences.join(attn.img_attn_q_norm(img_q), attn.txt_attn_q_norm(txt_q), rotate=True, target=target)
        key = sequences.join(attn.img_attn_k_norm(img_k), attn.txt_attn_k_norm(txt_k), rotate=True)
        value = sequences.join(img_v, txt_v)
        del img_q, img_k, img_v, txt_q, txt_k, txt_v

        img_out, txt_out = sequences.attend(query, key, value, target)
        del query, key, value  # The MLPs need the memory.

        # Projection, gated residual, norm, modulation, MLP, gated residual: the image, then the text.
        if target is not None:
            img = img[:, :target]
        img = torch.addcmul(img, img_mod[2], attn.img_attn_proj(img_out.flatten(-2)))
        img = torch.addcmul(img, img_mod[5], self.img_mlp(modulate(img, img_mod[3], img_mod[4])))
        if target is not None:
            return img, txt
        txt = torch.addcmul(txt, txt_mod[2], attn.txt_attn_proj(txt_out.flatten(-2)))
        txt = torch.addcmul(txt, txt_mod[5], self.txt_mlp(modulate(txt, txt_mod[3], txt_mod[4])))
        return img, txt
