"""The names, types and shapes of a tensor file, from its header alone. No tensor is read, and no torch is loaded,
but for a `.pth` file, which is no tensor file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from joyedit.contents import HEAD, stand_in_of
from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.gguf_header import MAGIC, read_gguf_header
from joyedit.weights.regular_files import INDEX_BYTES, open_regular, printable_path, unreadable

Kind = Literal["safetensors", "gguf", "pickle"]
FLOATS = ("F16", "BF16", "F32", "F64")
"""The types of tensors that networks are loaded from, as safetensors names them."""
FLOATS_OF_8_BITS = ("F8_E4M3", "F8_E5M2")
SUFFIXES = (".safetensors", ".gguf", ".pth")
MOST_SIDES = 16
METADATA = "__metadata__"


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """`types` are those of safetensors, or `gguf` for every tensor of such a file. `values`: what the file says of
    itself."""

    kind: Kind
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    values: Mapping[str, Any] = field(default_factory=dict)


def kind_of(path: Path) -> Kind:
    """What a file of tensors is, from its first bytes; safetensors if it is nothing else. Raises CheckpointError."""
    head = head_of(path)
    if head.startswith(MAGIC):
        return "gguf"
    return "pickle" if head.startswith(b"PK\x03\x04") or path.suffix in (".pth", ".pt") else "safetensors"


def head_of(path: Path) -> bytes:
    """The first bytes of a file. Raises CheckpointError for a pointer or a web page in place of a file."""
    with open_regular(path) as file:
        try:
            head = file.read(HEAD)
        except OSError as error:
            raise unreadable(path, error) from error
    held = stand_in_of(head)
    if held is not None:
        raise CheckpointError(f"{printable_path(path)}: it holds {held}")
    return head


def read_header(path: Path) -> Header:
    """Raises CheckpointError for a file that is no file of tensors, or not a complete one."""
    kind = kind_of(path)
    if kind == "gguf":
        found = read_gguf_header(path)
        shapes = {name: tensor.shape for name, tensor in found.tensors.items()}
        return Header(kind=kind, shapes=shapes, types=dict.fromkeys(shapes, "gguf"), values=found.values)
    if kind == "pickle":
        from joyedit.weights.pickle_file import PickleFile

        pickled = PickleFile(path)
        other = pickled.other_types()
        shapes = dict(pickled.shapes())
        return Header(kind=kind, shapes=shapes, types={name: other.get(name, "F32") for name in shapes})
    return _safetensors_header(path)


def _safetensors_header(path: Path) -> Header:
    with open_regular(path) as file:
        try:
            length = int.from_bytes(file.read(8), "little")
            size = file.seek(0, 2)
            file.seek(8)
            text = b"" if length > min(size - 8, INDEX_BYTES) else file.read(length)
        except OSError as error:
            raise unreadable(path, error) from error
    if size < 8 or length > size - 8:
        raise incomplete(path, f"it has {size} bytes, and its header alone should have {length}")
    if length > INDEX_BYTES:
        raise CheckpointError(f"{printable_path(path)}: its header has {length} bytes, {INDEX_BYTES} are allowed")
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("its header is no object")
        values = raw.pop(METADATA, None) or {}
        shapes, types = {}, {}
        for name, entry in raw.items():
            shapes[name], types[name] = _shape(entry), str(entry["dtype"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise incomplete(path, f"its header cannot be read: {brief(str(error), 100)}") from error
    return Header(kind="safetensors", shapes=shapes, types=types, values=values if isinstance(values, dict) else {})


def _shape(entry: Any) -> tuple[int, ...]:
    shape = entry["shape"]
    if not isinstance(shape, list) or len(shape) > MOST_SIDES or not all(type(side) is int for side in shape):
        raise ValueError("a tensor of a strange shape")
    return tuple(shape)


def incomplete(path: Path, reason: str) -> CheckpointError:
    """The error of a safetensors file that is cut or damaged."""
    return CheckpointError(f"{printable_path(path)}: not a complete safetensors file ({reason}); download it again")
