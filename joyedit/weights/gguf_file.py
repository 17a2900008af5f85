"""Tensors of GGUF files, dequantised when they are read. The package `gguf` knows the formats of the blocks.

A file is mapped into memory, and one tensor at a time is made into floats of four bytes, on several threads. All sizes
are held against the file before that.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.gguf_header import GgufTensor, read_gguf_header
from joyedit.weights.regular_files import open_regular, printable_path, unreadable
from joyedit.weights.stored import Stored

INSTALL = "pip install 'joyedit[gguf]'"
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Before the name of a tensor: the key of the shape that it had before it was reshaped for its blocks."""
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_WHOLE = ("I8", "I16", "I32", "I64")
_AT_ONCE = 1 << 18
"""So many numbers are dequantised at once: what that takes beside its result stays in the caches of a core."""
_MOST_THREADS = 8


class GgufFiles:
    """One or several GGUF files. `values` are those of the first one's header. Raises CheckpointError."""

    def __init__(self, paths: list[Path]) -> None:
        self.where = printable_path(paths[0] if len(paths) == 1 else paths[0].parent)
        self.values: Mapping[str, Any] = {}
        self._gguf = _package(self.where)
        self._data: dict[str, tuple[mmap.mmap, GgufTensor]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._other_types: dict[str, str] = {}
        for number, path in enumerate(paths):
            header = read_gguf_header(path)
            self.values = self.values if number else header.values
            data = _mapped(path)
            for name, tensor in header.tensors.items():
                self._add(path, name, tensor, data, header.values.get(ORIGINAL_SHAPE + name))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def other_types(self) -> Mapping[str, str]:
        return self._other_types

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        for name in self._data if names is None else names:
            data, tensor = self._data[name]
            if name not in self._other_types:
                yield name, self._floats(data, tensor).reshape(self._shapes[name]).to(device)

    def stored(self, name: str) -> Stored | None:
        """Nowhere: most tensors are blocks."""

    def _add(self, path: Path, name: str, tensor: GgufTensor, data: mmap.mmap, shape: object) -> None:
        where = printable_path(path)
        if name in self._data:
            raise CheckpointError(f"{where}: the tensor {brief(name)} is there twice")
        try:
            kind = self._gguf.GGMLQuantizationType(tensor.kind)
        except ValueError:
            raise CheckpointError(
                f"{where}: {brief(name)} is of type {tensor.kind}, which this release of the package gguf does not know"
            ) from None
        self._data[name] = (data, tensor)
        self._shapes[name] = _shape_before(tensor, shape)
        if kind.name in _WHOLE:
            self._other_types[name] = kind.name
        block, size = self._gguf.GGML_QUANT_SIZES[kind]
        row = tensor.shape[-1] if tensor.shape else 1
        if row % block:
            raise CheckpointError(
                f"{where}: the rows of {brief(name)} are no whole blocks of {kind.name}; it is damaged"
            )
        if tensor.offset + tensor.elements // block * size > len(data):
            raise CheckpointError(f"{where}: {brief(name)} is larger than its data; download the file again")
        if kind.name not in (*_WHOLE, *_PLAIN) and not _can_dequantise(self._gguf, kind):
            self._other_types[name] = f"{kind.name}, which the package gguf cannot dequantise"

    def _floats(self, data: mmap.mmap, tensor: GgufTensor) -> Tensor:
        """The values in one dimension: plain numbers as they are in the file, blocks as fp32."""
        kind = self._gguf.GGMLQuantizationType(tensor.kind)
        if not tensor.elements:
            return torch.empty(0)
        if kind.name in _PLAIN:
            return torch.frombuffer(data, dtype=_PLAIN[kind.name], count=tensor.elements, offset=tensor.offset)
        block, size = self._gguf.GGML_QUANT_SIZES[kind]
        raw = np.frombuffer(data, np.uint8, tensor.elements // block * size, tensor.offset).reshape(-1, size)
        found = np.empty(tensor.elements, np.float32)
        step = max(1, _AT_ONCE // block)

        def dequantise(start: int) -> None:
            with np.errstate(all="ignore"):  # a broken scale is no number; the latents that it makes are told
                part = self._gguf.quants.dequantize(raw[start : start + step].reshape(1, -1), kind)
            found[start * block : start * block + part.size] = part.reshape(-1)

        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
            list(threads.map(dequantise, range(0, len(raw), step)))
        return torch.from_numpy(found)


def _mapped(path: Path) -> mmap.mmap:
    with open_regular(path) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # what is written to is copied
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error


def _shape_before(tensor: GgufTensor, shape: object) -> tuple[int, ...]:
    """The shape that a tensor had before it was reshaped; that in the file where the header says no other."""
    if not isinstance(shape, list) or not shape or not all(type(side) is int and side > 0 for side in shape):
        return tensor.shape
    count = 1
    for side in shape:
        count *= side
    return tuple(shape) if count == tensor.elements else tensor.shape


def _can_dequantise(gguf: Any, kind: Any) -> bool:
    """Whether the package dequantises this type: tried on one block of zeros."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _package(where: str) -> Any:
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise CheckpointError(f"{where}: a GGUF file needs the package gguf, install it with {INSTALL}") from error
    return gguf
