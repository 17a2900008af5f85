"""The files of one folder that hold a network, each recognised by its header. No torch in here.

Shards belong together: those that an index names, and those that are numbered `-00001-of-00004`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from joyedit.errors import CheckpointError
from joyedit.weights.headers import FLOATS, FLOATS_OF_8_BITS, METADATA, SUFFIXES, Header, Kind, read_header
from joyedit.weights.regular_files import entries
from joyedit.weights.roles import Holds, held_by

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.gguf)")
LLAMA_CPP = "qwen3vl"
"""How llama.cpp calls the architecture. Language models of other releases of Qwen have tensors of the same names."""
_SIDE_TYPES = ("I64", "I32", "U8", "BOOL")
"""Types of small tensors beside the weights: marks of a quantisation, counters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Files that together hold one network. `absent`: shards that are not there.

    `text_width` is the number of channels of a text encoder's words, or of the text that a DiT takes. `is_readable` is
    False for weights in a number format that joyedit does not read.
    """

    holds: Holds
    kind: Kind
    files: tuple[Path, ...]
    absent: tuple[Path, ...] = ()
    text_width: int | None = None
    is_readable: bool = True

    @property
    def first(self) -> Path:
        return self.files[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What folders hold: the networks, and why files of tensors could not be read."""

    candidates: tuple[Candidate, ...] = ()
    faults: tuple[CheckpointError, ...] = ()


def candidates_in(folders: Iterable[Path]) -> Listed:
    """The networks in the files of these folders, not of folders below them. Folders that are not there are passed
    over.

    Raises CheckpointError for a folder that cannot be listed.
    """
    found: list[Candidate] = []
    faults: list[CheckpointError] = []
    seen: set[str] = set()
    for folder in folders:
        if not os.path.isdir(folder):
            continue
        for files in _together(folder):
            real = os.path.realpath(files[0])
            if real in seen:
                continue
            seen.add(real)
            try:
                one = recognise(files)
            except CheckpointError as error:
                faults.append(error)
                continue
            if one is not None:
                found.append(one)
    return Listed(candidates=tuple(found), faults=tuple(faults))


def recognise(files: tuple[Path, ...]) -> Candidate | None:
    """What these files hold together; None if no network that joyedit needs. Raises CheckpointError."""
    here = [path for path in files if os.path.lexists(path)]
    headers = [read_header(path) for path in here]
    holds = held_by({name for header in headers for name in header.shapes})
    if holds is None or (holds == "text" and headers[0].values.get("general.architecture") != LLAMA_CPP):
        return None
    return Candidate(
        holds=holds,
        kind=headers[0].kind,
        files=tuple(here),
        absent=tuple(path for path in files if path not in here),
        text_width=next((width for header in headers if (width := _text_width(header)) is not None), None),
        is_readable=all(map(_is_readable, headers)),
    )


def with_shards(path: Path) -> tuple[Path, ...]:
    """A file, or all the shards that it is one of, there or not."""
    found = _SHARD.fullmatch(path.name)
    if found is None or not 0 < int(found["count"]) <= 1000:
        return (path,)
    count = int(found["count"])
    return tuple(
        path.with_name(f"{found['stem']}-{number:05}-of-{count:05}{found['suffix']}") for number in range(1, count + 1)
    )


def _together(folder: Path) -> list[tuple[Path, ...]]:
    """The files of tensors in a folder, shards as one."""
    groups: dict[tuple[Path, ...], None] = {}
    for path in entries(folder):
        if path.suffix in SUFFIXES and not path.name.startswith(".") and os.path.isfile(path):
            groups[with_shards(path)] = None
    return list(groups)


def _text_width(header: Header) -> int | None:
    for name, shape in header.shapes.items():
        if len(shape) == 2 and name.endswith(
            ("embed_tokens.weight", "token_embd.weight", "condition_embedder.text_embedder.linear_1.weight")
        ):
            return shape[1]
    return None


def _is_readable(header: Header) -> bool:
    """Whether the matrices are of floats, or of a quantisation that joyedit reads."""
    known = (*FLOATS, *FLOATS_OF_8_BITS, "gguf")
    return METADATA not in header.types and all(
        kind in known or (kind in _SIDE_TYPES and len(header.shapes[name]) < 2) for name, kind in header.types.items()
    )
