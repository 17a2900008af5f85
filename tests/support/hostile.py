"""Checkpoints that somebody else has prepared: a copy made of links, in which one file is exchanged.

The hub's cache is made of links too, so each such copy also shows that links are read.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from support.figures import EXHAUSTIVE

Refused = Callable[[Path], str]
"""Loads a checkpoint that cannot be loaded; the message of the error."""
HEADER = struct.Struct("<Q")


def linked_copy(source: Path, folder: Path) -> Path:
    """A folder of the same names, each file a link to that of `source`."""
    shutil.copytree(source, folder, copy_function=os.symlink)
    return folder


def put(path: Path, content: bytes | str) -> None:
    """A file of its own in place of a link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


def change(path: Path, keys: str, value: Any) -> None:
    """A JSON file with another value at `keys`, `text_config.hidden_size`."""
    raw = json.loads(path.read_text())
    *outer, last = keys.split(".")
    place = raw
    for key in outer:
        place = place[key]
    place[last] = value
    put(path, json.dumps(raw))


def put_kind(path: Path, kind: str) -> None:
    """Something that is no regular file in place of a file."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a pipe":
        os.mkfifo(path.parent / ".pipe")
        path.symlink_to(".pipe")
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    else:
        assert kind == "link to itself"
        path.symlink_to(path.name)


KINDS = ("pipe", "link to a pipe", "folder", "device", "dangling link", "link to itself")


def sampled(names: Sequence[str], others: Iterable[str], step: int = 3) -> list[tuple[str, str]]:
    """Pairs of names: all of them where tests are exhaustive, else every `step`-th, so that each name is among them."""
    pairs = [(name, other, n + m) for n, name in enumerate(names) for m, other in enumerate(others)]
    return [(name, other) for name, other, place in pairs if EXHAUSTIVE or place % step == 0]


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header; `length` is what it claims to have."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return HEADER.pack(len(text) if length is None else length) + text + data
