"""Weights of 8-bit floats with a scale, as ComfyUI writes them: a weight is its value times its scale.

Beside `x.weight` lies the scale, one number or one for each output channel: `x.weight_scale`, in older files
`x.scale_weight`. Files without scales hold the values themselves. Scales of activations (`x.input_scale`,
`x.scale_input`) change no weight. Marks say that a file is of this kind: a tensor `scaled_fp8`, or `x.comfy_quant`,
which holds the name of the format as JSON. Other formats of that mark, and scales of other shapes, are refused: their weights are not value times scale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.models.quantised import Quantised
from joyedit.printable import brief
from joyedit.weights.files import SafetensorsFiles
from joyedit.weights.headers import FLOATS_OF_8_BITS
from joyedit.weights.stored import Stored

SCALES = ("weight_scale", "scale_weight")
_SIDE = (*SCALES, "input_scale", "scale_input", "comfy_quant")
FORMATS = ("float8_e4m3fn", "float8_e5m2")
_MARK = "scaled_fp8"
_REMEDY = (
    "joyedit reads weights in bf16, fp16, fp32, GGUF, and fp8 with one scale for a tensor or for each output channel:"
    " get such a file"
)
_MOST_MARK = 4096


class Float8Files:
    """Safetensors of 8-bit floats as the tensors that they stand for, fp32. Raises CheckpointError for other
    formats."""

    def __init__(self, files: SafetensorsFiles) -> None:
        self._files = files
        self.where = files.where
        shapes, other = files.shapes(), files.other_types()
        self._side = {name for name in shapes if name.rpartition(".")[2] in _SIDE or name.rpartition(".")[2] == _MARK}
        self._scaled: dict[str, str] = {}
        """The scale of each weight that has one."""
        self._refuse_formats()
        has_mark = any(name.rpartition(".")[2] == _MARK for name in shapes)
        for name in shapes:
            if name in self._side or other.get(name) not in FLOATS_OF_8_BITS:
                continue
            stem, _, leaf = name.rpartition(".")
            scale = next((f"{stem}.{one}" for one in SCALES if leaf == "weight" and f"{stem}.{one}" in shapes), None)
            if scale is not None:
                rows = shapes[name][:1]
                if math.prod(shapes[scale]) != 1 and shapes[scale] not in (rows, (*rows, 1)):
                    raise self._refused(f"{brief(scale)} has neither one number nor one for each output channel")
                self._scaled[name] = scale
            elif has_mark and leaf == "weight":
                raise self._refused(f"{brief(name)} has no scale")
        lonely = sorted(
            name for name in self._side if name.rpartition(".")[2] in SCALES and name not in self._scaled.values()
        )
        if lonely:
            raise self._refused(f"{brief(lonely[0])} belongs to no weight of 8-bit floats")

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: shape for name, shape in self._files.shapes().items() if name not in self._side}

    def other_types(self) -> Mapping[str, str]:
        return {
            name: kind
            for name, kind in self._files.other_types().items()
            if name not in self._side and kind not in FLOATS_OF_8_BITS
        }

    def stored(self, name: str) -> Stored | None:
        """A weight that is none of 8-bit floats lies in the file as it is."""
        return None if self._files.other_types().get(name) in FLOATS_OF_8_BITS else self._files.stored(name)

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        scales = self._files.read_some(set(self._scaled.values()))
        other = self._files.other_types()
        for name, tensor in self._files.read(device, list(self.shapes()) if names is None else names):
            if name in self._scaled:
                scale = scales[self._scaled[name]].to(tensor.device, torch.float32)
                scale = scale.reshape(()) if scale.numel() == 1 else _column(scale, tensor)
                yield name, tensor.to(torch.float32) * scale
            else:
                yield name, tensor.to(torch.float32) if other.get(name) in FLOATS_OF_8_BITS else tensor

    def is_e4m3(self, name: str) -> bool:
        """Whether the values are those of `quantised.FP8`."""
        return self._files.other_types().get(name) == "F8_E4M3"

    def quantised(self, name: str, device: torch.device) -> Quantised:
        """A matrix of such values as it lies in the file, and its scales, one a row."""
        ((_, values),) = self._files.read(device, [name])
        scales = torch.ones(len(values), 1, device=device)
        if name in self._scaled:
            scale = self._scaled[name]
            scales *= self._files.read_some({scale})[scale].to(device, torch.float32).reshape(-1, 1)
        return Quantised(values, scales)

    def stored_values(self, name: str) -> Stored | None:
        """Where such values lie in their file."""
        return self._files.stored(name)

    def _refuse_formats(self) -> None:
        marks = {name for name in self._side if name.endswith(".comfy_quant")}
        if any(math.prod(self._files.shapes()[name]) > _MOST_MARK for name in marks):
            raise self._refused("a mark comfy_quant is too long")
        formats = {name: _format_of(bytes(mark.to(torch.uint8).flatten().tolist()))
                   for name, mark in self._files.read_some(marks).items()}  # fmt: skip
        layers = _layers_of(self._files.metadata)
        for name, found in (*formats.items(), *layers.items()):
            if found not in FORMATS:
                raise self._refused(f"{brief(name)} is quantised as {brief(str(found), 60)}")

    def _refused(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {reason}; {_REMEDY}")


def is_quantised(files: SafetensorsFiles) -> bool:
    """Whether the files hold 8-bit floats or any mark of a quantisation by ComfyUI."""
    return (
        any(kind in FLOATS_OF_8_BITS for kind in files.other_types().values())
        or any(name.rpartition(".")[2] in (*_SIDE, _MARK) for name in files.shapes())
        or bool(_layers_of(files.metadata))
    )


def _column(scale: Tensor, tensor: Tensor) -> Tensor:
    """One scale a row, in as many dimensions as the tensor has."""
    return scale.reshape(-1, *[1] * (tensor.ndim - 1))


def _format_of(text: bytes | str) -> str:
    """The format that a mark names."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "an unreadable mark"
    return str(found.get("format")) if isinstance(found, dict) else "an unreadable mark"


def _layers_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The format of each layer, where the header of the file says it."""
    try:
        layers = json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})
        return {name: str(entry.get("format")) for name, entry in layers.items()}
    except (ValueError, AttributeError, RecursionError):
        return {"_quantization_metadata": "an unreadable mark"}
