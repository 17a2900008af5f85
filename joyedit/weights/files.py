"""Tensor files as one thing: names, shapes, and one tensor at a time, wherever they lie.

Safetensors (one file, or shards with an index) are read straight to the target device; `pickle_file` reads the others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from joyedit.errors import CheckpointError, first_line
from joyedit.printable import brief
from joyedit.weights.headers import FLOATS, head_of, incomplete
from joyedit.weights.regular_files import INDEX_BYTES, is_there, open_regular, printable_path, unreadable
from joyedit.weights.shards import index_of, shards_of, weight_map
from joyedit.weights.stored import Stored

_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "I8": torch.int8,
}


class TensorFiles(Protocol):
    """Where the tensors of one network lie. `where` is told in errors."""

    where: str

    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def other_types(self) -> Mapping[str, str]:
        """The types of those tensors that are not of a floating-point type of at least 16 bits."""
        ...

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Tensors on the device, one at a time: those of `names` in this order, or all as they lie in the files."""
        ...

    def stored(self, name: str) -> Stored | None:
        """Where the elements of a tensor lie, if they lie in a file as they are; None for any other kind of file."""
        ...


class SafetensorsFiles:
    """One or several safetensors files. With an index, every shard it names must be there."""

    def __init__(self, paths: list[Path], expected: Mapping[str, str] | None = None) -> None:
        self.paths = paths
        self.where = printable_path(paths[0] if len(paths) == 1 else paths[0].parent)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._paths: dict[str, Path] = {}
        self._headers: dict[Path, tuple[int, dict[str, Any]]] = {}
        self._other_types: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        for path in paths:
            _check_header(path)
            try:
                with safe_open(path, framework="pt") as file:
                    self.metadata |= file.metadata() or {}
                    for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                        self._add(name, path, file.get_slice(name))
            except (SafetensorError, OSError) as error:
                raise incomplete(path, first_line(error)) from error
        absent = sorted(set(expected or ()) - set(self._shapes))
        if absent:
            raise CheckpointError(
                f"{self.where}: {len(absent)} tensors that the index names are not in its shards, the first"
                f" is {brief(absent[0])}; download the checkpoint again"
            )

    def _add(self, name: str, path: Path, entry: Any) -> None:
        self._paths[name] = path
        self._shapes[name] = tuple(entry.get_shape())
        if entry.get_dtype() not in FLOATS:
            self._other_types[name] = brief(str(entry.get_dtype()))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def other_types(self) -> Mapping[str, str]:
        return self._other_types

    def read(self, device: torch.device, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        with ExitStack() as stack:
            opened: dict[Path, Any] = {}
            for name in self._paths if names is None else names:
                path = self._paths[name]
                if path not in opened:
                    opened[path] = stack.enter_context(safe_open(path, framework="pt", device=str(device)))
                yield name, opened[path].get_tensor(name)

    def stored(self, name: str) -> Stored | None:
        path = self._paths[name]
        if path not in self._headers:
            self._headers[path] = _header(path)
        data, entries = self._headers[path]
        entry = entries[name]
        begin, end = entry["data_offsets"]
        dtype = _DTYPES.get(entry["dtype"])
        return None if dtype is None else Stored(path=path, offset=data + begin, nbytes=end - begin, dtype=dtype)

    def read_some(self, names: Collection[str]) -> dict[str, Tensor]:
        """These tensors, on the CPU."""
        found: dict[str, Tensor] = {}
        for path in self.paths if names else ():
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
        return found


def open_safetensors(folder: Path, stem: str) -> SafetensorsFiles:
    """The tensors of one component folder: `<stem>.safetensors`, or the shards that its index names.

    They must be there (see `shards.absent_files`). Raises CheckpointError for files that cannot be read.
    """
    index = index_of(folder, stem)
    is_single = index is None or is_there(folder / f"{stem}.safetensors")
    return SafetensorsFiles(shards_of(folder, stem), None if is_single or index is None else weight_map(index))


def _check_header(path: Path) -> None:
    """Raises CheckpointError for a header that is longer than the file, or than the header of any network."""
    length = int.from_bytes(head_of(path)[:8], "little")
    with open_regular(path) as file:
        try:
            size = file.seek(0, 2)
        except OSError as error:
            raise unreadable(path, error) from error
    if size < 8 or length > size - 8:
        raise incomplete(path, f"it has {size} bytes, and its header alone should have {length}")
    if length > INDEX_BYTES:
        raise CheckpointError(f"{printable_path(path)}: its header has {length} bytes, {INDEX_BYTES} are allowed")


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data begins, and the header, of a file that safetensors has read: so it is as it should be."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length, json.loads(file.read(length))
