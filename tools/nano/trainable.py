"""What the inference networks leave out and training needs: layers with a gradient, and blocks on a packed batch.

The layers take over the parameters of those that they replace, under the same names.

Legend: B samples, S image tokens a sample, T text tokens of all samples, H heads, D channels a head.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.attention import JointSequences, Packed, TextLengths
from joyedit.models.blocks import MLP, DoubleBlock
from joyedit.models.compiled_blocks import compiled_forward
from joyedit.models.rope import apply_rope
from joyedit.models.strategies import ForwardPass, PlainBlocks, RunBlock
from joyedit.models.vae import NORM_FLOOR, ChannelNorm


class TrainableMLP(MLP):
    """`MLP` whose activation is an operator of its own on CUDA too."""

    def __init__(self, mlp: MLP) -> None:
        nn.Module.__init__(self)
        self.net = mlp.net

    def forward(self, x: Tensor) -> Tensor:
        first, _, last = self.net
        out: Tensor = last(F.gelu(first.get_submodule("proj")(x), approximate="tanh"))
        return out


class TrainableNorm(ChannelNorm):
    """`ChannelNorm` that overwrites nothing where a gradient is wanted."""

    def __init__(self, norm: ChannelNorm) -> None:
        nn.Module.__init__(self)
        self.scale, self.gamma = norm.scale, norm.gamma

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        wide = x.float()
        inverse = wide.square().sum(1, keepdim=True).clamp_min(NORM_FLOOR**2).rsqrt()  # one number a pixel
        out: Tensor = (wide * (inverse * self.scale)).type_as(x) * self.gamma
        return out

    def silu(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if not torch.is_grad_enabled():
            return super().silu(x, bias)
        return F.silu(self(x if bias is None else x + bias.view(1, -1, 1, 1)))


def make_trainable(network: nn.Module) -> None:
    """Replace, in the whole network, the layers that have no gradient."""
    for name, child in network.named_children():
        if isinstance(child, MLP):
            setattr(network, name, TrainableMLP(child))
        elif isinstance(child, ChannelNorm):
            setattr(network, name, TrainableNorm(child))
        else:
            make_trainable(child)


class PackedAttention(Protocol):
    """Attention of a batch whose streams stay apart, each image (B, S, H, D) and text (T, H, D)."""

    def __call__(self, query: Packed, key: Packed, value: Packed, text: TextLengths) -> Packed: ...


class PackedSequences(JointSequences):
    """Both streams of all samples for a `PackedAttention`."""

    def __init__(self, attention: PackedAttention, text: TextLengths, pe: tuple[Tensor, Tensor]) -> None:
        self.packed, self.text, self.pe = attention, text, pe

    def join(self, img: Tensor, txt: Tensor, *, rotate: bool = False, target: int | None = None) -> Packed:
        return (apply_rope(img, *self.pe) if rotate else img), txt

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, query: Any, key: Any, value: Any, target: int | None = None) -> Packed:
        return self.packed(query, key, value, self.text)


class PackedBlocks:
    """A strategy: blocks around a `PackedAttention`, which has a query for every token, so no block is trimmed."""

    def __init__(self, attention: PackedAttention, compiled: bool = False) -> None:
        self._attention = attention
        self._compiled = compiled

    def __call__(self, forward: ForwardPass) -> RunBlock:
        sequences = PackedSequences(self._attention, forward.text, forward.pe)
        run = compiled_forward() if self._compiled else DoubleBlock.__call__

        def block_of(
            block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
        ) -> tuple[Tensor, Tensor]:
            out: tuple[Tensor, Tensor] = run(block, img, txt, forward.mods(layer), sequences)
            return out

        return block_of


class UntrimmedBlocks(PlainBlocks):
    """A strategy: the last block computes all tokens, as the others do."""

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]:
        return super().__call__(block, layer, img, txt, None)
