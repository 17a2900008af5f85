"""Which ids and output names are taken: no two items of a run share one, and no output overwrites an input."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from joyedit.errors import Problem
from joyedit.job.number_table import NumberTable
from joyedit.job.source.names import fold
from joyedit.job.source.problems import shown

_OF_MATRIX = ", which a matrix gives,"
_OWN_NAMES = "give each item an id or output of its own; names that differ only in case count as one"


class TakenNames:
    """The names given out so far, each with its number: a line (in a folder, a running count), from 1.

    `extension` is the ending of outputs that are made from ids; whoever gives items different ones sets it before each.
    `place` gives the name under which an output really lies, where a part of its own name is a link. An item takes
    about 60 bytes here.
    """

    def __init__(self, extension: str, place: Callable[[str], str] = lambda name: name) -> None:
        self.extension = extension
        self._place = place
        self._ids = NumberTable()
        self._cells = NumberTable()  # the ids of items that a matrix multiplies
        self._line_cells = NumberTable()  # those of lines with a matrix of their own, beside lines without
        self._outputs = NumberTable()  # these and the next two are folded: case does not count
        self._inputs: set[str] = set()
        self._folders: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._given_ids: frozenset[str] = frozenset()
        self._given_outputs: frozenset[str] = frozenset()

    def reserve(self, ids: Iterable[str], outputs: Iterable[str]) -> None:
        """The names that lines have as their own. A default id that equals one of them is a problem in any order."""
        self._given_ids = frozenset(ids)
        self._given_outputs = frozenset(map(self._folded, outputs))

    def has_id(self, name: str) -> bool:
        """Whether an item has this id, or a line whose items have longer ones."""
        return any(name in table for table in (self._ids, self._cells, self._line_cells))

    def is_reserved(self, wish: str, *, with_output: bool) -> bool:
        """Whether a line has this as its own id, or the default output of it as its own output."""
        if wish in self._given_ids:
            return True
        if with_output or not self._given_outputs:
            return False
        return self._folded(wish + self.extension) in self._given_outputs

    def default_id(self, *wishes: str, with_output: bool = False) -> str:
        """The first of `wishes` that is free; if none is, the last one with "-2", "-3", ... behind it.

        Its default output is free as well, unless the item has an output of its own (`with_output`).
        """
        for wish in wishes:
            if self._is_free(wish, with_output):
                return wish
        last = wishes[-1]
        number = self._counts.get(last, 1)
        while True:
            number += 1
            made = f"{last}-{number}"
            if self._is_free(made, with_output) and not self.is_reserved(made, with_output=with_output):
                self._counts[last] = number
                return made

    def _is_free(self, wish: str, with_output: bool) -> bool:
        if wish in self._ids:
            return False
        return with_output or self._output_problem(wish + self.extension) is None

    def _folded(self, output: str) -> str:
        return fold(self._place(output))

    def take_id(self, name: str, number: int) -> Problem | None:
        """Takes the id `name`, or says which line has it."""
        if self._line_cells and name in self._line_cells:
            return _take(self._line_cells, name, number, _OF_MATRIX)
        return _take(self._ids, name, number)

    def take_cell(self, name: str, number: int) -> Problem | None:
        """Takes the id of a cell of a matrix, or says which line has it. Ids of `take_id` are others."""
        return _take(self._cells, name, number, _OF_MATRIX)

    def take_line_cell(self, name: str, number: int) -> Problem | None:
        """The same where only some lines have a matrix: the ids of `take_id` are those of other items."""
        return _take(self._ids if name in self._ids else self._line_cells, name, number, _OF_MATRIX)

    def take_output(self, name: str, number: int) -> Problem | None:
        """Takes the output `name`, or says why it is not free."""
        problem = self._output_problem(name)
        if problem is None:
            folded = self._folded(name)
            self._outputs[folded] = number
            for parent in _picture_folders(folded):
                self._folders[parent] = number
        return problem

    def note_input(self, name: str) -> Problem | None:
        """Notes an input picture that lies in the output folder, as `name` below it."""
        folded = fold(name)
        self._inputs.add(folded)
        taken = self._outputs.get(folded)
        if taken is None:
            return None
        message = f"line {taken} would overwrite the picture {shown(name)} in the output folder"
        return Problem(message, "choose another output folder, or give an id")

    def _output_problem(self, name: str) -> Problem | None:
        folded = self._folded(name)
        if folded in self._inputs:
            message = f"the output {shown(name)} would overwrite an input picture"
            return Problem(message, "choose another output folder, or give an id", key="output")
        if folded in self._folders:
            message = f"line {self._folders[folded]} uses the output {shown(name)} as a folder"
            return Problem(message, _OWN_NAMES, key="output")
        for parent in _picture_folders(folded):
            if parent in self._outputs:
                message = (
                    f"the output {shown(name)} lies in a folder that is the output of line {self._outputs[parent]}"
                )
                return Problem(message, _OWN_NAMES, key="output")
        if folded in self._outputs:
            message = f"the output {shown(name)} is taken by line {self._outputs[folded]}"
            return Problem(message, _OWN_NAMES, key="output")
        return None


def _take(table: NumberTable, name: str, number: int, what: str = "") -> Problem | None:
    """Takes the id `name` in `table`, or says which line has it; `what` says more of the id."""
    taken = table.get(name)
    if taken is not None:
        return Problem(
            f"the id {shown(name)}{what} is taken by line {taken}", "give each item an id of its own", key="id"
        )
    table[name] = number
    return None


def _picture_folders(folded: str) -> list[str]:
    """The folders of an output that look like a picture; no other folder can be an output too."""
    if "." not in folded[: max(folded.rfind("/"), 0)]:
        return []
    parts = folded.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts)) if "." in parts[n - 1]]
