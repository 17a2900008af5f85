"""`seeds` and `sweep` as cells of a table, and the names of the two keys."""

from __future__ import annotations

import json
from collections.abc import Callable

from joyedit.job.source.problems import Table

SEEDS, SWEEP = "seeds", "sweep"
LINE_MATRIX = (SEEDS, SWEEP)
"""The keys by which one line makes several edits."""


def from_matrix_cell(key: str, cell: str, typed: Callable[[str, str], object]) -> object:
    """The value of a cell of a table for `seeds` or `sweep`.

    Seeds are a number, or a list such as `1, 2, 3` or `1;2`. A sweep is `steps=20,40; guidance_scale=3,5`, or a JSON
    object. `typed` reads a value of a key. What is of no such form stays text, which the check of the line reports.
    """
    text = cell.strip()
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return cell
    if key == SEEDS:
        values = [typed("seed", part.strip()) for part in text.replace(";", ",").split(",")]
        return values if len(values) > 1 else values[0]
    made: dict[str, object] = Table()
    for part in text.split(";"):
        name, sign, rest = part.partition("=")
        if not sign or name.strip() in made:
            return cell
        made[name.strip()] = [typed(name.strip(), value.strip()) for value in rest.split(",")]
    return made
