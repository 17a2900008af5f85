"""`turns` of one line, and names of results among its pictures: what an item begins with, and its instruction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from joyedit.errors import Problem
from joyedit.job.data_picture import Reference
from joyedit.job.source.item_cells import CellEdit
from joyedit.job.source.item_names import CellName, cell_id
from joyedit.job.source.schema import Line
from joyedit.job.source.turn_links import CellWishes, Wish
from joyedit.job.turns import TURNS, earlier_id, place_holder


def turn_edits(
    turns: Sequence[str] | None, own: str | None, edits: Callable[[str | None], list[CellEdit]]
) -> list[CellEdit]:
    """The edits of a line: `edits` of its own text; where it has turns, those of the first, then of the second, ..."""
    if turns is None:
        return edits(own)
    made: list[CellEdit] = []
    for place, text in enumerate(turns):
        for edit in edits(text):
            cell = edit.cell._replace(suffix=f"-turn{place + 1}{edit.cell.suffix}")
            made.append(edit._replace(cell=cell, suffix=edit.cell.suffix, turn=place))
    return made


def turn_problems(line: Line, edits: Sequence[CellEdit]) -> Iterator[Problem]:
    """What a line with turns cannot have beside them."""
    if line.turns is None:
        return
    for key in ("instruction", "output"):
        if getattr(line, key) is not None:
            what = "each of them is an instruction" if key == "instruction" else "they make several pictures"
            yield Problem(f"'{TURNS}' and '{key}' are both given, and {what}", f"leave '{key}' out", key=TURNS)
    if any(edit.box is not None for edit in edits):
        remedy = 'write a line for each turn, the second with "image": "@" and the id of the first'
        yield Problem("a red box is drawn on one picture, and turns make several", remedy, key=TURNS)


def wishes_of(
    images: Sequence[str], edits: Sequence[CellEdit], cells: Sequence[CellName], *, names_results: bool
) -> list[CellWishes]:
    """Whose results the items of a line begin with. `names_results`: `@` in front of a picture is no part of a path."""
    names = [earlier_id(image) if names_results else None for image in images]
    count = sum(edit.turn == 0 for edit in edits)
    made = []
    for place, (edit, cell) in enumerate(zip(edits, cells, strict=False)):
        wishes = [None if name is None else _wish(name, edit) for name in names]
        if edit.turn and place >= count:
            wishes[-1:] = [(cells[place - count].id,)]
        made.append(CellWishes(cell.id, tuple(wishes)))
    return made


def _wish(name: str, edit: CellEdit) -> Wish:
    cell = edit.cell._replace(suffix=edit.cell.suffix if edit.suffix is None else edit.suffix)
    return (cell_id(name, cell), name) if cell.suffix else (name,)


def images_with(
    images: tuple[Reference, ...], earlier: Sequence[str | None], *, is_later_turn: bool
) -> tuple[Reference, ...]:
    """The pictures of an item, with a place for each result. A later turn has one in place of the last picture."""
    if not any(earlier):
        return images
    if is_later_turn:
        images = (*images[:-1], Path())
    return tuple(image if name is None else place_holder(name) for image, name in zip(images, earlier, strict=True))
