"""The tensors of a network of which some layers are of 8 bits: their weights are quantised as they are read.

For each such weight two tensors come: its values, and its scales, one a row. LoRAs are merged before. A file of fp8
whose scales fit is taken as it is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from joyedit.models.quantised_rows import MOST, Quantised, quantised_weight
from joyedit.models.transfer import to_device_as
from joyedit.weights.device_reader import DeviceReader
from joyedit.weights.float8 import Float8Files
from joyedit.weights.load import Component
from joyedit.weights.stored import Stored, StoredReader

_SCALE = " (scales)"
"""Behind the name of a weight it names its scales. No file has such a name."""
DtypeOf = Callable[[str], torch.dtype]


class Change(Protocol):
    """Changes weights, by their names in the network, before they are quantised."""

    def changes(self, name: str) -> bool: ...

    def __call__(self, name: str, tensor: Tensor) -> Tensor: ...


def quantised_component(
    component: Component, device: torch.device, dtype_of: DtypeOf, exact_dtype_of: DtypeOf, change: Change | None
) -> Component:
    """The same component where the module has layers of 8 bits: `compare` knows it no more, `load` does.

    `dtype_of` gives a weight's dtype in the network, `exact_dtype_of` the one that it has before it is quantised, on
    the `device`.
    """
    weights = {name: dtype_of(name) for name, _ in component.module.named_parameters() if dtype_of(name) in MOST}
    files = QuantisedFiles(component, weights, device, exact_dtype_of, change)
    return Component(
        name=component.name, module=component.module, files=files, rename=files.rename, fit=lambda tensor: tensor
    )


class QuantisedFiles:
    """`TensorFiles` of a component, with weights of 8 bits and their scales. Tensors have the network's shapes."""

    def __init__(
        self,
        component: Component,
        weights: Mapping[str, torch.dtype],
        device: torch.device,
        exact_dtype_of: DtypeOf,
        change: Change | None,
    ) -> None:
        """`weights`: the dtype of each weight that is quantised, by its name in the network."""
        self._component, self._inner = component, component.files
        self.where = component.files.where
        self._weights, self._device = weights, device
        self._exact_dtype_of, self._change = exact_dtype_of, change
        self._targets = {source: component.rename(source) for source in self._inner.shapes()}
        self._shapes = {source: self._fitted(shape) for source, shape in self._inner.shapes().items()}
        self._pending: dict[str, Tensor] = {}
        self._lock = threading.Lock()
        self._reader = StoredReader()
        self._of_thread = threading.local()

    def rename(self, name: str) -> str | None:
        """As the component does; the scales of `x.weight` are `x.weight_scale`."""
        target = self._targets.get(name.removesuffix(_SCALE))
        return f"{target}_scale" if target and name.endswith(_SCALE) else target

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for name, shape in self._shapes.items():
            found[name] = shape
            if self._is_quantised(name):
                found[name + _SCALE] = (shape[0], 1)
        return found

    def other_types(self) -> Mapping[str, str]:
        return self._inner.other_types()

    def stored(self, name: str) -> Stored | None:
        """Values of fp8 that nothing changes lie in their file as they are; so do weights that are not quantised."""
        if not self._is_quantised(name):
            return None if name.endswith(_SCALE) else self._stored_as_it_is(name)
        taken = isinstance(self._inner, Float8Files) and self._is_taken(name)
        return self._inner.stored_values(name) if taken and isinstance(self._inner, Float8Files) else None

    def _stored_as_it_is(self, name: str) -> Stored | None:
        """None where the network takes some of the elements only."""
        is_whole = math.prod(self._shapes[name]) == math.prod(self._inner.shapes()[name])
        return self._inner.stored(name) if is_whole else None

    def _fitted(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._component.fit(torch.empty(shape, device="meta")).shape)

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        wanted = list(self.shapes()) if names is None else names
        plain = self._inner.read(device, [name for name in wanted if not self._is_half(name)])
        for name in wanted:
            if self._is_half(name):
                yield name, self._half(name)
            else:
                _, tensor = next(plain)
                yield name, self._component.fit(tensor)

    def exact(self, name: str) -> Tensor:
        """A weight of the network before anything changes or quantises it, on the device in its exact dtype."""
        (source,) = [source for source, target in self._targets.items() if target == name]
        exact = to_device_as(self._component.fit(self._read(source)), self._device, self._exact_dtype_of(name))
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        return exact

    def close(self) -> None:
        """Close the files. Nobody may be reading."""
        self._reader.close()

    def _is_quantised(self, source: str) -> bool:
        return self._targets.get(source) in self._weights

    def _is_half(self, name: str) -> bool:
        return self._is_quantised(name.removesuffix(_SCALE))

    def _half(self, name: str) -> Tensor:
        """Values or scales. What one call makes and is not asked for waits for the next one."""
        source = name.removesuffix(_SCALE)
        if self._is_taken(source):  # by itself: the other half mostly is read by its place, and would wait for ever
            assert isinstance(self._inner, Float8Files)
            read = self._inner.kept_values if name == source else self._inner.kept_scales
            return read(source, self._device)
        with self._lock:
            waiting = self._pending.pop(name, None)
        if waiting is not None:
            return waiting
        values, scales = self._made(source)
        with self._lock:
            if name == source:
                self._pending[source + _SCALE] = scales
                return values
            self._pending[source] = values
            return scales

    def _made(self, source: str) -> Quantised:
        target = self._targets[source]
        assert target is not None
        with torch.no_grad():
            weight = self._component.fit(self._read(source))
            if self._change is not None:
                weight = self._change(target, weight)
            exact = to_device_as(weight, self._device, self._exact_dtype_of(target))
            made = quantised_weight(exact, self._weights[target])
        if self._device.type == "cuda":  # who takes it may be on another stream
            torch.cuda.current_stream(self._device).synchronize()
        return made

    def _is_taken(self, source: str) -> bool:
        """Whether the file's values of fp8 are the network's."""
        target = self._targets.get(source)
        return (
            isinstance(self._inner, Float8Files)
            and target is not None
            and target in self._weights
            and self._inner.is_kept_as(source, self._weights[target])
            and (self._change is None or not self._change.changes(target))
        )

    def _read(self, source: str) -> Tensor:
        """A tensor of the files, on the device where that is a GPU."""
        stored = self._inner.stored(source) if self._device.type == "cuda" else None
        if stored is not None:
            if not hasattr(self._of_thread, "to_device"):
                self._of_thread.to_device = DeviceReader(self._reader, self._device)
            found: Tensor = self._of_thread.to_device.read(stored)
            return found.view(self._inner.shapes()[source])
        device = self._device if self._device.type == "cuda" else torch.device("cpu")
        ((_, tensor),) = self._inner.read(device, [source])
        return tensor
