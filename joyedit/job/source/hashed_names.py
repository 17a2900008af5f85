"""A table of names by their hashes alone: 16 bytes a slot, and no name is kept."""

from __future__ import annotations

from array import array
from typing import Protocol

_FIRST = 1 << 12
_MASK = (1 << 64) - 1


class NameTable(Protocol):
    """What `TakenNames` needs of a table: a dict of numbers by name, or `HashedNames`."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> int: ...

    def __setitem__(self, name: str, number: int, /) -> None: ...

    def get(self, name: str, /) -> int | None:
        """The number of a name; None if it has none."""


class HashedNames:
    """Numbers by name. Two names of a million have one hash of 64 bits in one of 36 million runs."""

    def __init__(self) -> None:
        self._count = 0
        self._size = _FIRST
        self._hashes = array("Q", bytes(8 * self._size))
        self._numbers = array("q", bytes(8 * self._size))

    def __contains__(self, name: object, /) -> bool:
        return isinstance(name, str) and self._hashes[self._slot(_hash(name))] != 0

    def __getitem__(self, name: str, /) -> int:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __setitem__(self, name: str, number: int, /) -> None:
        hashed = _hash(name)
        slot = self._slot(hashed)
        if not self._hashes[slot]:
            self._count += 1
            self._hashes[slot] = hashed
        self._numbers[slot] = number
        if self._count * 3 > self._size * 2:
            self._grow()

    def __len__(self) -> int:
        return self._count

    def get(self, name: str, /) -> int | None:
        """The number of a name; None if it has none."""
        slot = self._slot(_hash(name))
        return self._numbers[slot] if self._hashes[slot] else None

    def _slot(self, hashed: int) -> int:
        """Where a hash is, or the free slot for it."""
        hashes, mask = self._hashes, self._size - 1
        slot = hashed & mask
        while hashes[slot] not in (0, hashed):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        hashes, numbers = self._hashes, self._numbers
        self._size *= 2
        self._hashes = array("Q", bytes(8 * self._size))
        self._numbers = array("q", bytes(8 * self._size))
        for hashed, number in zip(hashes, numbers, strict=True):
            if not hashed:
                continue
            slot = self._slot(hashed)
            self._hashes[slot], self._numbers[slot] = hashed, number


def _hash(name: str) -> int:
    return (hash(name) & _MASK) or 1
