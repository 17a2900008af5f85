"""Tensor files as one thing: names, shapes, and one tensor at a time, wherever they lie.

Safetensors (one file, or shards with an index) are read straight to the target device. Pickles are
read with `weights_only=True` and memory-mapped; nothing in them is executed.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from joyedit.errors import CheckpointError, first_line


class TensorFiles(Protocol):
    """Where the tensors of one network lie. `where` is told in errors."""

    where: str

    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]: ...


class SafetensorsFiles:
    """One or several safetensors files. With an index, every shard it names must be there."""

    def __init__(self, paths: list[Path], expected: Mapping[str, str] | None = None) -> None:
        self.paths = paths
        self.where = str(paths[0] if len(paths) == 1 else paths[0].parent)
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                        self._shapes[name] = tuple(file.get_slice(name).get_shape())
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{path}: not a complete safetensors file ({error}); download it again"
                ) from error
        absent = sorted(set(expected or ()) - set(self._shapes))
        if absent:
            raise CheckpointError(
                f"{self.where}: {len(absent)} tensors that the index names are not in its shards, the first"
                f" is {absent[0]}; download the checkpoint again"
            )

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        with ExitStack() as stack:
            for path in self.paths:
                file = stack.enter_context(safe_open(path, framework="pt", device=str(device)))
                for name in file.keys():  # noqa: SIM118
                    yield name, file.get_tensor(name)


class PickleFile:
    """A `.pth` file: a state dict, bare or under one of the usual keys."""

    WRAPPERS = ("model", "state_dict", "module")

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path}: refused, the file holds more than tensors, and its code is not run ({first_line(error)})"
            ) from error
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            reason = first_line(error)
            raise CheckpointError(f"{path}: not a readable PyTorch file ({reason}); download it again") from error
        for key in self.WRAPPERS:
            if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
                loaded = loaded[key]
                break
        tensors = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, dict) else {}
        if not tensors:
            raise CheckpointError(f"{path}: holds no state dict")
        self._tensors: dict[str, Tensor] = tensors

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._tensors.items():
            yield name, tensor.to(device)


def open_safetensors(folder: Path, stem: str) -> SafetensorsFiles:
    """The tensors of one component folder: `<stem>.safetensors`, or the shards that its index names.

    Raises CheckpointError when there are none, or a shard is absent.
    """
    single = folder / f"{stem}.safetensors"
    if single.is_file():
        return SafetensorsFiles([single])
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            shards = sorted({str(shard) for shard in weight_map.values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: not a safetensors index ({error!r})") from error
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise CheckpointError(f"{index}: names a shard outside its folder: {outside[0]}")
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            raise CheckpointError(
                f"{folder}: {len(absent)} of {len(shards)} shards are missing: {', '.join(absent[:5])};"
                " download the checkpoint again"
            )
        return SafetensorsFiles([folder / shard for shard in shards], weight_map)
    raise CheckpointError(f"{folder}: no {stem}.safetensors and no index of shards")
