"""A LoRA's file, checked against the DiT: every name, shape, type and number. Whatever is wrong is told at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from joyedit.errors import CheckpointError, first_line
from joyedit.job.spec import Lora
from joyedit.models.lora import LowRank
from joyedit.printable import brief
from joyedit.weights.files import SafetensorsFiles
from joyedit.weights.lora_facts import SAFETENSORS, content_hash
from joyedit.weights.lora_names import NamedLora, NamedMatrices, read_names
from joyedit.weights.lora_scaling import MOST_ALPHA, Scaling, scaling_of
from joyedit.weights.pickle_file import PickleFile
from joyedit.weights.regular_files import printable_path

SHOWN = 8
"""How many faults of one kind an error lists."""
MOST_DIMENSIONS = 8
HOST = torch.device("cpu")

LayerShapes = Mapping[str, tuple[int, int]]
"""The layers that a LoRA may change: outputs and inputs by name."""


def layer_shapes(network: nn.Module) -> dict[str, tuple[int, int]]:
    """The linear layers of a network, which may be on the meta device."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    }


class LoraFile:
    """The matrices of one LoRA, by the layers that they change. The file stays open for `read`."""

    def __init__(self, path: Path, layers: LayerShapes) -> None:
        """Raises CheckpointError with everything that is wrong with the file."""
        self.where = printable_path(path)
        self._files = SafetensorsFiles([path]) if path.suffix == SAFETENSORS else PickleFile(path)
        self._shapes = self._files.shapes()
        scaling = scaling_of(path)
        named = read_names(self._shapes, layers)
        self._refuse_other_kinds(named)
        faults = _Faults(self.where)
        faults.add("names that lead to no layer of the DiT", [brief(name) for name in named.unknown])
        faults.add("names that lead to a layer twice", named.doubled)
        types = self._files.other_types()
        faults.add("tensors that are no floating-point numbers", [f"{brief(n)} is {t}" for n, t in types.items()])
        others = self._files.others if isinstance(self._files, PickleFile) else []
        faults.add("numbers that are no tensors", [brief(name) for name in others if name.endswith(".alpha")])
        faults.add("layers with one matrix of two", [layer for layer, one in named.layers.items() if not _whole(one)])
        whole = {layer: one for layer, one in named.layers.items() if _whole(one)}
        faults.add("shapes that do not fit", [f for n, m in whole.items() for f in self._misfits(m, layers[n])])
        faults.add("ranks that differ", [f for n, m in whole.items() for f in self._ranks(n, m, scaling)])
        if not named.layers:
            faults.add("no layer of the DiT is changed", ["it holds no matrices of a LoRA"])
        faults.raise_any()
        self._layers = whole
        self._factors = self._finite_factors(scaling, faults)
        faults.raise_any()

    @property
    def layers(self) -> list[str]:
        """The names of the layers that the LoRA changes."""
        return list(self._layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices, four for each number at the most."""
        return sum(
            4 * (_count(self._shapes[str(one.down)]) + _count(self._shapes[str(one.up)]))
            for one in self._layers.values()
        )

    def read(self, scale: float, device: torch.device = HOST) -> Iterator[tuple[str, LowRank]]:
        """Each layer's matrices on the device, in the file's dtype, one layer at a time."""
        for layer, one in self._layers.items():
            tensors = dict(self._tensors([str(one.down), str(one.up)]))
            down, up = (tensors[str(name)].to(device) for name in (one.down, one.up))
            yield layer, LowRank(down=down, up=up, factor=scale * self._factors[layer])

    def _tensors(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        try:
            yield from self._files.read(HOST, names)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"{self.where}: cannot be read ({first_line(error)})") from error

    def _refuse_other_kinds(self, named: NamedLora) -> None:
        kinds = dict(named.kinds)
        for name, shape in self._shapes.items():
            matrix = name.endswith(".weight") and ".lora" in name
            if matrix and len(shape) > 2:
                kinds.setdefault("a LoRA of convolutions", name)
                break
        if kinds:
            told = "; ".join(f"{kind} ({brief(name)})" for kind, name in kinds.items())
            raise CheckpointError(
                f"{self.where}: this is {told}, and joyedit reads plain LoRA of the DiT's linear layers"
            )

    def _misfits(self, one: NamedMatrices, wanted: tuple[int, int]) -> Iterator[str]:
        down, up = self._shapes[str(one.down)], self._shapes[str(one.up)]
        if len(down) != 2 or down[0] < 1 or down[1] != wanted[1]:
            yield f"{brief(str(one.down))} is {_sides(down)}, expected [rank, {wanted[1]}]"
        if len(up) != 2 or up[1] < 1 or up[0] != wanted[0]:
            yield f"{brief(str(one.up))} is {_sides(up)}, expected [{wanted[0]}, rank]"
        if one.alpha is not None and _count(self._shapes[one.alpha]) != 1:
            yield f"{brief(one.alpha)} is {_sides(self._shapes[one.alpha])}, expected one number"

    def _ranks(self, layer: str, one: NamedMatrices, scaling: Scaling) -> Iterator[str]:
        down, up = self._shapes[str(one.down)], self._shapes[str(one.up)]
        told = scaling.rank_of(layer)
        if len(down) == len(up) == 2 and down[0] != up[1]:
            yield f"{brief(layer)} has rank {down[0]} and {up[1]}"
        elif len(down) == 2 and told is not None and told != down[0]:
            yield f"{brief(layer)} has rank {down[0]}, and its configuration says {told}"

    def _finite_factors(self, scaling: Scaling, faults: _Faults) -> dict[str, float]:
        """The factor of each layer without the scale that is asked for. Reads all tensors, one at a time."""
        wrong: list[str] = []
        factors: dict[str, float] = {}
        for layer, one in self._layers.items():
            alpha: float | None = None
            for name, tensor in self._tensors([name for name in (one.down, one.up, one.alpha) if name is not None]):
                if not bool(tensor.isfinite().all()):
                    wrong.append(brief(name))
                elif name == one.alpha:
                    alpha = float(tensor.reshape(()))
                    if abs(alpha) > MOST_ALPHA:
                        wrong.append(f"{brief(name)} is {alpha:g}")
            factors[layer] = scaling.factor(layer, self._shapes[str(one.down)][0], alpha)
        faults.add("tensors with numbers that are infinite, too large or none", wrong)
        return factors


class _Faults:
    """Collects what is wrong with a file, by kind."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: list[str] = []

    def add(self, kind: str, found: list[str]) -> None:
        if found:
            more = f", ... and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            self._lines.append(f"  {len(found)} {kind}: {', '.join(found[:SHOWN])}{more}")

    def raise_any(self) -> None:
        if self._lines:
            told = "\n".join(self._lines)
            raise CheckpointError(f"{self._where}: this LoRA does not fit the model:\n{told}")


def open_lora(lora: Lora, layers: LayerShapes) -> LoraFile:
    """The file of an item's LoRA. Raises CheckpointError, also if its content is another one than it was."""
    opened = LoraFile(lora.file, layers)
    if lora.sha256 and content_hash(lora.file) != lora.sha256:
        raise CheckpointError(f"{opened.where}: this LoRA has changed since the run began; start the run again")
    return opened


def _whole(one: NamedMatrices) -> bool:
    return one.down is not None and one.up is not None


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _sides(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= MOST_DIMENSIONS else f"of {len(shape)} dimensions"
