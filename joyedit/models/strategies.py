"""How the DiT runs its blocks: strategies of one signature, between which results differ by rounding only.

A strategy takes what all blocks of one forward share and returns a `RunBlock`, which the DiT calls for each block in
order. `fused_blocks.py` holds the strategy for Triton kernels, `compiled_blocks.py` the one for torch's compiler.

Legend: B samples, S image tokens a sample, T text tokens of all samples, M hidden channels, L blocks, D channels a
head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from joyedit.models.attention import AttentionFn, InPlaceSequences, JointSequences, TextLengths
from joyedit.models.blocks import DoubleBlock


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardPass:
    """What all blocks of one forward share.

    `pe`: cosine and sine (S, D / 2) of the image tokens, fp32. `img_mods`: (L, 6, B or 1, 1, M). `txt_mods`:
    (L, 6, T or 1, M). `blocks` are all of them, for what a block computes for the next one. `images`: samples with the
    same number have the same image tokens before the first block; empty where nothing is known of that.
    """

    attend: AttentionFn
    text: TextLengths
    pe: tuple[Tensor, Tensor]
    img_mods: Tensor
    txt_mods: Tensor
    blocks: Sequence[DoubleBlock] = ()
    images: tuple[int, ...] = ()

    def mods(self, layer: int) -> tuple[Tensor, Tensor]:
        """Modulations of a block, as `DoubleBlock.forward` takes them."""
        return self.img_mods[layer], self.txt_mods[layer]


class RunBlock(Protocol):
    """Runs one block over img (B, S, M) and packed txt (T, M).

    `layer` counts the blocks from 0. What comes back is given to the next block; a strategy may keep the streams to
    itself until the last block. That one gets a `target`: the first `target` image tokens of its result are read and
    nothing else, so a strategy may leave out the rest.
    """

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]: ...


class LayerWeights(Protocol):
    """Where the weights of the DiT's blocks are. The DiT calls both around each block, in order."""

    def need(self, layer: int) -> None:
        """What is queued from now on reads the weights of this block."""

    def used(self, layer: int) -> None:
        """All that reads the weights of this block in this forward is queued."""


class ResidentWeights:
    """All weights are on the device all the time."""

    def need(self, layer: int) -> None:
        """They are there."""

    def used(self, layer: int) -> None:
        """They stay."""


Strategy = Callable[[ForwardPass], RunBlock]


class PlainBlocks:
    """Runs `DoubleBlock.forward` as it is written. It serves gradients too."""

    sequences: type[JointSequences] = JointSequences

    def __init__(self, forward: ForwardPass) -> None:
        self._forward = forward
        self._sequences = self.sequences(forward.attend, forward.text.lengths, forward.pe)

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]:
        out: tuple[Tensor, Tensor] = block(img, txt, self._forward.mods(layer), self._sequences, target)
        return out


class InPlaceBlocks(PlainBlocks):
    """Runs `DoubleBlock.forward` and writes query, key and value where the attention reads them. For inference."""

    sequences = InPlaceSequences
