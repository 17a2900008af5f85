"""Sources without a manifest: one picture, and a folder of pictures. One instruction serves all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joyedit.errors import ManifestError, Problem, UsageError, os_reason
from joyedit.job.plan import failed
from joyedit.job.source.beside_pictures import NO_TEXTS, SUFFIX, needs_texts, text_beside
from joyedit.job.source.counted_pictures import CountedPictures
from joyedit.job.source.folder_names import FolderNames
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.item_cells import CellEdit, cell_edits
from joyedit.job.source.item_names import CellName
from joyedit.job.source.loras import LoraSet
from joyedit.job.source.matrix import Cell
from joyedit.job.source.output_tree import Identity, OutputTree
from joyedit.job.source.passed_over import PassedOver
from joyedit.job.source.picture_folder import Entry, FolderWalk
from joyedit.job.source.problems import Problems, Record, cut, one_message, utf8_safe
from joyedit.job.source.result_sizes import AskedSize, asked_size
from joyedit.job.source.source import Source, SourceSummary
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.written_paths import system_path
from joyedit.job.spec import Box, EditItem, FailedItem, Origin, Owns, Sampling, Settings
from joyedit.job.turns import as_path

_SHOWN_PATH = 1000


class PictureSource(Source):
    """One picture, named on the command line. `text` is the instruction that lies beside it."""

    def __init__(self, name: str, options: SourceOptions, text: str | None = None) -> None:
        super().__init__(name, "picture", options)
        data: dict[str, Any] = {"image": as_path(os.path.basename(name))}
        self._has_text = text is not None
        if text is not None:
            data["instruction"] = text  # as a line says it: whoever changes it changes this item
        if options.file_name is not None:
            data |= {"id": options.file_name, "output": options.file_name}
        if options.item_id is not None:
            data["id"] = options.item_id
        self._record = Record(0, data)
        self._base = os.path.dirname(name)

    def check(self) -> SourceSummary:
        builder = self._builder(look=True)
        problems = builder.problems(self._record)
        if problems:
            raise ManifestError(problems)
        instruction = next(self._items()).instruction if self._has_text else builder.instruction
        return self._summary(builder.counted, builder.settings, instruction=instruction, loras=builder.loras)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        yield from self._builder(look=False).items(self._record)

    def _builder(self, *, look: bool) -> ItemBuilder:
        return ItemBuilder(file=self.name, base=self._base, options=self.options, defaults=RunDefaults(), look=look)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shared:
    """What all items of a folder share.

    `instruction` is None, and `edits` is empty, where each picture has a text file beside it.
    """

    settings: Settings
    instruction: str | None
    sampling: Sampling
    cells: Sequence[Cell]
    edits: Sequence[CellEdit]
    size: AskedSize
    loras: LoraSet
    box: Box | None
    mask: Path | None

    def edits_of(self, instruct: Callable[[Mapping[str, str]], str]) -> Sequence[CellEdit]:
        """The edits of a picture with an instruction of its own: one for each cell."""
        return cell_edits(self.cells, self.sampling, self.settings.basesize or 0, instruct, self.box)


class FolderSource(Source):
    """A folder of pictures. The output folder gets the same tree.

    Each picture that `check` counted comes out of `items`, as a failed item if it is gone by then. `roots` are the
    folders below this one that are walked.
    """

    def __init__(self, name: str, options: SourceOptions, *, roots: Sequence[str] = ("",)) -> None:
        super().__init__(name, "folder", options)
        assert options.output is not None, "the items of a folder go into an output folder"
        tree = OutputTree(options.output)
        for root in roots:
            folder = os.path.join(name, root) if root else name
            if "" in tree.folder_names(folder):
                raise UsageError(f"{folder}: the output folder is the source folder (choose another with -o)")
        self._roots = roots
        self._pictures = [CountedPictures() for _ in roots]

    def check(self) -> SourceSummary:
        shared = self._shared()
        items, asked, passed = 0, 0, PassedOver()
        problems = Problems()
        tree = OutputTree(self.options.output)
        names = self._names(tree) if self.options.template is not None else None
        for entry in self._entries(tree, note=True):
            if names is not None and entry.kind == "picture":
                problems.add(self._wrong_names(entry, names, shared))
            if entry.kind != "other":
                items += 1 if entry.kind == "folder" else len(shared.cells)
            elif shared.instruction is not None or not entry.path.endswith(SUFFIX):
                passed.add(utf8_safe(entry.path), entry.reason)
            if shared.instruction is None and entry.kind == "picture":
                asked += 1
                problems.add(self._edits(entry, shared)[1])
        if asked and problems.total == asked:  # nobody meant to write them
            raise ManifestError([NO_TEXTS.at(self.name)])
        problems.raise_any()
        if not items:
            counted = "".join(f", {count} x {kind}" for kind, count in passed.kinds.most_common())
            raise ManifestError([Problem(f"no pictures in this folder{counted}").at(self.name)])
        return self._summary(items, shared.settings, instruction=shared.instruction, loras=shared.loras, passed=passed)

    def _entries(self, tree: OutputTree, *, note: bool = False) -> Iterator[Entry]:
        """Raises ManifestError if a folder itself cannot be read."""
        visited: set[Identity] = set()
        for root, counted in zip(self._roots, self._pictures, strict=True):
            folder = os.path.join(self.name, root) if root else self.name
            try:
                walk = FolderWalk(folder, tree, counted, exclude=self.options.exclude, note=note, visited=visited)
                for entry in walk:
                    yield entry._replace(path=f"{root}/{entry.path}") if root else entry
            except OSError as error:
                raise ManifestError([Problem(f"cannot read this folder: {os_reason(error)}").at(folder)]) from error

    def _shared(self) -> _Shared:
        loras = self.options.run_loras()[0] or LoraSet()
        settings = self.options.settings(Settings(), loras.settings)
        needs = needs_texts(self.options)
        sampling = settings.sampling()
        cells = self.options.matrix.cells(sampling.seed)
        text, problems = (None, []) if needs else self._composed(None, self.options.first_values)
        wrong = self.options.matrix.seed_problem(sampling.seed)
        problems = list(problems) if wrong is None else [*problems, wrong]
        size = asked_size(settings, problems)
        if problems:
            raise ManifestError(problem.at(self.name) for problem in problems)
        shared = _Shared(
            settings=settings,
            instruction=text,
            sampling=sampling,
            cells=cells,
            edits=(),
            size=size,
            loras=loras,
            box=self.options.default_box,
            mask=None if self.options.mask is None else Path(system_path(self.options.mask, "")),
        )
        return shared if text is None else replace(shared, edits=shared.edits_of(lambda v: self._composed(None, v)[0]))

    def _composed(self, own: str | None, swept: Mapping[str, str]) -> tuple[str, list[Problem]]:
        """The instruction with the values of a cell of the matrix."""
        options = self.options
        values = {**options.recipe_values, **swept}
        return compose_instruction(options.recipe, values, own=own, prompt=options.prompt, default=None)

    def _edits(self, entry: Entry, shared: _Shared) -> tuple[Sequence[CellEdit], list[Problem]]:
        """The edits of one picture, and why it has no instruction."""
        if shared.edits:
            return shared.edits, []
        if entry.kind != "picture":
            return shared.edits_of(lambda swept: ""), []
        text = text_beside(os.path.join(self.name, entry.path))
        if isinstance(text, Problem):
            where = cut(utf8_safe(os.path.join(self.name, entry.path)), _SHOWN_PATH)
            return shared.edits_of(lambda swept: ""), [text.at(where)]
        problems = self._composed(text, self.options.first_values)[1]
        return shared.edits_of(lambda swept: self._composed(text, swept)[0]), problems

    def _names(self, tree: OutputTree) -> FolderNames:
        folders = [os.path.join(self.name, root) if root else self.name for root in self._roots]
        return FolderNames(folders, tree, self.options)

    def _wrong_names(self, entry: Entry, names: FolderNames, shared: _Shared) -> Iterator[Problem]:
        """Why pictures cannot have the names that `--name` gives them."""
        where = cut(utf8_safe(os.path.join(self.name, entry.path)), _SHOWN_PATH)
        edits = shared.edits or shared.edits_of(lambda swept: "")
        for named in names.of_picture(entry, edits):
            if named.reason:
                yield Problem(named.reason).at(where)

    def _items(self) -> Iterator[EditItem | FailedItem]:
        shared = self._shared()
        tree = OutputTree(self.options.output)
        names = self._names(tree)
        for entry in self._entries(tree):
            if entry.kind == "other":
                continue
            text = utf8_safe(entry.path)
            edits, problems = self._edits(entry, shared)
            if entry.kind == "folder":
                message = f"{cut(text, _SHOWN_PATH)}: {entry.reason}"
                item = self._item(entry, names.of_folder(entry), edits[0], "none", shared)
                yield replace(failed(item, entry.code, message), images=(), item=None)
                continue
            for named, edit in zip(names.of_picture(entry, edits), edits, strict=True):
                item = self._item(entry, named.name, edit, named.owns, shared)
                if text != entry.path:
                    # Neither a record nor a message could hold its name.
                    message = f"{text}: the file name is not valid UTF-8; rename it"
                    yield replace(failed(item, "unreadable_picture", message), images=(), item=None)
                elif named.reason:  # a retry must not try this output either
                    yield replace(failed(item, "output_taken", f"{cut(text, _SHOWN_PATH)}: {named.reason}"), item=None)
                elif entry.code:
                    yield failed(item, entry.code, f"{cut(text, _SHOWN_PATH)}: {entry.reason}")
                elif problems:  # it was there at the check
                    yield replace(failed(item, "no_instruction", one_message(problems)), item=None)
                else:
                    yield item

    def _item(self, entry: Entry, name: CellName, edit: CellEdit, owns: Owns, shared: _Shared) -> EditItem:
        return EditItem(
            id=name.id,
            images=(Path(os.path.join(self.name, entry.path)),),
            instruction=edit.instruction,
            sampling=edit.sampling,
            basesize=edit.basesize,
            box=edit.box,
            mask=shared.mask,
            size=shared.size.size,
            result_size=shared.size.result,
            fit=shared.settings.fit or "crop",
            output=name.output,
            origin=Origin(file=self.name),
            loras=shared.loras.loras,
            has_default_id=True,
            other_ids=name.other_ids,
            owns=owns,
        )
