"""The header of a GGUF file: what it says of itself, and where its tensors lie. No torch in here.

A header has a list of keys with values, then one entry for each tensor. All counts and lengths that the file claims are
held against the file itself and against limits before anything is made of them. The words of a tokenizer, which
llama.cpp keeps in the header, are passed over.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joyedit.errors import CheckpointError
from joyedit.printable import brief
from joyedit.weights.regular_files import open_regular, printable_path, unreadable

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_HEADER = 32 << 20
"""The most bytes of a header. With the words of Qwen's tokenizer it has about 6 million."""
MOST_TENSORS = 1 << 16
MOST_KEYS = 1 << 16
MOST_TEXT = 4096
"""The most bytes of a name, and of a text that is kept."""
MOST_ENTRIES = 4096
"""The most numbers of a list that is kept."""
MOST_DIMENSIONS = 8
MOST_ELEMENTS = 1 << 48
ALIGNMENT = 32

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: the number of its type, its shape as torch has it, and its offset in the file."""

    kind: int
    shape: tuple[int, ...]
    offset: int

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """`values` has the numbers, short texts and short lists of numbers that the header gives, by their keys."""

    tensors: dict[str, GgufTensor]
    values: dict[str, Any] = field(default_factory=dict)


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises CheckpointError for a file that is torn, of another version, or beyond the limits."""
    with open_regular(path) as file:
        try:
            size = file.seek(0, 2)
            if not size:
                raise ValueError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size).header()
        except (ValueError, struct.error, IndexError, OverflowError) as error:
            raise CheckpointError(
                f"{printable_path(path)}: not a complete GGUF file ({brief(str(error), 200)}); download it again"
            ) from error
        except OSError as error:
            raise unreadable(path, error) from error


class _Reader:
    """Reads from the beginning of the file. Raises ValueError where it says what cannot be."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 0

    def header(self) -> GgufHeader:
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, joyedit reads {' and '.join(map(str, VERSIONS))}")
        tensors, keys = self._number("Q"), self._number("Q")
        for count, most, what in ((tensors, MOST_TENSORS, "tensors"), (keys, MOST_KEYS, "keys")):
            if count > most:
                raise ValueError(f"it claims {count} {what}, {most} are allowed")
        values = {}
        for _ in range(keys):
            key = self._text()
            if (value := self._value(self._number("I"))) is not None:
                values[key] = value
        entries = [self._tensor() for _ in range(tensors)]
        step = values.get("general.alignment", ALIGNMENT)
        if not isinstance(step, int) or isinstance(step, bool) or not 0 < step <= 1 << 20:
            raise ValueError("its alignment is no number of bytes")
        start = -(-self._at // step) * step
        found: dict[str, GgufTensor] = {}
        for name, kind, shape, offset in entries:
            if name in found:
                raise ValueError(f"the tensor {brief(name)} is there twice")
            found[name] = GgufTensor(kind, shape, start + offset)
            if start + offset > self._size:
                raise ValueError(f"the tensor {brief(name)} begins behind its end")
        return GgufHeader(tensors=found, values=values)

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text()
        dimensions = self._number("I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"the tensor {brief(name)} has {dimensions} dimensions")
        sides = tuple(self._number("Q") for _ in range(dimensions))
        count = 1
        for side in sides:
            count *= side
            if side > MOST_ELEMENTS or count > MOST_ELEMENTS:
                raise ValueError(f"the tensor {brief(name)} is larger than any tensor can be")
        return name, self._number("I"), sides[::-1], self._number("Q")  # GGUF has the innermost side first

    def _value(self, kind: int) -> Any:
        """The value, or None for one that is not kept."""
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _TEXT:
            return self._kept_text()
        if kind != _LIST:
            raise ValueError(f"it has a value of kind {kind}")
        inner, count = self._number("I"), self._number("Q")
        if inner == _TEXT:
            skip: Callable[[], Any] = self._skip_text
            for _ in range(min(count, MOST_HEADER)):
                skip()
            return None
        if inner not in _NUMBERS:
            raise ValueError(f"it has a list of kind {inner}")
        form = _NUMBERS[inner]
        raw = self._take(count * struct.calcsize(f"<{form}"))
        return list(struct.unpack(f"<{count}{form}", raw)) if count <= MOST_ENTRIES else None

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))
        return value

    def _text(self) -> str:
        length = self._number("Q")
        if length > MOST_TEXT:
            raise ValueError(f"a name of {length} bytes")
        return self._take(length).decode("utf-8")

    def _kept_text(self) -> str | None:
        length = self._number("Q")
        if length > MOST_TEXT:
            self._skip(length)
            return None
        return self._take(length).decode("utf-8", "replace")

    def _skip_text(self) -> None:
        self._skip(self._number("Q"))

    def _take(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return self._data[start : self._at]

    def _skip(self, count: int) -> None:
        if count > min(self._size, MOST_HEADER) - self._at:
            most = "its end" if self._size <= MOST_HEADER else f"{MOST_HEADER >> 20} MiB"
            raise ValueError(f"its header goes on behind {most}")
        self._at += count
