"""The DiT's layers as the LoRAs of one batch make them, for runs whose items differ in their LoRAs.

The changed weights of a block are made just before it runs, from its own weights and the low-rank matrices, by the
same sums as if the LoRAs had been merged when the model was loaded. So every way to run the blocks works with them, and
a picture is the same, bit for bit, whether its LoRAs are merged for the run or for its batch. Where there is room, what
was made in the first step is kept for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from joyedit.models.dit import DiT
from joyedit.models.lora import LowRank, merge
from joyedit.runtime.placement.sizes import BLOCKS

Changes = Mapping[str, Sequence[LowRank]]
"""The changes of each linear layer, by its name in the network."""


class _Place(NamedTuple):
    """Where a weight is: its block (None: in none), the module, and its name within the block."""

    block: int | None
    owner: nn.Module
    local: str


class LoraLayers:
    """Stands between the DiT and the weights of its blocks. Without changes it does nothing."""

    def __init__(self, dit: DiT, room: int = 0) -> None:
        """`room`: bytes of the device that changed weights may keep beside the plain ones."""
        self._inner = dit.weights
        self._places = {name: _place(name, module) for name, module in dit.named_modules() if _is_linear(module)}
        self._room = room
        self._key: object = None
        self._by_block: dict[int | None, list[tuple[_Place, Sequence[LowRank]]]] = {}
        self._kept: dict[_Place, Tensor] = {}
        self._kept_bytes = 0
        self._scratch: dict[str, Tensor] = {}
        self._plain: dict[_Place, Tensor] = {}
        dit.weights = self

    @contextmanager
    def changed(self, key: object, changes: Changes) -> Iterator[None]:
        """Let the DiT compute with these changes. Equal keys stand for equal changes."""
        if not changes:
            yield
            return
        if key != self._key:
            self.drop()
            self._key = key
            for name, low_rank in changes.items():
                place = self._places[name]
                self._by_block.setdefault(place.block, []).append((place, low_rank))
        try:
            self._change(None)
            yield
        finally:
            self._restore()
            self._active = False

    def need(self, layer: int) -> None:
        """What is queued from now on reads the weights of this block, as the LoRAs make them."""
        self._inner.need(layer)
        if self._active:
            self._change(layer)

    def used(self, layer: int) -> None:
        """The block was queued: its own weights are in their place again."""
        if self._active:
            self._restore(layer)
        self._inner.used(layer)

    def drop(self) -> None:
        """Forget the changes and all that was made of them."""
        self._key = None
        self._by_block, self._kept, self._scratch = {}, {}, {}
        self._kept_bytes = 0

    def keep_nothing(self) -> None:
        """There is no room: from now on all changed weights are made anew in each step."""
        self._room = 0
        self.drop()

    @property
    def kept_bytes(self) -> int:
        """Bytes of changed weights that are kept for the next steps."""
        return self._kept_bytes

    _active = False

    def _change(self, block: int | None) -> None:
        """Let the weights of a block, or of everything outside of the blocks, be the changed ones."""
        self._active = True
        with torch.inference_mode(False), torch.no_grad():
            for place, low_rank in self._by_block.get(block, ()):
                parameter = _parameter(place)
                self._plain[place] = parameter.data
                parameter.data = self._made(place, parameter.data, low_rank)

    def _made(self, place: _Place, plain: Tensor, low_rank: Sequence[LowRank]) -> Tensor:
        kept = self._kept.get(place)
        if kept is not None:
            return kept
        if place.block is None or self._kept_bytes + plain.nbytes <= self._room:
            made = merge(plain, low_rank, torch.empty_like(plain))
            self._kept[place] = made
            self._kept_bytes += plain.nbytes
            return made
        # All blocks run one behind the other on one stream, so they can share the memory.
        scratch = self._scratch.get(place.local)
        if scratch is None:
            scratch = self._scratch[place.local] = torch.empty_like(plain)
        return merge(plain, low_rank, scratch)

    def _restore(self, block: int | None = None) -> None:
        """Put the plain weights of a block back; of all that are changed without a block."""
        with torch.inference_mode(False), torch.no_grad():
            for place in [place for place in self._plain if block is None or place.block == block]:
                _parameter(place).data = self._plain.pop(place)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _parameter(place: _Place) -> nn.Parameter:
    parameter = place.owner._parameters["weight"]
    assert parameter is not None
    return parameter


def _place(name: str, module: nn.Module) -> _Place:
    outer, _, rest = name.partition(".")
    if outer != BLOCKS:
        return _Place(None, module, name)
    number, _, local = rest.partition(".")
    return _Place(int(number), module, local)
