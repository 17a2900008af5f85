"""The DiT's blocks as torch compiles them. Importing this takes seconds, so only a run that compiles does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config as fx_config

from joyedit.models.attention import JointSequences, Packed
from joyedit.models.blocks import DoubleBlock
from joyedit.models.strategies import PlainBlocks


class _InterruptedSequences(JointSequences):
    """The attention stays out of the compiled code: text lengths and offsets would become part of it."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def attend(self, query: Any, key: Any, value: Any, target: int | None = None) -> Packed:
        return super().attend(query, key, value, target)


class CompiledBlocks(PlainBlocks):
    """Runs what torch makes of `DoubleBlock.forward`: one function before the attention and one after it.

    All blocks share them. All sizes are dynamic, so a new instruction or picture size compiles nothing. Only another
    number of samples does.
    """

    sequences: type[JointSequences] = _InterruptedSequences

    def __call__(
        self, block: DoubleBlock, layer: int, img: Tensor, txt: Tensor, target: int | None
    ) -> tuple[Tensor, Tensor]:
        # Without this, sizes that happen to be equal would count as one size, and the next instruction would compile.
        with fx_config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            out: tuple[Tensor, Tensor] = compiled_forward()(
                block, img, txt, self._forward.mods(layer), self._sequences, target
            )
        return out


@functools.cache
def compiled_forward() -> Callable[..., tuple[Tensor, Tensor]]:
    """`DoubleBlock.forward`, compiled once in a process, when it is first called."""
    compiled: Callable[..., tuple[Tensor, Tensor]] = torch.compile(DoubleBlock.forward, dynamic=True)
    return compiled
