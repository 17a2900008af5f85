"""How many items of a shape fit on the device, as learned from running out of memory.

A size that did not fit is halved; after some batches that did, the next larger one is tried again, and
after each further failure that takes twice as long.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

PATIENCE = 16
_MOST_PATIENCE = 1024


@dataclass(slots=True)
class _Limit:
    size: int
    patience: int = PATIENCE
    fitted: int = 0


class BatchLimits:
    """One limit for each shape (any hashable key) that ever ran out of memory."""

    def __init__(self) -> None:
        self._limits: dict[Hashable, _Limit] = {}

    def of(self, key: Hashable, wished: int) -> int:
        """How many of `wished` items to take at once."""
        limit = self._limits.get(key)
        return wished if limit is None else min(wished, limit.size)

    def failed(self, key: Hashable, size: int) -> None:
        """A batch of `size` ran out of memory."""
        half = max(1, size // 2)
        limit = self._limits.get(key)
        if limit is None:
            self._limits[key] = _Limit(half)
        else:
            limit.size, limit.fitted = half, 0
            limit.patience = min(2 * limit.patience, _MOST_PATIENCE)

    def fitted(self, key: Hashable, size: int) -> None:
        """A batch of `size` went through."""
        limit = self._limits.get(key)
        if limit is None or size < limit.size:
            return
        limit.fitted += 1
        if limit.fitted >= limit.patience:
            limit.size, limit.fitted = 2 * limit.size, 0
