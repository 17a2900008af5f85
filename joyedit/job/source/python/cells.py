"""The cells of a row of a table, as the readers of datasets give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joyedit.job.source.python.pictures import is_held, reference_of
from joyedit.job.source.python.values import plain_cell


def values_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The values by the names of their columns. Raises NoPictureError."""
    return {str(name): cell(value) for name, value in row.items()}


def cell(value: Any) -> Any:
    """A picture, a list of pictures, or what JSON can hold. Raises NoPictureError."""
    if is_held(value) or _is_path_of_picture(value):
        return reference_of(value)
    if isinstance(value, (list, tuple)) and any(is_held(one) or _is_path_of_picture(one) for one in value):
        return [cell(one) for one in value]
    return plain_cell(value)


def holds_picture(value: Any) -> bool:
    """Whether a cell holds a picture, or a list of them."""
    if isinstance(value, (list, tuple)):
        return any(map(holds_picture, value))
    return is_held(value) or _is_path_of_picture(value)


def _is_path_of_picture(value: Any) -> bool:
    """Whether this is the picture of a dataset that lies in a file: `{"bytes": None, "path": "a.jpg"}`."""
    return (
        isinstance(value, dict)
        and value.keys() == {"bytes", "path"}
        and value["bytes"] is None
        and isinstance(value["path"], str)
    )
