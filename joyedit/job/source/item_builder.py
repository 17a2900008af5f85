"""Records -> items: the builder checks each record, applies what is in force, and gives out ids and outputs.

An ItemBuilder sees every record of a source in order. Each pass over the source has a builder of its own,
so that every pass gives the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.boxes import box_text, read_box
from joyedit.job.plan import failed
from joyedit.job.source.columns import kept_columns
from joyedit.job.source.default_ids import Uses
from joyedit.job.source.item_cells import CellEdit, cell_edits
from joyedit.job.source.item_names import CellName, ItemNames
from joyedit.job.source.item_pictures import ItemPictures
from joyedit.job.source.line_matrix import matrix_of_line
from joyedit.job.source.line_pictures import mask_problem
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.loras import LoraSet, wishes_of
from joyedit.job.source.matrix import SWEPT, Cell, Matrix
from joyedit.job.source.output_names import Facts
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.parameter import BOX
from joyedit.job.source.problems import Record, cut, one_message, shown
from joyedit.job.source.result_sizes import AskedSize, asked_size
from joyedit.job.source.schema import Line
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.text import MAX_ITEM
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings

_UNSAID = (None, None, None)
_SHOWN_TEXT = 2000
_TOO_LONG = Problem(f"this item has more than {MAX_ITEM >> 20} MiB beside its pictures")


class _Built(NamedTuple):
    """What became of one record: its items or its problems, and as much of the record as could be read."""

    items: list[EditItem]
    problems: list[Problem]
    line: Line | None = None
    name: str | None = None
    instruction: str = ""
    missing: Problem | None = None
    """A picture that is not there, where that stops only its item."""
    loras: LoraSet = LoraSet()
    swept: Sequence[Cell] = ()
    """The cells of a line that has a matrix of its own."""


class ItemBuilder:
    """Makes the items of one pass over a source. A matrix makes several items of one record, else there is one.

    `file` names the source in messages; relative paths are relative to the folder `base` ("" for the current one, None
    for the current one where ids must not depend on it). With `look`, a picture that does not exist is a problem; with
    `skip_missing` too, its item fails and is no problem of the source. `uses` are what a first pass over the source
    found. `has_keys`: each record has an id, and none an output.
    """

    def __init__(
        self,
        *,
        file: str,
        base: str | None,
        options: SourceOptions,
        defaults: RunDefaults,
        look: bool,
        skip_missing: bool = False,
        uses: Uses | None = None,
        has_keys: bool = False,
    ) -> None:
        self._file = file
        self._text_to_image = options.text_to_image
        self._recipe = options.recipe
        self._prompt = options.prompt
        self._default_instruction = defaults.instruction
        self._values = {**defaults.values, **options.recipe_values}
        self._schema = options.item_schema()
        self._schema.unmet -= defaults.names
        self.loras = options.run_loras()[0] or defaults.loras or LoraSet()
        self._options, self._defaults = options, defaults.settings
        self._own_settings: dict[tuple[Settings, ...], tuple[Settings, Sampling]] = {}
        self.settings = options.settings(defaults.settings, self.loras.settings)
        self._sampling = self.settings.sampling()
        faults: list[Problem] = []
        size = asked_size(self.settings, faults)
        self._size = None if faults else size  # else each line is told of them
        self.matrix = options.matrix
        self._box = options.default_box
        self.counted = 0
        """How many items all records so far make."""
        self.in_shard = 0
        """How many of them are of the shard, where the source is for one."""
        tree = OutputTree(options.output)
        self._base = base or ""
        self._pictures = ItemPictures(
            self._base, tree, self._schema, mask=options.mask, look=look, skip_missing=skip_missing
        )
        self._names = ItemNames(options, base, tree, uses, has_keys=has_keys)

    def build(self, record: Record) -> tuple[list[EditItem | FailedItem], list[Problem]]:
        """The items, or the problems of the record. The builder gives out its names in both cases."""
        built = self._build(record)
        if not built.items:
            return [], self._placed(record, built)
        return self._with_pictures(record, built), []

    def problems(self, record: Record, lines: LineSettings | None = None) -> list[Problem]:
        """The problems of the record; the items themselves are not made. `lines` counts what it says."""
        built = self._build(record, make=False)
        if lines is not None and built.line is not None and not built.problems:
            lines.add(built.line, built.instruction, built.loras, built.swept)
        return self._placed(record, built)

    @property
    def instruction(self) -> str | None:
        """The instruction of an item that gives neither its own nor a value of the recipe; None if there is none."""
        values = {**self._values, **self._options.matrix.first_values}
        text, problems = compose_instruction(
            self._recipe, values, own=None, prompt=self._prompt, default=self._default_instruction
        )
        return None if problems else text

    def has_seen(self, column: str | None) -> None:
        """A problem of the source names this column, so nobody needs to hear that no item has it."""
        self._schema.unmet.discard(column or "")

    def of_all_items(self, count: int) -> list[Problem]:
        """The problems that only all `count` records together have."""
        problems = [
            Problem(f"no item has the column {shown(name)}, which --map or --keep-columns names", "correct its name")
            for name in sorted(self._schema.unmet)
        ]
        if count and self._pictures.count_missing == count:
            told = f"the pictures of all {count} items are missing" if count > 1 else "the picture is missing"
            problems.append(Problem(f"{told}, and --skip-missing skips only some: {self._pictures.first_missing}"))
        return problems

    def items(self, record: Record) -> Sequence[EditItem | FailedItem]:
        """The items; or a failed one ("bad_line") whose message tells the problems of the record."""
        built = self._build(record)
        if built.items:
            return self._with_pictures(record, built)
        return [self._failed(record.line, one_message(self._placed(record, built)), built, record)]

    def _with_pictures(self, record: Record, built: _Built) -> list[EditItem | FailedItem]:
        if built.missing is None:
            return [*built.items]
        message = str(record.place(built.missing, self._file))
        return [failed(item, "missing_picture", message) for item in built.items]

    def failed(self, problem: Problem, wish: str | None = None) -> FailedItem:
        """The failed item for a part of the source that cannot be read; `wish` is its id if that is free."""
        number = problem.line or 0
        built = _Built([], [], name=None if wish is None else self._names.failed(wish, number))
        return self._failed(number, one_message([problem]), built, place=problem.file if wish is not None else None)

    def _placed(self, record: Record, built: _Built) -> list[Problem]:
        return [record.place(problem, self._file) for problem in built.problems]

    def _failed(
        self, number: int, message: str, built: _Built, record: Record | None = None, *, place: str | None = None
    ) -> FailedItem:
        line = built.line
        name = built.name or self._names.failed(None if line is None else line.id, number)
        return FailedItem(
            id=name,
            images=self._pictures.shown(line, record),
            instruction="" if line is None else cut(line.instruction or "", _SHOWN_TEXT),
            origin=self._origin(record, number) if place is None else Origin(file=place),
            code="bad_line",
            message=message,
        )

    def _build(self, record: Record, *, make: bool = True) -> _Built:
        """Checks the record and takes its names; makes the items if `make` is set and there is no problem."""
        if not isinstance(record.data, dict):
            message = f"an item is a mapping of keys, not {shown(record.data)}"
            return _Built([], [Problem(message, "for example image and instruction")])
        line, values, problems = self._schema.read(Line, record.data)
        if line is None:
            return _Built([], problems)
        wrong_loras: list[Problem] = []
        loras = self._own_loras(line, wrong_loras)
        edits = self._edits(line, values, loras, problems)
        found = self._pictures.of(line, record, problems)
        if sum(map(len, (edits[0].instruction, line.negative_prompt or "", *values.values()))) > MAX_ITEM:
            problems.append(_TOO_LONG)
        pictures, mask, missing, _ = found
        if edits[0].box is not None and len(pictures) != 1:
            problems.append(Problem(f"a box is drawn on one picture, and this item has {len(pictures)}", key=BOX))
        if not pictures and not self._text_to_image:
            _add(problems, self._pictures.left_empty(record.data))
        columns = self._columns(record, record.data, problems)
        problems += wrong_loras
        settings, _ = self._settings_with(loras)
        asked = self._asked_size(line, settings, problems)
        fit = line.fit or settings.fit or "crop"
        if mask is not None:
            _add(problems, mask_problem(len(pictures), asked.size))
            problems += self._names.of_input(mask)
        facts = partial(self._facts, found.name, record.line, values, columns)
        has_template = self._names.outputs.has_template
        named = [(edit.cell, partial(facts, edit) if has_template else None) for edit in edits]
        names = self._names.give(line, values, pictures, max(record.line, 1), named, problems=problems)
        self._count(names.cells)
        if problems or not make:
            swept = () if line.seeds is None and line.sweep is None else [edit.cell for edit in edits]
            return _Built([], problems, line, names.id, edits[0].instruction, missing, loras, swept)
        images, origin = found.images, self._origin(record, record.line)
        items = [
            EditItem(
                id=name.id,
                images=images,
                instruction=edit.instruction,
                sampling=edit.sampling,
                basesize=edit.basesize,
                box=edit.box,
                mask=None if mask is None else found.reference(mask),
                size=asked.size,
                result_size=asked.result,
                fit=fit,
                output=name.output,
                origin=origin,
                loras=loras.loras,
                has_default_id=line.id is None,
                other_ids=name.other_ids,
                owns=names.owns,
                columns=columns,
            )
            for name, edit in zip(names.cells, edits, strict=True)
        ]
        return _Built(items, problems, line, names.id, edits[0].instruction, missing, loras)

    def _count(self, cells: Sequence[CellName]) -> None:
        if self._options.shard is not None:
            self.in_shard += self._options.count_in_shard([cell.id for cell in cells], self.counted)
        self.counted += len(cells)

    def _asked_size(self, line: Line, settings: Settings, problems: list[Problem]) -> AskedSize:
        """The size of an item. Most lines say nothing of it, and have that of the run."""
        if self._size is not None and settings is self.settings and (line.width, line.height, line.size) == _UNSAID:
            return self._size
        return asked_size(settings, problems, line)

    def _facts(
        self,
        picture: str,
        line: int,
        values: Mapping[str, str],
        columns: Mapping[str, object] | None,
        edit: CellEdit,
    ) -> Facts:
        """What `--name` may put into a name."""
        said = {**self._values, **values, **edit.cell.values}
        return Facts(picture, line or None, edit.sampling, edit.basesize, said, columns or {})

    # Each of the following reads one part of an item, and adds what is wrong with it to `problems`.

    def _edits(self, line: Line, values: Mapping[str, str], loras: LoraSet, problems: list[Problem]) -> list[CellEdit]:
        """One edit for each cell of the matrix; of the problems of their instructions those of the first."""
        settings, given = self._settings_with(loras)
        sampling = self._own_sampling(line, given)
        matrix = self.matrix
        if matrix or line.seeds is not None or line.sweep is not None:
            said = {key for key in SWEPT if getattr(line, key) is not None} | values.keys()
            matrix = self._with_own_axes(matrix.without(said), line, sampling.seed, said, problems)
        if line.box is not None:
            values = {**values, BOX: box_text(read_box(line.box) or (0, 0, 1, 1))}
        found: list[Problem] | None = None

        def instruct(swept: Mapping[str, str]) -> str:
            nonlocal found
            text, more = compose_instruction(
                self._recipe,
                {**self._values, **values, **swept} if values or swept else self._values,
                own=line.instruction,
                prompt=self._prompt,
                default=self._default_instruction,
            )
            found = more if found is None else found
            return text

        basesize = line.basesize or settings.basesize or 0
        boxed = values.get(BOX) or self._values.get(BOX)
        box = self._box if boxed is None else read_box(boxed)
        edits = cell_edits(matrix.cells(sampling.seed), sampling, basesize, instruct, box)
        problems.extend(found or ())
        if values and self._recipe is not None:
            problems.extend(self._recipe.value_problems(values))
        return edits

    def _with_own_axes(
        self, run: Matrix, line: Line, seed: int, said: Collection[str], problems: list[Problem]
    ) -> Matrix:
        """The matrix of an item, `run` without what its line says itself; that of its line is over it."""
        if line.seeds is None and line.sweep is None:
            _add(problems, run.seed_problem(seed))
            return run
        parameters = self._options.known_parameters()
        made, more = matrix_of_line(line.seeds, line.sweep, run, parameters=parameters, said=said)
        problems.extend(more)
        problem = made.seed_problem(seed)
        if not more:
            _add(problems, problem)
        return Matrix() if more or problem is not None else made

    def _columns(self, record: Record, data: dict[str, Any], problems: list[Problem]) -> dict[str, Any] | None:
        """What the record of an item carries from the source."""
        if record.dataset is not None:
            return record.dataset.columns
        if not self._schema.keeps_any:
            return None
        kept, problem = kept_columns(data, [name for name in data if self._schema.keeps(name)])
        _add(problems, problem)
        return kept

    def _origin(self, record: Record | None, number: int) -> Origin:
        """Where an item comes from."""
        if record is not None and record.dataset is not None:
            return Origin(file=record.dataset.place)
        return Origin(file=self._file, line=number or None)

    def _own_loras(self, line: Line, problems: list[Problem]) -> LoraSet:
        """The LoRAs of the line; those of the run if it names none."""
        if line.lora is None:
            return self.loras
        found, more = self._options.shelf.find(wishes_of(line.lora), self._base)
        problems.extend(more)
        return found

    def _settings_with(self, loras: LoraSet) -> tuple[Settings, Sampling]:
        """The settings in force for a line with these LoRAs and without settings of its own."""
        if loras is self.loras:
            return self.settings, self._sampling
        known = self._own_settings.get(loras.recommended)
        if known is None:
            settings = self._options.settings(self._defaults, loras.settings)
            known = self._own_settings[loras.recommended] = settings, settings.sampling()
        return known

    def _own_sampling(self, line: Line, given: Sampling) -> Sampling:
        if (line.steps, line.guidance_scale, line.seed, line.negative_prompt) == (None, None, None, None):
            return given
        return Sampling(
            steps=given.steps if line.steps is None else line.steps,
            guidance_scale=given.guidance_scale if line.guidance_scale is None else line.guidance_scale,
            seed=given.seed if line.seed is None else line.seed,
            negative_prompt=given.negative_prompt if line.negative_prompt is None else line.negative_prompt,
        )


def _add(problems: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        problems.append(problem)
