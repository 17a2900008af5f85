"""A bounded store of tensors keyed by content: what was computed for a picture serves the next item too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows its bytes on the device."""

    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class ContentCache:
    """Keeps the entries used last, up to `capacity` bytes; an entry larger than that is not kept."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[Hashable, Sized] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of this key, made and kept if it is not there. One key always has one type."""
        found: T | None = self.find(key)
        if found is not None:
            return found
        made = make()
        self.put(key, made)
        return made

    def find(self, key: Hashable) -> Any:
        """The entry of this key, or None."""
        if key not in self._entries:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Hashable, entry: Sized) -> None:
        """Keep an entry under a key that has none."""
        if entry.nbytes > self.capacity:
            return
        self._entries[key] = entry
        self.nbytes += entry.nbytes
        while self.nbytes > self.capacity:
            self.nbytes -= self._entries.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        self._entries.clear()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)
