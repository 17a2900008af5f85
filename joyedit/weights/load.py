"""Strict loading: a network on the meta device, renamed tensors straight to device and dtype.

Names and shapes of all files are checked before a tensor is read, and every fault is told at once.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from joyedit.errors import CheckpointError, DeviceError, first_line
from joyedit.models.transfer import to_device_as
from joyedit.printable import brief
from joyedit.weights.device_reader import DeviceReader
from joyedit.weights.files import TensorFiles
from joyedit.weights.names import DROP, Fit, Rename
from joyedit.weights.stored import Stored, StoredReader

SHOWN = 8
"""How many names of one kind of fault an error lists."""
KINDS = ("missing", "unexpected", "misshaped", "not_of_floats")
MOST_ELEMENTS = 1 << 48
BEGUN = 4
"""Weights that are read at once, at most, into memory of the host that keeps them."""
HOST = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One network of a checkpoint: the module (on the meta device), its files and their names."""

    name: str
    module: nn.Module
    files: TensorFiles
    rename: Rename
    fit: Fit


@dataclass(kw_only=True)
class Faults:
    """What is wrong between one component's files and its network."""

    component: Component
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    not_of_floats: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def lines(self) -> Iterable[str]:
        yield f"{self.component.name} ({self.component.files.where}):"
        for kind in KINDS:
            names: list[str] = getattr(self, kind)
            if names:
                more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                shown = ", ".join(brief(name, 200) for name in names[:SHOWN])
                yield f"  {len(names)} {kind.replace('_', ' ')}: {shown}{more}"


def compare(component: Component) -> Faults:
    """Names and shapes of a component's files against its network; no tensor is read."""
    faults = Faults(component=component)
    wanted = {name: tuple(p.shape) for name, p in component.module.named_parameters()}
    found: dict[str, str] = {}
    other_types = component.files.other_types()
    for source, shape in component.files.shapes().items():
        target = component.rename(source)
        if target == DROP:
            continue
        if target is None or target not in wanted:
            faults.unexpected.append(source)
            continue
        if target in found:
            faults.unexpected.append(f"{brief(source)} (a second {target})")
            continue
        found[target] = source
        if source in other_types:
            faults.not_of_floats.append(f"{brief(source)} is {other_types[source]}")
        elif _fitted(component, shape) != wanted[target]:
            sides = list(shape) if len(shape) <= SHOWN else f"of {len(shape)} dimensions"
            faults.misshaped.append(f"{brief(source)} is {sides}, expected {list(wanted[target])}")
    faults.missing = [name for name in wanted if name not in found]
    return faults


def _fitted(component: Component, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a tensor of the files takes in the network. One that no tensor can have stays as it is."""
    if len(shape) > SHOWN or any(side > MOST_ELEMENTS for side in shape) or math.prod(shape) > MOST_ELEMENTS:
        return shape
    return tuple(component.fit(torch.empty(shape, device="meta")).shape)


def check(components: Iterable[Component], layout: str) -> None:
    """Compare every component; raise one CheckpointError that lists all faults."""
    faults = [fault for component in components if (fault := compare(component))]
    if faults:
        text = "\n".join(line for fault in faults for line in fault.lines())
        raise CheckpointError(f"the checkpoint was recognised as the {layout} layout, but its tensors differ:\n{text}")


class CancelledError(Exception):
    """Nobody waits for these weights any more."""


def load(
    component: Component,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Fill a checked component's network. `dtype_of` gives each parameter's dtype by its name.

    Tensors go one at a time to the device, where they take their dtype: the host holds no copy but the system's own
    cache of the file. On a CUDA device they arrive on the current stream. Raises CheckpointError for a file that cannot
    be read, DeviceError where the device has no room, and CancelledError when `cancelled` says so between two
    tensors.
    """
    state: dict[str, Tensor] = {}
    reader = WeightReader(component, device, dtype_of)
    try:
        with told_as_faults_of(component, device, dtype_of):
            for name, tensor in reader.tensors(list(reader.sources)):
                if cancelled():
                    raise CancelledError
                state[name] = to_device_as(tensor, device, dtype_of(name)).contiguous()
            component.module.load_state_dict(state, strict=True, assign=True)
    finally:
        reader.close()
    component.module.requires_grad_(False).eval()


class Destination(Protocol):
    """Where weights go that have no place in a network's modules. Weights are named as in the network."""

    def order(self, name: str) -> Any:
        """A key: weights come sorted by it."""

    def is_read_later(self, name: str) -> bool:
        """Whether this weight is read from its file each time it is used, and so is not loaded."""

    def host_view(self, name: str) -> Tensor | None:
        """The memory of the host that takes this weight, in its shape and dtype; None if `place` takes it."""

    def filled(self, name: str) -> None:
        """What `host_view` gave holds the weight now."""

    def place(self, name: str, tensor: Tensor) -> None:
        """Take a weight in its file's dtype. On a CUDA device it arrives on the current stream."""


class WeightReader:
    """Reads single weights of a checked component, by their names in the network. `device` is where `tensors` go."""

    def __init__(
        self, component: Component, device: torch.device = HOST, dtype_of: Callable[[str], torch.dtype] | None = None
    ) -> None:
        self._component = component
        targets = ((source, component.rename(source)) for source in component.files.shapes())
        self.sources = {target: source for source, target in targets if target}
        self._reader = StoredReader()
        self._dtype_of = dtype_of
        # An Apple GPU lacks some of the dtypes of files, so weights take theirs before they go there.
        self._mapped_to = HOST if device.type == "mps" else device
        self._to_device = DeviceReader(self._reader, device) if device.type == "cuda" else None

    def fill(self, views: Mapping[str, Tensor]) -> None:
        """Read these weights into the host's memory. They take its dtype."""
        others = {self.sources[name]: view for name, view in views.items() if self._as_it_lies(name, view) is None}
        begun = [self.start(name, view) for name, view in views.items() if self.sources[name] not in others]
        for source, tensor in self._component.files.read(HOST, list(others)) if others else ():
            others[source].copy_(self._component.fit(tensor))
        for wait in begun:
            wait()

    def start(self, name: str, view: Tensor) -> Callable[[], None]:
        """Begin to read a weight into the host's memory. Gives a function that waits until it is there."""
        stored = self._as_it_lies(name, view)
        if stored is not None:
            return self._reader.start(stored, view)
        for _, tensor in self._component.files.read(HOST, [self.sources[name]]):
            view.copy_(self._component.fit(tensor))
        return _nothing

    def _as_it_lies(self, name: str, view: Tensor) -> Stored | None:
        """Where a weight lies in its file, if it can be read into `view` as it is."""
        stored = self._component.files.stored(self.sources[name])
        return stored if stored is not None and (stored.dtype, stored.nbytes) == (view.dtype, view.nbytes) else None

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """These weights on the device, in the dtype of their files, one at a time."""
        direct = {name: stored for name in names if (stored := self._direct(name)) is not None}
        mapped = self._component.files.read(self._mapped_to, [self.sources[n] for n in names if n not in direct])
        for name in names:
            if name in direct and self._to_device is not None:
                tensor = self._to_device.read(direct[name])
                tensor = tensor.view(self._component.files.shapes()[self.sources[name]])
            else:
                _, tensor = next(mapped)
            yield name, self._component.fit(tensor)

    def _direct(self, name: str) -> Stored | None:
        """Where the elements of a weight lie that can be read straight to the device, as it keeps their dtype."""
        if self._to_device is None or self._dtype_of is None:
            return None
        stored = self._component.files.stored(self.sources[name])
        return stored if stored is not None and stored.dtype == self._dtype_of(name) else None

    def close(self) -> None:
        """Close the files."""
        self._reader.close()


def load_in_order(
    component: Component,
    destination: Destination,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Bring the weights of a checked component to their destination, in the order that it wishes.

    Those that `place` takes are on the device already, on the current stream. Raises the same errors as `load`.
    """
    reader = WeightReader(component, device, dtype_of)
    names = [name for name in sorted(reader.sources, key=destination.order) if not destination.is_read_later(name)]
    views = {name: view for name in names if (view := destination.host_view(name)) is not None}
    mapped = reader.tensors([name for name in names if name not in views])
    begun: deque[tuple[str, Callable[[], None]]] = deque()  # so that no reading thread waits for the others

    def finish(at_most: int) -> None:
        while len(begun) > at_most:
            name, wait = begun.popleft()
            wait()
            destination.filled(name)

    try:
        with told_as_faults_of(component, device, dtype_of):
            for name in names:
                if cancelled():
                    raise CancelledError
                if name in views:
                    begun.append((name, reader.start(name, views.pop(name))))
                    finish(BEGUN)
                else:
                    destination.place(*next(mapped))
            finish(0)
    finally:
        mapped.close()  # type: ignore[attr-defined]
        reader.close()
    component.module.eval()


def _nothing() -> None:
    """There is nothing to wait for."""


@contextmanager
def told_as_faults_of(
    component: Component, device: torch.device, dtype_of: Callable[[str], torch.dtype]
) -> Iterator[None]:
    """Whatever reading and placing weights raises becomes a DeviceError or a CheckpointError that names the file."""
    where = component.files.where
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        need = sum(p.numel() * dtype_of(name).itemsize for name, p in component.module.named_parameters())
        raise DeviceError(
            f"{where}: the {component.name} takes {need / 2**30:.1f} GiB, and {device} has no room for it"
        ) from error
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{where}: the {component.name} cannot be loaded ({reason})") from error


class Loading:
    """`load` in a thread of its own, so that other networks can work meanwhile."""

    def __init__(self, load: Callable[[Callable[[], bool]], None]) -> None:
        """`load` takes a function that says whether it is cancelled."""
        self._load = load
        self._cancelled = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="joyedit-load", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the end, and raise what `load` raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Stop before the next tensor, and wait for that."""
        self._cancelled.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            self._load(self._cancelled.is_set)
        except BaseException as error:
            self._error = error
