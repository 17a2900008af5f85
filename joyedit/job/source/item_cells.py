"""What each cell of a matrix makes of an item: its settings and its instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

from joyedit.job.boxes import read_box
from joyedit.job.source.matrix import ALONE, Cell
from joyedit.job.source.parameter import BOX
from joyedit.job.spec import Box, Sampling

_SAMPLING = frozenset(one.name for one in fields(Sampling))


class CellEdit(NamedTuple):
    """An item as one cell of the matrix asks for it.

    `turn` counts from 0 where its line has several turns; the ending of the cell has it then, and `suffix` is the
    ending without it.
    """

    cell: Cell
    sampling: Sampling
    basesize: int
    instruction: str
    box: Box | None = None
    turn: int = 0
    suffix: str | None = None


def cell_edits(
    cells: Sequence[Cell],
    sampling: Sampling,
    basesize: int,
    instruct: Callable[[Mapping[str, str]], str],
    box: Box | None = None,
) -> list[CellEdit]:
    """The edits of an item with these settings and this box.

    `instruct` gives the instruction with the values of a cell; it is asked once for each set of values.
    """
    if cells is ALONE:
        return [CellEdit(ALONE[0], sampling, basesize, instruct({}), box)]
    texts: dict[tuple[tuple[str, str], ...], str] = {}
    made = []
    for cell in cells:
        values = tuple(cell.values.items())
        if values not in texts:
            texts[values] = instruct(cell.values)
        changed = {key: value for key, value in cell.settings.items() if key in _SAMPLING}
        own = replace(sampling, **changed) if changed else sampling
        drawn = read_box(cell.values[BOX]) if BOX in cell.values else box
        made.append(CellEdit(cell, own, cell.settings.get("basesize", basesize), texts[values], drawn))
    return made
