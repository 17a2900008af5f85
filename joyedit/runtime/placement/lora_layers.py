"""The DiT's layers as the LoRAs of one batch make them, for runs whose items differ in their LoRAs.

The changed weights of a block are made just before it runs, from its own weights and the low-rank matrices, by the
same sums as if the LoRAs had been merged when the model was loaded. So every way to run the blocks works with them, and
a picture is the same, bit for bit, whether its LoRAs are merged for the run or for its batch. Where there is room, what
was made in the first step is kept for the others.

A layer of 8 bits is changed before it is quantised, as when LoRAs are merged for the run. So its exact weight is read
from the checkpoint again, once for each set of LoRAs, and what is made of it is kept: on the device, or in the host's
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from joyedit.models.dit import DiT
from joyedit.models.lora import LowRank, merge
from joyedit.models.quantised import QuantisedLinear
from joyedit.models.quantised_rows import quantised_weight
from joyedit.runtime.placement.sizes import BLOCKS

Changes = Mapping[str, Sequence[LowRank]]
"""The changes of each linear layer, by its name in the network."""
Weights = tuple[Tensor, ...]
"""What a linear layer computes with beside its bias: its weight, or values and scales."""


class _Place(NamedTuple):
    """Where a weight is: its block (None: in none), the module, and its name within the block and in the network."""

    block: int | None
    owner: nn.Module
    local: str
    name: str


class LoraLayers:
    """Stands between the DiT and the weights of its blocks. Without changes it does nothing."""

    def __init__(self, dit: DiT, room: int = 0, read_exact: Callable[[str], Tensor] | None = None) -> None:
        """`room`: bytes of the device that changed weights may keep beside the plain ones.

        `read_exact` gives a weight on the device as it is before it is quantised, by its name in the network.
        """
        self._inner = dit.weights
        self._places = {name: _place(name, module) for name, module in dit.named_modules() if _is_linear(module)}
        self._room = room
        self._key: object = None
        self._by_block: dict[int | None, list[tuple[_Place, Sequence[LowRank]]]] = {}
        self._read_exact = read_exact
        self._kept: dict[_Place, Weights] = {}
        self._kept_bytes = 0
        self._waiting: dict[_Place, Weights] = {}
        self._scratch: dict[str, Weights] = {}
        self._plain: dict[_Place, Weights] = {}
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
        self._by_block, self._kept, self._waiting, self._scratch = {}, {}, {}, {}
        self._kept_bytes = 0

    def keep_nothing(self) -> None:
        """There is no room: from now on all changed weights are made anew in each step."""
        self._room = 0
        self.drop()

    def close(self) -> None:
        """Nothing will be changed any more."""
        self.drop()
        self._read_exact = None

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
                plain = tuple(parameter.data for parameter in _parameters(place))
                self._plain[place] = plain
                _point(place, self._made(place, plain, low_rank))

    def _made(self, place: _Place, plain: Weights, low_rank: Sequence[LowRank]) -> Weights:
        kept = self._kept.get(place)
        if kept is not None:
            return kept
        size = sum(weight.nbytes for weight in plain)
        is_kept = place.block is None or self._kept_bytes + size <= self._room
        if isinstance(place.owner, QuantisedLinear):
            made = self._quantised(place, place.owner, low_rank, is_kept)
        else:
            # All blocks run one behind the other on one stream, so they can share the memory.
            (weight,) = plain
            made = (merge(weight, low_rank, torch.empty_like(weight) if is_kept else self._shared(place, plain)[0]),)
        if is_kept:
            self._kept[place] = made
            self._kept_bytes += size
        return made

    def _quantised(self, place: _Place, layer: QuantisedLinear, low_rank: Sequence[LowRank], is_kept: bool) -> Weights:
        """Changed, then quantised. What is not kept on the device waits in the host's memory for the next step."""
        waiting = self._waiting.get(place)
        if waiting is None:
            assert self._read_exact is not None
            exact = self._read_exact(place.name)
            made = quantised_weight(merge(exact, low_rank, torch.empty_like(exact)), layer.dtype)
            if is_kept:
                return tuple(made)
            waiting = self._waiting[place] = tuple(part.cpu() for part in made)
        shared = self._shared(place, self._plain[place])
        for part, given in zip(shared, waiting, strict=True):
            part.copy_(given)
        return shared

    def _shared(self, place: _Place, like: Weights) -> Weights:
        """Memory of the device that this layer of all blocks shares."""
        if place.local not in self._scratch:
            self._scratch[place.local] = tuple(torch.empty_like(part) for part in like)
        return self._scratch[place.local]

    def _restore(self, block: int | None = None) -> None:
        """Put the plain weights of a block back; of all that are changed without a block."""
        with torch.inference_mode(False), torch.no_grad():
            for place in [place for place in self._plain if block is None or place.block == block]:
                _point(place, self._plain.pop(place))


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | QuantisedLinear)


def _parameters(place: _Place) -> list[nn.Parameter]:
    names = ("weight", "weight_scale") if isinstance(place.owner, QuantisedLinear) else ("weight",)
    found = [place.owner._parameters[name] for name in names]
    return [parameter for parameter in found if parameter is not None]


def _point(place: _Place, weights: Weights) -> None:
    for parameter, weight in zip(_parameters(place), weights, strict=True):
        parameter.data = weight


def _place(name: str, module: nn.Module) -> _Place:
    outer, _, rest = name.partition(".")
    if outer != BLOCKS:
        return _Place(None, module, name, f"{name}.weight")
    number, _, local = rest.partition(".")
    return _Place(int(number), module, local, f"{name}.weight")
