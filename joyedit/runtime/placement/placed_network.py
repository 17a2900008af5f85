"""One network by its plan: a weight that is loaded goes where it belongs, and the layers that pass are streamed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from joyedit.models.transfer import to_device_as, use_in_this_thread
from joyedit.runtime.placement.disk_layers import DiskLayers, ReadWeights
from joyedit.runtime.placement.layer_sources import Arrivals, HostLayers, LayerSource
from joyedit.runtime.placement.layer_stream import LayerStream
from joyedit.runtime.placement.packed import PackedLayer, assign
from joyedit.runtime.placement.plan import FEWEST_SLOTS
from joyedit.runtime.placement.shared_host import SharedHost

REST = -1
"""Stands for the number of a layer: all weights that are in none."""


def _nothing() -> None:
    """There is nothing to close."""


def _close(group: PlacedLayers, layer: int) -> None:
    """All weights of a layer are in the host's memory. Whoever waits for them gets them, or the error."""
    try:
        group.host.close(layer)
    except BaseException as error:
        group.arrivals.fail(error)
    else:
        group.arrivals.complete(layer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing:
    """Which of a network's layers pass through the device. `prefix` names their ModuleList, `slots` counts the buffers.

    `from_disk`: those of `streamed` that are read from their files each time. Weights of a layer for which `left_out`
    holds stay with the rest of the network.
    """

    prefix: str
    streamed: Sequence[int]
    slots: int
    from_disk: Sequence[int] = ()
    left_out: Callable[[str], bool] = lambda name: False


class _HostOrDisk:
    """Layers of which some lie in the host's memory and the others in their files."""

    def __init__(self, host: HostLayers, disk: DiskLayers, from_disk: Collection[int]) -> None:
        self._sources: tuple[LayerSource, LayerSource] = (host, disk)
        self._from_disk = frozenset(from_disk)

    def _of(self, layer: int) -> LayerSource:
        return self._sources[layer in self._from_disk]

    def is_there(self, layer: int) -> bool:
        return self._of(layer).is_there(layer)

    def get(self, layer: int) -> Tensor:
        return self._of(layer).get(layer)

    def copied(self, layer: int, event: torch.cuda.Event | None) -> None:
        self._of(layer).copied(layer, event)


class PlacedLayers:
    """The layers of one ModuleList. `need` and `used` enclose each use of one, as the DiT and hooks call them."""

    def __init__(
        self,
        network: nn.Module,
        passing: Passing,
        device: torch.device,
        dtype_of: Callable[[str], torch.dtype],
        shared: SharedHost | None = None,
    ) -> None:
        self._modules: list[nn.Module] = list(network.get_submodule(passing.prefix).children())
        self._hooks: list[RemovableHandle] = []
        self._device, self._slots = device, passing.slots
        self.layers = [
            PackedLayer(module, dtype_of, prefix=f"{passing.prefix}.{number}.", left_out=passing.left_out)
            for number, module in enumerate(self._modules)
        ]
        self.layer_of = {name: number for number, layer in enumerate(self.layers) for name in layer.names}
        self.from_disk = frozenset(passing.from_disk)
        self.on_host = frozenset(passing.streamed) - self.from_disk
        loaded = {n: len(layer.names) for n, layer in enumerate(self.layers) if n not in self.from_disk}
        self.arrivals = Arrivals(loaded)
        sizes = [layer.nbytes for layer in self.layers]
        memory = None if shared is None else shared.place(passing.prefix, sizes)
        self.host = HostLayers(self.layers, self.arrivals, device, memory)
        self.disk: DiskLayers | None = None
        self._source: LayerSource = self.host
        if passing.from_disk:
            self.disk = DiskLayers(self.layers, passing.from_disk, passing.slots, device)
            self._source = _HostOrDisk(self.host, self.disk, passing.from_disk)
        self.stream = LayerStream(self.layers, passing.streamed, self._source, device, passing.slots)

    def need(self, layer: int) -> None:
        """What is queued from now on computes with this layer. Raises what loading raised."""
        self.arrivals.wait(layer)
        self.stream.need(layer)

    def used(self, layer: int) -> None:
        """The layer was queued for the last time in this pass."""
        self.stream.used(layer)

    @property
    def resident(self) -> list[int]:
        """Numbers of the layers that stay on the device."""
        return [n for n in range(len(self.layers)) if n not in self.on_host and n not in self.from_disk]

    def give_way(self, count: int) -> int:
        """Let so many of the resident layers pass too, from now on; gives how many did. All must be loaded.

        Their weights go to the host's memory. It makes room on the device.
        """
        resident = self.resident
        leaving = resident[:: max(1, len(resident) // max(1, count))][:count]
        for layer in leaving:
            self.arrivals.wait(layer)
            for name, tensor in self.layers[layer].tensors().items():
                self.host.view(layer, name).copy_(tensor)
            self.host.close(layer)
        if leaving:
            self.stream.release()
            self.on_host |= set(leaving)
            passing = sorted(self.on_host | self.from_disk)
            self.stream = LayerStream(self.layers, passing, self._source, self._device, self._slots or FEWEST_SLOTS)
        return len(leaving)

    def hook(self) -> None:
        """Let every call of a layer's module need it before and have used it after, until `unhook`."""
        for number, module in enumerate(self._modules):
            self._hooks.append(module.register_forward_pre_hook(lambda *_, number=number: self.need(number)))
            self._hooks.append(module.register_forward_hook(lambda *_, number=number: self.used(number)))

    def unhook(self) -> None:
        """Let the modules know nothing of these layers: else all of them would wait for the garbage collector."""
        while self._hooks:
            self._hooks.pop().remove()

    @property
    def host_bytes(self) -> int:
        """Bytes of the host that the layers take."""
        return self.host.nbytes + (0 if self.disk is None else self.disk.nbytes)


class PlacedNetwork:
    """A network on the meta device that takes its weights one by one, in any order, from one thread."""

    def __init__(
        self,
        network: nn.Module,
        passing: Sequence[Passing],
        device: torch.device,
        dtype_of: Callable[[str], torch.dtype],
        on_host: Collection[str] = (),
        shared: SharedHost | None = None,
    ) -> None:
        """`on_host`: names of weights outside of all layers that stay in the host's memory. `shared`: where the layers
        that pass have one copy for several processes.
        """
        self._network = network
        self._device = device
        self._dtype_of = dtype_of
        self._on_host = frozenset(on_host)
        self._kept: dict[str, Tensor] = {}
        self.groups = [PlacedLayers(network, one, device, dtype_of, shared) for one in passing]
        inside = {name for group in self.groups for name in group.layer_of}
        rest = [name for name, _ in network.named_parameters() if name not in inside]
        self._rest = Arrivals({REST: len(rest)})
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pins = ThreadPoolExecutor(1, "joyedit-pin", use_in_this_thread, (device,))
        self._close: Callable[[], None] = _nothing

    def order(self, name: str) -> tuple[int, int]:
        """Where a weight stands in the order in which they are needed: the rest first, then layer by layer."""
        for place, group in enumerate(self.groups):
            if name in group.layer_of:
                return place, group.layer_of[name]
        return REST, REST

    def is_read_later(self, name: str) -> bool:
        """Whether this weight is in a layer that is read from the disk each time."""
        group, layer = self._where(name)
        return group is not None and layer in group.from_disk

    def host_view(self, name: str) -> Tensor | None:
        """The host's memory for a weight that waits or stays there, to be filled; None for every other weight."""
        if name in self._on_host:
            if name not in self._kept:
                shape = self._network.get_parameter(name).shape
                self._kept[name] = torch.empty(shape, dtype=self._dtype_of(name))
            return self._kept[name]
        group, layer = self._where(name)
        return group.host.view(layer, name) if group is not None and layer in group.on_host else None

    def filled(self, name: str) -> None:
        """What `host_view` gave holds its weight."""
        group, layer = self._where(name)
        if group is None:
            assign(self._network, name, self._kept.pop(name))
            if self._rest.arrived(REST):
                self._rest.complete(REST)
        elif group.arrivals.arrived(layer):
            if self._copies is None:
                _close(group, layer)
            else:  # pinning takes about as long as reading, so the next layer is read meanwhile
                self._pins.submit(_close, group, layer)

    def place(self, name: str, tensor: Tensor) -> None:
        """Put a weight where it belongs. It is copied unless it is there already.

        One on a CUDA device may still be arriving on the current stream.
        """
        view = self.host_view(name)
        if view is not None:
            view.copy_(tensor)
            self.filled(name)
            return
        if self._copies is not None:
            self._copies.wait_stream(torch.cuda.current_stream(self._device))
            if tensor.is_cuda:  # where it takes another dtype, its memory goes to nobody before it was read
                tensor.record_stream(self._copies)
        with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
            assign(self._network, name, to_device_as(tensor, self._device, self._dtype_of(name)).contiguous())
        group, layer = self._where(name)
        arrivals = self._rest if group is None else group.arrivals
        if arrivals.arrived(layer):
            if self._copies is not None:
                self._copies.synchronize()
            arrivals.complete(layer)

    @property
    def reads_later(self) -> bool:
        """Whether some layers are read from the disk each time."""
        return any(group.disk is not None for group in self.groups)

    def read_ahead(self, read: ReadWeights, close: Callable[[], None]) -> float:
        """Begin to read the layers that are not loaded; gives the bytes a second in which a first one came.

        `read` fills memory with weights by their names. `close` is called when nothing will be read any more.
        """
        self._close = close
        return min([group.disk.start(read) for group in self.groups if group.disk is not None], default=0.0)

    def fail(self, error: BaseException) -> None:
        """No further weights will come: whoever waits for some gets this error."""
        for arrivals in (self._rest, *(group.arrivals for group in self.groups)):
            arrivals.fail(error)

    def wait_for_rest(self) -> None:
        """Wait for all weights that are in no layer. Raises what loading raised."""
        self._rest.wait(REST)

    def release(self) -> None:
        """Give the buffers of passing layers back to the device."""
        for group in self.groups:
            group.stream.release()

    def close(self) -> None:
        """Stop reading ahead."""
        self._pins.shutdown()
        for group in self.groups:
            group.unhook()
            if group.disk is not None:
                group.disk.stop()
        self._close()
        self._close = _nothing

    @property
    def host_bytes(self) -> int:
        """Bytes of the host that passing layers take."""
        return sum(group.host_bytes for group in self.groups)

    def _where(self, name: str) -> tuple[PlacedLayers | None, int]:
        """The layers that a weight belongs to, and the number of its layer; None for one in no layer."""
        group = next((group for group in self.groups if name in group.layer_of), None)
        return group, REST if group is None else group.layer_of[name]
