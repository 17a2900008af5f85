"""Values of Python, NumPy and pandas -> what a line of a manifest can hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_DEPTH = 20


def plain(value: Any, depth: int = 0) -> Any:
    """The value with plain numbers, texts, lists and mappings in place of those of libraries.

    What stands for nothing there (NaN of a table, NaT, NA) becomes None. Anything unknown stays as it is, and the check
    of the item tells of it.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value if type(value).__module__ == "builtins" else _builtin(value)
    if isinstance(value, float):
        return float(value)
    if depth < _DEPTH and isinstance(value, Mapping):
        return {key: plain(one, depth + 1) for key, one in value.items()}
    if depth < _DEPTH and isinstance(value, (list, tuple, range)):
        return [plain(one, depth + 1) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    made = _of_library(value)
    return value if made is value else plain(made, depth + 1)


def plain_cell(value: Any) -> Any:
    """A cell of a table: as `plain`, and an empty one becomes None."""
    made = plain(value)
    return None if isinstance(made, float) and made != made else made


def _builtin(value: Any) -> Any:
    """The number or text of a class that derives from one of Python's (an enumeration, a NumPy text)."""
    return next((kind(value) for kind in (bool, int, str) if isinstance(value, kind)), value)


def _of_library(value: Any) -> Any:
    """What an object of NumPy or pandas holds; the object itself if it is of neither."""
    library = type(value).__module__.partition(".")[0]
    if library == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if library == "pandas":
        if type(value).__name__ in ("NAType", "NaTType"):
            return None
        if hasattr(value, "to_pydatetime"):
            return value.to_pydatetime()
        return str(value)
    return value
