"""The ids and outputs of the items of one pass over records. What is given out is taken from then on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from joyedit.errors import Problem
from joyedit.job.source.default_ids import DefaultIds, OtherIds, PictureIds, Uses
from joyedit.job.source.matrix import Cell
from joyedit.job.source.names import default_ending, endings_of, name_problem, safe_name
from joyedit.job.source.output_names import Facts, OutputNames
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.picture_finder import FoundPicture
from joyedit.job.source.problems import shown
from joyedit.job.source.schema import Line
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.spec import Owns


class CellName(NamedTuple):
    """The names of one cell of an item."""

    id: str
    output: str
    other_ids: Iterable[str] = ()


class Names(NamedTuple):
    """The names of an item: `id` is the one before a matrix multiplies it, None if the item cannot have it.

    `cells` has the names of each cell, in order; fewer if some of them cannot be. `owns` is that of `EditItem`.
    """

    id: str | None
    cells: Sequence[CellName] = ()
    owns: Owns = "none"


class ItemNames:
    """Gives names to records in order. `uses` are what a first pass over the source found."""

    def __init__(self, options: SourceOptions, base: str | None, tree: OutputTree, uses: Uses | None) -> None:
        self._extensions = endings_of(options.format)
        self._format = options.format
        self._taken = TakenNames(default_ending(options.format, None), tree.place)
        if uses is not None:
            self._taken.reserve(uses.given_ids, uses.given_outputs)
        self._default_ids = DefaultIds(PictureIds(base), uses)
        self._has_matrix = bool(options.matrix)
        self._of_line: set[str] = set()
        self.outputs = OutputNames(options)

    def knows(self, name: str) -> bool:
        """Whether this id was given out."""
        return self._taken.has_id(name)

    def failed(self, wish: str | None, number: int) -> str:
        """The id of a record that is no item: `wish`, if it may have that one."""
        if wish is None or name_problem(wish) is not None:
            wish = f"line-{number}"
            if self._taken.is_reserved(wish, with_output=True):
                wish += "-broken"
        name = self._taken.default_id(wish, with_output=True)
        self._taken.take_id(name, max(number, 1))
        return name

    def give(
        self,
        line: Line,
        values: Mapping[str, str],
        pictures: Sequence[FoundPicture],
        number: int,
        cells: Sequence[tuple[Cell, Callable[[], Facts] | None]],
        *,
        problems: list[Problem],
    ) -> Names:
        """The names of a line; what is wrong with them is added to `problems`."""
        ending = default_ending(self._format, pictures[-1].file_name if pictures else None)
        self._taken.extension = self.outputs.extension = ending
        for found in pictures:
            if found.names_in_output:
                problems += self.of_input(found)
        wrong_output = None if line.output is None else self._wrong_output(line.output)
        _add(problems, wrong_output)
        others: Iterable[str] = ()
        owns: Owns = "none"
        if line.id is None:
            # Only lines of the same content get numbers, which depend on the order of the lines.
            name, others, short, owns = self._default_ids.of(line, values)
            has_output = line.output is not None or not self.outputs.is_by_id or cells[0][0].suffix != ""
            if short is not None and self._taken.is_reserved(short, with_output=False):
                message = f"another line gives the id or output of {shown(short)}, which may be this picture's too"
                problems.append(Problem(message, "give this line an id of its own"))
            if not self._taken.is_reserved(name, with_output=has_output):  # else the two lines are told of each other
                wish, name = name, self._taken.default_id(name, with_output=has_output)
                others = others if name == wish else ()
        else:
            name = line.id
        if not self._takes_id(name, number, problems):
            return Names(None)
        if wrong_output is not None:
            return Names(name)
        self._of_line = set()
        made = [self._cell(name, others, line, number, problems, at=one) for one in cells]
        return Names(name, [one for one in made if one is not None], owns)

    def of_input(self, found: FoundPicture) -> list[Problem]:
        """Note a picture that an item reads; gives the problems where an output before it has its name."""
        noted = (self._taken.note_input(name) for name in found.names_in_output)
        return [problem for problem in noted if problem is not None]

    def _cell(
        self,
        base: str,
        others: Iterable[str],
        line: Line,
        number: int,
        problems: list[Problem],
        *,
        at: tuple[Cell, Callable[[], Facts] | None],
    ) -> CellName | None:
        """The names of one cell; None if it cannot have them."""
        cell, facts = at
        name = cell_id(base, cell)
        if (self._has_matrix or cell.suffix) and not self._takes_cell(name, number, problems):
            return None
        output = self.outputs.output(name, cell, line.output, None if facts is None else facts())
        if isinstance(output, Problem):
            problem: Problem | None = output
        elif output in self._of_line:
            message = f"--name gives several edits of this item the name {shown(output)}"
            problem = Problem(message, "add {id} or {index} to the template", once="one name for several edits")
        else:
            self._of_line.add(output)
            problem = self._taken.take_output(output, number)
        if problem is not None or isinstance(output, Problem):
            _add(problems, problem)
            return None
        return CellName(name, output, cell_ids(name, others, cell))

    def _takes_id(self, name: str, number: int, problems: list[Problem]) -> bool:
        """Take the id of an item. Says whether it can have it."""
        return self._takes(name, number, problems, "it becomes the name of a file", self._taken.take_id)

    def _takes_cell(self, name: str, number: int, problems: list[Problem]) -> bool:
        """Take the id of a cell. Says whether it can have it."""
        take = self._taken.take_cell if self._has_matrix else self._taken.take_line_cell
        return self._takes(name, number, problems, "give the item a shorter id", take)

    def _takes(
        self,
        name: str,
        number: int,
        problems: list[Problem],
        remedy: str,
        take: Callable[[str, int], Problem | None],
    ) -> bool:
        reason = name_problem(name)
        if reason is not None:
            problems.append(Problem(f"the id {shown(name)} {reason}", remedy, key="id"))
            return False
        problem = take(name, number)
        _add(problems, problem)
        return problem is None

    def _wrong_output(self, output: str) -> Problem | None:
        root, ending = os.path.splitext(output)
        reason = name_problem(root)
        if reason is not None:
            remedy = "it is a path below the output folder, with / between its parts"
            return Problem(f"the output {shown(output)} {reason}", remedy, key="output")
        if ending.lower() not in self._extensions:
            message = f"the output {shown(output)} does not fit the format {self._format}"
            return Problem(message, f"it ends with {' or '.join(self._extensions)}", key="output")
        return None


def cell_id(base: str, cell: Cell) -> str:
    """The id of a cell of the item `base`; a name that would be too long is shortened."""
    return safe_name(base + cell.suffix) if cell.suffix else base


def cell_ids(name: str, others: Iterable[str], cell: Cell) -> Iterable[str]:
    """The other ids of a cell: it had them where its item had them."""
    if not cell.suffix or (isinstance(others, tuple) and not others):
        return others
    return OtherIds(name, lambda: (cell_id(other, cell) for other in others))


def _add(problems: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        problems.append(problem)
