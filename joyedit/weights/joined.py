"""A text encoder in two GGUF files of llama.cpp, its language model and its vision tower, as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.gguf_file import GgufFiles
from joyedit.weights.stored import Stored

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

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        text, vision = self._parts
        of_text = text.shapes()
        for name in self.shapes() if names is None else names:
            if name == PATCHES and self._shape is not None:
                frames = [tensor for _, tensor in vision.read(device, [PATCHES, self._second])]
                if len(frames) == 2:
                    yield PATCHES, torch.stack(frames, dim=2)
            else:
                yield from (text if name in of_text else vision).read(device, [name])

    def stored(self, name: str) -> Stored | None:
        """Nowhere: most tensors are blocks."""
