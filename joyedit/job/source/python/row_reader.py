"""One row that a program gives -> a record, as of a line of a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from joyedit.errors import Problem
from joyedit.job.data_picture import Reference
from joyedit.job.source.columns import kept_columns
from joyedit.job.source.layouts.mapping import plain_json
from joyedit.job.source.problems import OfDataset, Record
from joyedit.job.source.python.pictures import NoPictureError, is_held, reference_of
from joyedit.job.source.python.values import plain
from joyedit.job.source.schema import INPUT_KEYS, Schema
from joyedit.job.turns import as_path

_EXAMPLE = 'for example {"image": "a.jpg", "instruction": "Make the sky red."}'


def place_in(name: str) -> Callable[[int], str]:
    """How messages name a row of `name` by its index from 0: `source[3]`."""
    return lambda index: f"{name}[{index}]"


class RowReader:
    """Reads rows: mappings with the keys of a line of a manifest, or a picture or its path alone."""

    def __init__(self, schema: Schema, place: Callable[[int], str]) -> None:
        self._schema = schema
        self._place = place

    def read(self, index: int, row: Any) -> Record | Problem:
        """The record of the row at `index`, counted from 0; or what is wrong with it."""
        place = self._place(index)
        if isinstance(row, (str, os.PathLike)) or is_held(row):
            row = {"image": as_path(row) if isinstance(row, str) else row}
        if not isinstance(row, Mapping):
            what = f"an item is a mapping of keys, a path or a picture of Pillow, not {type(row).__name__}"
            return Problem(what, _EXAMPLE).at(place)
        held: dict[str, Reference] = {}
        try:
            data = {name: self._value(name, value, held) for name, value in row.items()}
        except NoPictureError as error:
            return error.problem.at(place)
        wrong = next((name for name in data if not isinstance(name, str)), None)
        if wrong is not None:
            return Problem(f"the key {wrong!r} is no text", "keys are those of a line of a manifest").at(place)
        columns = None
        if self._schema.keeps_any:
            kept = {name: plain_json(value)[0] for name, value in data.items() if self._schema.keeps(name)}
            columns, problem = kept_columns(kept, kept)
            if problem is not None:
                return problem.at(place)
        return Record(index + 1, data, OfDataset(place, held, columns))

    def _value(self, name: Any, value: Any, held: dict[str, Reference]) -> Any:
        """The value as a line has it; pictures in memory go to `held`, and their addresses take their place."""
        if not isinstance(name, str) or self._schema.key(name) not in INPUT_KEYS or isinstance(value, str):
            return plain(value)
        if isinstance(value, (list, tuple)):
            return [one if isinstance(one, str) else _named(one, held) for one in value]
        return None if value is None else _named(value, held)


def _named(value: Any, held: dict[str, Reference]) -> str:
    """What stands for a picture in its line. Raises NoPictureError."""
    found = reference_of(value)
    if isinstance(found, str):
        return as_path(found)
    held[found.address] = found
    return found.address
