"""One network by its plan: a weight that is loaded goes where it belongs, and the layers that pass are streamed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from joyedit.runtime.placement.layer_sources import Arrivals, HostLayers, LayerSource
from joyedit.runtime.placement.layer_stream import LayerStream
from joyedit.runtime.placement.packed import PackedLayer, assign

REST = -1
"""Stands for the number of a layer: all weights that are in none."""
HOST = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing:
    """Which of a network's layers pass through the device. `prefix` names their ModuleList, `slots` counts the buffers.

    Weights of a layer for which `left_out` holds stay with the rest of the network. `from_disk`: those of `streamed`
    that `open_disk` gives; the host keeps no copy of them.
    """

    prefix: str
    streamed: Sequence[int]
    slots: int
    left_out: Callable[[str], bool] = lambda name: False


class PlacedLayers:
    """The layers of one ModuleList. `need` and `used` enclose each use of one, as the DiT and hooks call them."""

    def __init__(
        self,
        network: nn.Module,
        passing: Passing,
        device: torch.device,
        dtype_of: Callable[[str], torch.dtype],
    ) -> None:
        self._modules: list[nn.Module] = list(network.get_submodule(passing.prefix).children())
        self.layers = [
            PackedLayer(module, dtype_of, prefix=f"{passing.prefix}.{number}.", left_out=passing.left_out)
            for number, module in enumerate(self._modules)
        ]
        self.layer_of = {name: number for number, layer in enumerate(self.layers) for name in layer.names}
        self.arrivals = Arrivals({number: len(layer.names) for number, layer in enumerate(self.layers)})
        self.host = HostLayers(self.layers, self.arrivals, device)
        self.streamed = frozenset(passing.streamed)
        self.stream = LayerStream(self.layers, passing.streamed, self.host, device, passing.slots)

    def need(self, layer: int) -> None:
        """What is queued from now on computes with this layer. Raises what loading raised."""
        self.arrivals.wait(layer)
        self.stream.need(layer)

    def used(self, layer: int) -> None:
        """The layer was queued for the last time in this pass."""
        self.stream.used(layer)

    def hook(self) -> None:
        """Let every call of a layer's module need it before and have used it after."""
        for number, module in enumerate(self._modules):
            module.register_forward_pre_hook(lambda *_, number=number: self.need(number))
            module.register_forward_hook(lambda *_, number=number: self.used(number))


class PlacedNetwork:
    """A network on the meta device that takes its weights one by one, in any order, from one thread."""

    def __init__(
        self,
        network: nn.Module,
        passing: Sequence[Passing],
        device: torch.device,
        dtype_of: Callable[[str], torch.dtype],
        on_host: Collection[str] = (),
    ) -> None:
        """`on_host`: names of weights outside of all layers that stay in the host's memory."""
        self._network = network
        self._device = device
        self._dtype_of = dtype_of
        self._on_host = frozenset(on_host)
        self.groups = [PlacedLayers(network, one, device, dtype_of) for one in passing]
        inside = {name for group in self.groups for name in group.layer_of}
        rest = [name for name, _ in network.named_parameters() if name not in inside]
        self._rest = Arrivals({REST: len(rest)})
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def order(self, name: str) -> tuple[int, int]:
        """Where a weight stands in the order in which they are needed: the rest first, then layer by layer."""
        for place, group in enumerate(self.groups):
            if name in group.layer_of:
                return place, group.layer_of[name]
        return REST, REST

    def place(self, name: str, tensor: Tensor) -> None:
        """Put a weight where it belongs. It is copied unless it is there already."""
        group = next((group for group in self.groups if name in group.layer_of), None)
        layer = REST if group is None else group.layer_of[name]
        arrivals = self._rest if group is None else group.arrivals
        if group is not None and layer in group.streamed:
            group.host.put(layer, name, tensor)
        else:
            with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
                where = HOST if name in self._on_host else self._device
                assign(self._network, name, tensor.to(where, self._dtype_of(name)).contiguous())
        if not arrivals.arrived(layer):
            return
        if group is not None and layer in group.streamed:
            group.host.close(layer)
        elif self._copies is not None:
            self._copies.synchronize()
        arrivals.complete(layer)

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

    @property
    def host_bytes(self) -> int:
        """Bytes of the host that passing layers take."""
        return sum(group.host.nbytes for group in self.groups)


__all__ = ["HOST", "REST", "LayerSource", "Passing", "PlacedLayers", "PlacedNetwork"]
