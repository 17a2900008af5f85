"""A text encoder in two GGUF files of llama.cpp, its language model and its vision tower, as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.gguf_file import GgufFiles

PATCHES = "v.patch_embd.weight"
"""The patch embedding of the first frame. That of the second one is `v.patch_embd.weight.1`."""


class JoinedFiles:
    """The tensors of both. The patch embedding, in the files one kernel a frame, is one tensor of five dimensions."""

    def __init__(self, text: GgufFiles, vision: GgufFiles) -> None:
        self.where = f"{text.where} and {vision.where}"
        self.values = {**vision.values, **text.values}
        self._parts = (text, vision)
        self._second = f"{PATCHES}.1"
        shapes = vision.shapes()
        self._shape: tuple[int, ...] | None = None
        if PATCHES in shapes and shapes[PATCHES] == shapes.get(self._second) and len(shapes[PATCHES]) == 4:
            width, channels, *sides = shapes[PATCHES]
            self._shape = (width, channels, 2, *sides)
        double = sorted(text.shapes().keys() & shapes.keys())
        if double:
            raise CheckpointError(f"{self.where}: both files have the tensor {brief(double[0])}")

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        found = {name: shape for part in self._parts for name, shape in part.shapes().items()}
        if self._shape is not None:
            del found[self._second]
            found[PATCHES] = self._shape
        return found

    def other_types(self) -> Mapping[str, str]:
        found = {name: kind for part in self._parts for name, kind in part.other_types().items()}
        if self._second in found and self._shape is not None:
            found[PATCHES] = found.pop(self._second)
        return found

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        frames: dict[str, Tensor] = {}
        for part in self._parts:
            for name, tensor in part.read(device):
                if self._shape is None or name not in (PATCHES, self._second):
                    yield name, tensor
                    continue
                frames[name] = tensor
                if len(frames) == 2:
                    yield PATCHES, torch.stack([frames[PATCHES], frames[self._second]], dim=2)
