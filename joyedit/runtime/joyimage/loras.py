"""The LoRAs of a run: merged into the DiT while it loads where all items have the same, else opened for each batch."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from joyedit.errors import CheckpointError, ItemError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Lora
from joyedit.models.dit import DiT
from joyedit.models.lora import LowRank, merge
from joyedit.weights.lora_file import LayerShapes, LoraFile, layer_shapes, open_lora

MOST_ON_DEVICE = 2 * 10**9
"""Bytes of low-rank matrices that stay on the device; those that were used last, and always those of one batch."""

_BLOCK = re.compile(r"double_blocks\.\d+\.")
Changes = dict[str, list[LowRank]]


class Loras:
    """What the LoRAs of a run change, checked before a weight of the model is read."""

    def __init__(self, dit: DiT, config: RunConfig) -> None:
        """Raises CheckpointError for a LoRA that does not fit this DiT."""
        self.merged = config.merged_loras
        self._layers: LayerShapes = layer_shapes(dit)
        self._files = {lora: open_lora(lora, self._layers) for lora in self.merged}
        self._held: OrderedDict[tuple[Lora, ...], Changes] = OrderedDict()
        self._matrices = 0
        changed: set[str] = set()
        for lora in dict.fromkeys(lora for loras in config.lora_sets for lora in loras):
            opened = open_lora(lora, self._layers)
            self._matrices += opened.nbytes
            changed.update(opened.layers)
        self._changed = {name: math.prod(self._layers[name]) for name in changed}

    def device_bytes(self, itemsize: int) -> int:
        """Bytes of the device that the LoRAs of items that differ take beside the weights.

        These are low-rank matrices, and the changed weights of one block and of what is in no block; `itemsize` is that
        of the weights.
        """
        blocks: dict[str, int] = {}
        rest = 0
        for name, elements in self._changed.items():
            block = _BLOCK.match(name)
            if block is None:
                rest += elements
            else:
                blocks[block[0]] = blocks.get(block[0], 0) + elements
        return min(self._matrices, MOST_ON_DEVICE) + (rest + max(blocks.values(), default=0)) * itemsize

    def changed_bytes(self, itemsize: int) -> int:
        """Bytes of all weights that the LoRAs of items that differ change."""
        return sum(self._changed.values()) * itemsize

    def changes(self, loras: tuple[Lora, ...], device: torch.device) -> Changes:
        """What the LoRAs of one batch change, on the device; nothing if they are merged already.

        Raises ItemError("bad_lora") for LoRAs that cannot be used.
        """
        if self.merged:
            if loras == self.merged:
                return {}
            raise ItemError("bad_lora", "the LoRAs of this item have changed since the run began; start the run again")
        if not loras:
            return {}
        if loras in self._held:
            self._held.move_to_end(loras)
            return self._held[loras]
        try:
            files = [(lora, open_lora(lora, self._layers)) for lora in loras]
            made = _read(files, device)
        except CheckpointError as error:
            raise ItemError("bad_lora", str(error)) from error
        self._held[loras] = made
        while len(self._held) > 1 and sum(map(_nbytes, self._held.values())) > MOST_ON_DEVICE:
            self._held.popitem(last=False)
        return made

    def drop(self) -> None:
        """Give back what is on the device."""
        self._held.clear()

    def merger(self, device: torch.device, dtype_of: Callable[[str], torch.dtype]) -> Merger | None:
        """What merges the LoRAs of all items while the DiT loads; None if there are none."""
        if not self.merged:
            return None
        return Merger(_read(list(self._files.items()), torch.device("cpu")), device, dtype_of)


class Merger:
    """Makes the weights of the DiT as the LoRAs of a run change them, one at a time, on the device."""

    def __init__(self, changes: Changes, device: torch.device, dtype_of: Callable[[str], torch.dtype]) -> None:
        self._changes = {f"{name}.weight": low_rank for name, low_rank in changes.items()}
        self._device = device
        self._dtype_of = dtype_of

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """The changed weight on the device in the dtype that it has in the network; others as they are."""
        low_rank = self._changes.get(name)
        if low_rank is None:
            return tensor
        weight = tensor.to(self._device, self._dtype_of(name))
        with torch.no_grad():
            made = merge(weight, low_rank, torch.empty_like(weight))
        if self._device.type == "cuda":  # whoever places it may copy on another stream
            torch.cuda.current_stream(self._device).synchronize()
        return made

    def changes(self, name: str) -> bool:
        """Whether a weight is changed."""
        return name in self._changes

    def only(self, wanted: Callable[[str], bool]) -> Merger:
        """What changes the weights for whose names `wanted` holds."""
        made = Merger({}, self._device, self._dtype_of)
        made._changes = {name: low_rank for name, low_rank in self._changes.items() if wanted(name)}
        return made

    def network(self, network: nn.Module) -> None:
        """Change a network that is loaded."""
        with torch.inference_mode(False):
            for name in self._changes:
                parameter = network.get_parameter(name)
                parameter.data = self(name, parameter.data)


def _read(files: Sequence[tuple[Lora, LoraFile]], device: torch.device) -> Changes:
    made: Changes = {}
    with torch.inference_mode(False):
        for lora, file in files:
            for name, low_rank in file.read(lora.scale, device):
                made.setdefault(name, []).append(low_rank)
    return made


def _nbytes(changes: Changes) -> int:
    return sum(one.nbytes for low_rank in changes.values() for one in low_rank)
