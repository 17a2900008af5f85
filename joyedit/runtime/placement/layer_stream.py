"""Layers that pass through a few buffers of the device, one after the other, while the layers before them compute.

On CUDA one stream of its own does the copies. A buffer's next layer is queued as soon as the layer that lay there has
been queued, behind an event: so the bus never waits for the host, and the host never waits for the bus. The order is a
circle: behind the last layer of one pass come the first ones of the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from joyedit.runtime.placement.layer_sources import LayerSource
from joyedit.runtime.placement.packed import PackedLayer


class _Slot:
    """A buffer of the device, what it holds, and the events that order its use."""

    def __init__(self, buffer: Tensor, cuda: bool) -> None:
        self.buffer = buffer
        self.layer: int | None = None
        self.views: dict[int, dict[str, Tensor]] = {}
        self.copied = torch.cuda.Event() if cuda else None
        self.used = torch.cuda.Event() if cuda else None


class LayerStream:
    """Streams some of a network's layers. `need` and `used` enclose each use of a layer; other layers may be asked too.

    The network computes on the stream that was current when the object was made.
    """

    def __init__(
        self,
        layers: Sequence[PackedLayer],
        streamed: Sequence[int],
        source: LayerSource,
        device: torch.device,
        slots: int,
    ) -> None:
        """`streamed`: numbers of the layers to be streamed, ascending. `slots`: how many lie on the device at once."""
        self._layers = layers
        self._order = list(streamed)
        self._place = {layer: place for place, layer in enumerate(streamed)}
        self._source = source
        self._device = device
        self._count = min(slots, len(self._order))
        self._slots: list[_Slot] = []
        self._on_device: dict[int, _Slot] = {}
        self._idle: deque[_Slot] = deque()
        self._ahead = 0
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._work = torch.cuda.current_stream(device)
            self._copies = torch.cuda.Stream(device)
        for layer in self._order:
            layers[layer].point_nowhere(device)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the device that the buffers take."""
        return self._count * max((self._layers[layer].nbytes for layer in self._order), default=0)

    @property
    def pass_bytes(self) -> int:
        """Bytes that come over the bus in one pass."""
        return sum(self._layers[layer].nbytes for layer in self._order)

    def need(self, layer: int) -> None:
        """Let what is queued from now on compute with this layer. Waits only for weights that are still loading."""
        if layer not in self._place:
            return
        if layer not in self._on_device:
            self._fetch_until(layer)
        slot = self._on_device[layer]
        if slot.copied is not None:
            self._work.wait_event(slot.copied)
        if layer not in slot.views:
            slot.views[layer] = self._layers[layer].views(slot.buffer)
        self._layers[layer].point_to(slot.views[layer])

    def used(self, layer: int) -> None:
        """What was queued until now was the last use of this layer in its pass: its buffer takes another one."""
        slot = self._on_device.pop(layer, None)
        if slot is None:
            return
        if slot.used is not None:
            slot.used.record(self._work)
        self._idle.append(slot)
        while self._idle and self._source.is_there(self._order[self._ahead]):
            self._fetch_next()

    def release(self) -> None:
        """Give the buffers back to the allocator. The next `need` makes new ones."""
        if not self._slots:
            return
        if self._cuda:
            self._work.wait_stream(self._copies)
        for layer in self._order:
            self._layers[layer].point_nowhere(self._device)
        self._slots, self._on_device = [], {}
        self._idle.clear()

    def _fetch_until(self, layer: int) -> None:
        """Fetch in order until this layer is on its way. If it is not what comes next, begin anew with it."""
        if not self._idle or self._order[self._ahead] != layer:
            self._begin_at(layer)
        self._fetch_next()
        while self._idle and self._source.is_there(self._order[self._ahead]):
            self._fetch_next()

    def _begin_at(self, layer: int) -> None:
        """Take all buffers for the layers from this one on."""
        if not self._slots:
            size = max(self._layers[layer].nbytes for layer in self._order)
            with torch.inference_mode(False):
                self._slots = [
                    _Slot(torch.empty(size, dtype=torch.uint8, device=self._device), self._cuda)
                    for _ in range(self._count)
                ]
        self._on_device = {}
        self._idle = deque(self._slots)
        self._ahead = self._place[layer]
        for slot in self._slots:
            if slot.used is not None:
                slot.used.record(self._work)

    def _fetch_next(self) -> None:
        """Queue the copy of the next layer into the buffer that has been idle for longest."""
        layer, slot = self._order[self._ahead], self._idle[0]
        if slot.layer != layer:
            host = self._source.get(layer)
            slot.layer = None  # if the copy cannot be queued, the buffer holds no layer
            self._copy(host, slot)
            self._source.copied(layer, slot.copied)
            slot.layer = layer
        self._idle.popleft()
        self._ahead = (self._ahead + 1) % len(self._order)
        self._on_device[layer] = slot

    def _copy(self, host: Tensor, slot: _Slot) -> None:
        if slot.copied is None or slot.used is None:
            slot.buffer[: host.numel()].copy_(host)
            return
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(slot.used)
            slot.buffer[: host.numel()].copy_(host, non_blocking=True)
            slot.copied.record(self._copies)
