"""Where a stream of layers takes its weights from: the host's memory, filled while the first layers already run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from joyedit.runtime.placement.host_memory import host_bytes, pin
from joyedit.runtime.placement.packed import PackedLayer


class LayerSource(Protocol):
    """Gives the weights of layers, by their number."""

    def is_there(self, layer: int) -> bool:
        """Whether `get` would not wait."""

    def get(self, layer: int) -> Tensor:
        """A layer's bytes in the host's memory, uint8 (nbytes,). Waits for them. Raises what loading raised."""

    def copied(self, layer: int, event: torch.cuda.Event | None) -> None:
        """Tells that a copy of what `get` gave was queued, and ends with this event."""


class Arrivals:
    """Which layers have all their weights. One thread tells, others wait."""

    def __init__(self, awaited: Mapping[int, int]) -> None:
        """`awaited`: how many weights each layer has."""
        self._awaited = dict(awaited)
        self._changed = threading.Condition()
        self._error: BaseException | None = None

    def arrived(self, layer: int) -> bool:
        """Count one more weight of a layer; whether it was the last one."""
        with self._changed:
            self._awaited[layer] -= 1
            return self._awaited[layer] == 0

    def complete(self, layer: int) -> None:
        """The layer may be used."""
        with self._changed:
            del self._awaited[layer]
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """No further weights will come: all that wait get this error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def is_complete(self, layer: int) -> bool:
        """Whether `wait` would not wait."""
        return not self._awaited or layer not in self._awaited

    def wait(self, layer: int) -> None:
        """Wait for a layer. Raises what was given to `fail`."""
        if not self._awaited:
            return
        with self._changed:
            self._changed.wait_for(lambda: layer not in self._awaited or self._error is not None)
            if layer in self._awaited and self._error is not None:
                raise self._error


class HostLayers:
    """Layers in the host's memory, pinned for a CUDA device."""

    def __init__(
        self,
        layers: Sequence[PackedLayer],
        arrivals: Arrivals,
        device: torch.device,
        memory: Callable[[int], Tensor] | None = None,
    ) -> None:
        """`memory` gives the memory of a layer, by its number, where it is not this process's own."""
        self._layers = layers
        self._memory = memory
        self._arrivals = arrivals
        self._device = device
        self._buffers: dict[int, Tensor] = {}
        self._views: dict[int, dict[str, Tensor]] = {}
        self.unpinned = 0
        """Bytes that could not be pinned."""

    def view(self, layer: int, name: str) -> Tensor:
        """The place of one weight, to be filled."""
        if layer not in self._buffers:
            memory = self._memory
            self._buffers[layer] = host_bytes(self._layers[layer].nbytes) if memory is None else memory(layer)
            self._views[layer] = self._layers[layer].views(self._buffers[layer])
        return self._views[layer][name]

    def close(self, layer: int) -> None:
        """All weights of a layer are there."""
        del self._views[layer]
        if not pin(self._buffers[layer], self._device):
            self.unpinned += self._layers[layer].nbytes

    def is_there(self, layer: int) -> bool:
        return self._arrivals.is_complete(layer)

    def get(self, layer: int) -> Tensor:
        self._arrivals.wait(layer)
        return self._buffers[layer]

    def copied(self, layer: int, event: torch.cuda.Event | None) -> None:
        """Nothing: a layer keeps its memory."""

    @property
    def nbytes(self) -> int:
        """Bytes of the host in use."""
        return sum(buffer.numel() for buffer in self._buffers.values())
