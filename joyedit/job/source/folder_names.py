"""The ids and outputs of the items of a folder of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from joyedit.errors import Problem
from joyedit.job.source.default_ids import DefaultId, folder_id
from joyedit.job.source.item_cells import CellEdit
from joyedit.job.source.item_names import CellName, cell_id, cell_ids
from joyedit.job.source.names import default_ending, fold, safe_name
from joyedit.job.source.output_names import Facts, OutputNames
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.picture_folder import Entry
from joyedit.job.source.problems import shown
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.source.written_paths import system_path
from joyedit.job.spec import Owns

_TOLD_APART = "add {id} or {index} to the template"
_OVERWRITES = "the edited picture of another item would overwrite it (choose another output folder with -o)"


class FolderName(NamedTuple):
    """The names of one cell of a picture, and why the edited picture cannot be written; empty if it can."""

    name: CellName
    owns: Owns
    reason: str


class FolderNames:
    """Gives out the names of the items of a folder, in order. `sources` are the folders that are walked."""

    def __init__(self, sources: Sequence[str], tree: OutputTree, options: SourceOptions) -> None:
        self._tree = tree
        self._options = options
        self._taken = TakenNames(default_ending(options.format, None), tree.place)
        self._outputs = OutputNames(options)
        self._count = 0
        if options.mask is not None:
            for name in tree.file_names(system_path(options.mask, "")):
                self._taken.note_input(name)
        self._sources = [fold(name) + "/" for source in sources for name in tree.folder_names(source)]

    def of_folder(self, entry: Entry) -> CellName:
        """The names of a folder that cannot be read. It is one item, whatever the matrix."""
        self._count += 1
        name = self._taken.default_id(safe_name(f"{entry.path}/{entry.code}"), with_output=True)
        self._taken.take_id(name, self._count)
        return CellName(name, name + self._taken.extension)

    def of_picture(self, entry: Entry, edits: Sequence[CellEdit]) -> list[FolderName]:
        """The names of a picture: one for each edit of it."""
        self._count += 1
        self._taken.extension = self._outputs.extension = default_ending(self._options.format, entry.path)
        reason = ""
        for input_name in entry.names_in_output:
            if not self._is_in_source(input_name) and self._taken.note_input(input_name) is not None:
                reason = _OVERWRITES
        wish = folder_id(entry.path, *entry.alike)
        base = self._taken.default_id(wish.id, safe_name(entry.path), with_output=not self._outputs.is_by_id)
        named = DefaultId(base, wish.others if base == wish.id else (), owns=wish.owns)
        self._taken.take_id(base, self._count)
        return [self._cell(entry, named, edit, reason) for edit in edits]

    def _cell(self, entry: Entry, base: DefaultId, edit: CellEdit, reason: str) -> FolderName:
        name = cell_id(base.id, edit.cell)
        facts = Facts(
            os.path.basename(entry.path),
            None,
            edit.sampling,
            edit.basesize,
            {**self._options.recipe_values, **edit.cell.values},
            {},
        )
        output = self._outputs.output(name, edit.cell, None, facts)
        if isinstance(output, Problem):
            made = CellName(name, name + self._taken.extension, cell_ids(name, base.others, edit.cell))
            return FolderName(made, base.owns, output.text)
        if self._is_in_source(output):
            where = f"its edited picture {shown(output)}"
            reason = f"{where} would lie in the source folder (choose another output folder with -o)"
        elif not reason:
            problem = self._taken.take_output(output, self._count)
            if problem is not None and self._outputs.has_template:
                reason = f"--name gives it the name {shown(output)}, which is another picture's ({_TOLD_APART})"
            elif problem is not None and not self._outputs.is_by_id:
                reason = problem.text
        return FolderName(CellName(name, output, cell_ids(name, base.others, edit.cell)), base.owns, reason)

    def _is_in_source(self, name: str) -> bool:
        """Whether `name` below the output folder lies in the source folder."""
        if not self._sources:
            return False
        place = fold(self._tree.place(name))
        return any(place.startswith(folder) for folder in self._sources)
