"""Layers that the host has no room for: they are read from their files each time, some layers ahead.

One thread reads them into a few pinned buffers of the host, in the order in which they are used; from there they go to
the device. The order is a circle, as that of the stream which asks for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from joyedit.models.transfer import use_in_this_thread
from joyedit.runtime.placement.host_memory import host_bytes, pin
from joyedit.runtime.placement.packed import PackedLayer

ReadWeights = Callable[[Mapping[str, Tensor]], None]
"""Fills memory of the host with weights, by their names in the network. Raises what reading raises."""


class _Buffer:
    """Memory of the host: the layer that it holds, and the copy that may still read it."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.layer: int | None = None
        self.copied: torch.cuda.Event | None = None


class DiskLayers:
    """Gives layers that a thread reads ahead. `read_seconds` and `read_bytes` count what it has read."""

    def __init__(
        self, layers: Sequence[PackedLayer], numbers: Sequence[int], buffers: int, device: torch.device
    ) -> None:
        """`numbers`: which of `layers`, ascending. Reading begins with `start`."""
        self._layers = layers
        self._order = list(numbers)
        self._device = device
        self._free = [_Buffer(self._memory()) for _ in range(min(buffers, len(self._order)))]
        self._full: dict[int, _Buffer] = {}
        self._next = 0
        self._reading: int | None = None
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.read_seconds = 0.0
        self.read_bytes = 0

    def _memory(self) -> Tensor:
        memory = host_bytes(max(self._layers[layer].nbytes for layer in self._order))
        pin(memory, self._device)
        return memory

    @property
    def nbytes(self) -> int:
        """Bytes of the host in use."""
        return sum(buffer.memory.numel() for buffer in (*self._free, *self._full.values()))

    def start(self, read: ReadWeights) -> float:
        """Begin to read ahead; gives the bytes a second in which a first layer came."""
        layer, buffer = self._order[0], self._free[0]
        begin = time.perf_counter()
        read(self._layers[layer].views(buffer.memory))
        rate = self._layers[layer].nbytes / (time.perf_counter() - begin)
        self._thread = threading.Thread(target=self._work, args=(read,), name="joyedit-read-ahead", daemon=True)
        self._thread.start()
        return rate

    def stop(self) -> None:
        """End the thread, and wait for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def is_there(self, layer: int) -> bool:
        with self._changed:
            return layer in self._full

    def get(self, layer: int) -> Tensor:
        with self._changed:
            # It comes next only if nothing else waits to be taken: what nobody takes would fill the buffers for ever.
            comes_next = self._order[self._next] == layer and not self._full
            if not (layer in self._full or layer == self._reading or comes_next):
                self._begin_at(layer)
            self._changed.wait_for(lambda: layer in self._full or self._error is not None)
            if self._error is not None:
                raise self._error
            return self._full[layer].memory[: self._layers[layer].nbytes]

    def copied(self, layer: int, event: torch.cuda.Event | None) -> None:
        """The buffer is free behind this event."""
        with self._changed:
            buffer = self._full.pop(layer)
            buffer.copied = event
            self._free.append(buffer)
            self._changed.notify_all()

    def _begin_at(self, layer: int) -> None:
        """Go on with another layer than expected: what was read ahead is not wanted."""
        self._free += self._full.values()
        self._full.clear()
        self._reading = None
        self._next = self._order.index(layer)
        self._changed.notify_all()

    def _work(self, read: ReadWeights) -> None:
        try:
            use_in_this_thread(self._device)
            while (taken := self._take()) is not None:
                layer, buffer = taken
                if buffer.copied is not None:
                    buffer.copied.synchronize()
                    buffer.copied = None
                start = time.perf_counter()
                read(self._layers[layer].views(buffer.memory))
                self.read_seconds += time.perf_counter() - start
                self.read_bytes += self._layers[layer].nbytes
                with self._changed:
                    if self._reading == layer:
                        self._full[layer] = buffer
                    else:
                        self._free.append(buffer)
                    self._reading = None
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _take(self) -> tuple[int, _Buffer] | None:
        """The next layer to be read, and a buffer for it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._can_go_on())
            if self._stopped:
                return None
            layer = self._reading = self._order[self._next]
            self._next = (self._next + 1) % len(self._order)
            return layer, self._free.pop(0)

    def _can_go_on(self) -> bool:
        return bool(self._free) and self._order[self._next] not in self._full
