"""Strict loading: a network on the meta device, renamed tensors straight to device and dtype.

Names and shapes of all files are checked before a tensor is read, and every fault is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from joyedit.errors import CheckpointError
from joyedit.weights.files import TensorFiles
from joyedit.weights.names import DROP, Fit, Rename

SHOWN = 8
"""How many names of one kind of fault an error lists."""


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

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def lines(self) -> Iterable[str]:
        yield f"{self.component.name} ({self.component.files.where}):"
        for kind in ("missing", "unexpected", "misshaped"):
            names: list[str] = getattr(self, kind)
            if names:
                more = f", ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                yield f"  {len(names)} {kind}: {', '.join(names[:SHOWN])}{more}"


def compare(component: Component) -> Faults:
    """Names and shapes of a component's files against its network; no tensor is read."""
    faults = Faults(component=component)
    wanted = {name: tuple(p.shape) for name, p in component.module.named_parameters()}
    found: dict[str, str] = {}
    for source, shape in component.files.shapes().items():
        target = component.rename(source)
        if target == DROP:
            continue
        if target is None or target not in wanted:
            faults.unexpected.append(source)
            continue
        if target in found:
            faults.unexpected.append(f"{source} (a second {target})")
            continue
        found[target] = source
        fitted = tuple(component.fit(torch.empty(shape, device="meta")).shape)
        if fitted != wanted[target]:
            faults.misshaped.append(f"{source} is {list(shape)}, expected {list(wanted[target])}")
    faults.missing = [name for name in wanted if name not in found]
    return faults


def check(components: Iterable[Component], layout: str) -> None:
    """Compare every component; raise one CheckpointError that lists all faults."""
    faults = [fault for component in components if (fault := compare(component))]
    if faults:
        text = "\n".join(line for fault in faults for line in fault.lines())
        raise CheckpointError(f"the checkpoint was recognised as the {layout} layout, but its tensors differ:\n{text}")


def load(component: Component, device: torch.device, dtype_of: Callable[[str], torch.dtype]) -> None:
    """Fill a checked component's network. `dtype_of` gives each parameter's dtype by its name.

    Tensors go one at a time from the file to the device, so the host never holds a second copy.
    """
    state: dict[str, Tensor] = {}
    for source, tensor in component.files.read(device):
        target = component.rename(source)
        if target:
            state[target] = component.fit(tensor).to(dtype_of(target)).contiguous()
    component.module.load_state_dict(state, strict=True, assign=True)
    component.module.requires_grad_(False).eval()
