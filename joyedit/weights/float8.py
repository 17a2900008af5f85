"""Weights of 8 bits with a scale, as ComfyUI writes them: a weight is its value times its scale.

Beside `x.weight` lies the scale, one number or one for each output channel: `x.weight_scale`, in older files
`x.scale_weight`. Files without scales hold the values themselves. Scales of activations (`x.input_scale`,
`x.scale_input`) change no weight. Marks say that a file is of this kind: a tensor `scaled_fp8`, or `x.comfy_quant`,
which holds the name of the format as JSON. The values are 8-bit floats, or where the mark says int8_tensorwise whole
numbers; such a weight may be rotated, which is undone here. Other formats of that mark, and scales of other shapes, are
refused: their weights are not value times scale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.models.quantised_rows import FP8
from joyedit.printable import brief
from joyedit.weights.files import SafetensorsFiles
from joyedit.weights.headers import FLOATS_OF_8_BITS
from joyedit.weights.rotation import is_size, turned_back
from joyedit.weights.stored import Stored

SCALES = ("weight_scale", "scale_weight")
_SIDE = (*SCALES, "input_scale", "scale_input", "comfy_quant")
FORMATS = ("float8_e4m3fn", "float8_e5m2")
INTEGERS, _INT8 = "int8_tensorwise", "I8"
ROTATED, GROUP, USUAL_GROUP = "convrot", "convrot_groupsize", 256
_MARK = "scaled_fp8"
_REMEDY = (
    "joyedit reads weights in bf16, fp16, fp32, GGUF, and fp8 or int8 with one scale for a tensor or for each output"
    " channel: get such a file"
)
_MOST_MARK = 4096


class Float8Files:
    """Safetensors of 8 bits as the tensors that they stand for, fp32. Raises CheckpointError for other formats."""

    def __init__(self, files: SafetensorsFiles) -> None:
        self._files = files
        self.where = files.where
        shapes = files.shapes()
        self._side = {name for name in shapes if name.rpartition(".")[2] in _SIDE or name.rpartition(".")[2] == _MARK}
        self._scaled: dict[str, str] = {}
        """The scale of each weight that has one."""
        self._integers: set[str] = set()
        """Names of the weights that are whole numbers."""
        self._rotated: dict[str, int] = {}
        """Channels of a group, for each weight that is rotated."""
        self._read_marks()
        has_mark = any(name.rpartition(".")[2] == _MARK for name in shapes)
        for name in shapes:
            if name in self._side or not self._is_small(name):
                continue
            stem, _, leaf = name.rpartition(".")
            scale = next((f"{stem}.{one}" for one in SCALES if leaf == "weight" and f"{stem}.{one}" in shapes), None)
            if scale is not None:
                rows = shapes[name][:1]
                if math.prod(shapes[scale]) != 1 and shapes[scale] not in (rows, (*rows, 1)):
                    raise self._refused(f"{brief(scale)} has neither one number nor one for each output channel")
                self._scaled[name] = scale
            elif (has_mark or name in self._integers) and leaf == "weight":
                raise self._refused(f"{brief(name)} has no scale")
        lonely = sorted(
            name for name in self._side if name.rpartition(".")[2] in SCALES and name not in self._scaled.values()
        )
        if lonely:
            raise self._refused(f"{brief(lonely[0])} belongs to no weight of 8 bits")

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: shape for name, shape in self._files.shapes().items() if name not in self._side}

    def other_types(self) -> Mapping[str, str]:
        return {
            name: kind
            for name, kind in self._files.other_types().items()
            if name not in self._side and not self._is_small(name)
        }

    def stored(self, name: str) -> Stored | None:
        """A weight that is none of 8 bits lies in the file as it is."""
        return None if self._is_small(name) else self._files.stored(name)

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        scales = self._files.read_some(set(self._scaled.values()))
        for name, tensor in self._files.read(device, list(self.shapes()) if names is None else names):
            if name in self._scaled:
                scale = scales[self._scaled[name]].to(tensor.device, torch.float32)
                scale = scale.reshape(()) if scale.numel() == 1 else _column(scale, tensor)
                wide = tensor.to(torch.float32) * scale
                yield name, turned_back(wide, self._rotated[name]) if name in self._rotated else wide
            else:
                yield name, tensor.to(torch.float32) if self._is_small(name) else tensor

    def _is_small(self, name: str) -> bool:
        """Whether a tensor is of 8 bits, and read as what it stands for."""
        return name in self._integers or self._files.other_types().get(name) in FLOATS_OF_8_BITS

    def is_kept_as(self, name: str, dtype: torch.dtype) -> bool:
        """Whether values and scales are those of a weight that is quantised to this dtype."""
        kind = self._files.other_types().get(name)
        return kind == ("F8_E4M3" if dtype == FP8 else _INT8) and self._is_small(name) and name not in self._rotated

    def kept_values(self, name: str, device: torch.device) -> Tensor:
        """A matrix of such values as it lies in the file."""
        ((_, values),) = self._files.read(device, [name])
        return values

    def kept_scales(self, name: str, device: torch.device) -> Tensor:
        """The scales of such a matrix, one a row: (rows, 1), fp32."""
        scales = torch.ones(self._files.shapes()[name][0], 1, device=device)
        if name in self._scaled:
            scale = self._scaled[name]
            scales *= self._files.read_some({scale})[scale].to(device, torch.float32).reshape(-1, 1)
        return scales

    def stored_values(self, name: str) -> Stored | None:
        """Where such values lie in their file."""
        return self._files.stored(name)

    def _read_marks(self) -> None:
        marks = {name for name in self._side if name.endswith(".comfy_quant")}
        if any(math.prod(self._files.shapes()[name]) > _MOST_MARK for name in marks):
            raise self._refused("a mark comfy_quant is too long")
        found = [(name, name.rpartition(".")[0], _config_of(bytes(mark.to(torch.uint8).flatten().tolist())))
                 for name, mark in self._files.read_some(marks).items()]  # fmt: skip
        found += [(name, name, config) for name, config in _layers_of(self._files.metadata).items()]
        for name, stem, config in found:
            format, weight = str(config.get("format")), f"{stem}.weight"
            if format == INTEGERS and self._files.other_types().get(weight) == _INT8:
                self._integers.add(weight)
                self._read_rotation(name, weight, config)
            elif format not in FORMATS:
                raise self._refused(f"{brief(name)} is quantised as {brief(format, 60)}")

    def _read_rotation(self, name: str, weight: str, config: Mapping[str, Any]) -> None:
        if not config.get(ROTATED):
            return
        size, shape = config.get(GROUP, USUAL_GROUP), self._files.shapes()[weight]
        if not is_size(size) or len(shape) != 2 or shape[1] % size:
            raise self._refused(f"{brief(name)} says a rotation that does not fit: groups of {brief(str(size), 60)}")
        self._rotated[weight] = size

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


UNREADABLE: Mapping[str, Any] = {"format": "an unreadable mark"}


def _config_of(text: bytes | str) -> Mapping[str, Any]:
    """What a mark says; its format is under "format"."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return UNREADABLE
    return found if isinstance(found, dict) else UNREADABLE


def _layers_of(metadata: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """The same of each layer, where the header of the file says it."""
    try:
        layers = json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})
        return {name: dict(entry.items()) for name, entry in layers.items()}
    except (ValueError, AttributeError, RecursionError):
        return {"_quantization_metadata": UNREADABLE}
