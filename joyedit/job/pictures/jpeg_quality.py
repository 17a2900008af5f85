"""The quality that a JPEG was saved with, from its quantization tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
])  # fmt: skip
"""The example table of ITU-T T.81, annex K, row by row. libjpeg scales it by the quality."""


def quality_of(tables: Mapping[int, Sequence[int]] | None) -> int | None:
    """The quality from 1 to 100 whose table is nearest to the first of `tables` (64 values); None if there is none.

    Programs with tables of their own have no such quality; the nearest one keeps about as much.
    """
    table = None if not tables else tables.get(0)
    if table is None or len(table) != 64:
        return None
    away = np.abs(_all_tables() - np.sort(np.array(table, dtype=np.float64))).sum(axis=1)
    return int(away.argmin()) + 1


@lru_cache(maxsize=1)
def _all_tables() -> NDArray[np.float64]:
    """The tables of all qualities, (100, 64). Each is sorted: readers give them row by row, or in zigzag."""
    rows = []
    for quality in range(1, 101):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        rows.append(np.sort(np.clip((_LUMINANCE * scale + 50) // 100, 1, 255)))
    return np.array(rows, dtype=np.float64)
