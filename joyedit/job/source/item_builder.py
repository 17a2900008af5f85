"""Records -> items: the builder checks each record, applies what is in force, and gives out ids and outputs.

An ItemBuilder sees every record of a source in order. Each pass over the source has a builder of its own,
so that every pass gives the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.boxes import box_text, read_box
from joyedit.job.data_picture import DataPicture
from joyedit.job.plan import failed
from joyedit.job.source.columns import kept_columns
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.default_ids import Uses
from joyedit.job.source.item_cells import CellEdit, cell_edits
from joyedit.job.source.item_names import CellName, ItemNames
from joyedit.job.source.line_matrix import matrix_of_line
from joyedit.job.source.line_pictures import images_of, mask_problem, of_mask, shown_paths, take_pictures
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.loras import LoraSet, wishes_of
from joyedit.job.source.matrix import SWEPT, Cell, Matrix
from joyedit.job.source.output_names import Facts
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.parameter import BOX
from joyedit.job.source.picture_finder import FoundPicture, PictureFinder
from joyedit.job.source.problems import Record, Table, cut, one_message, shown
from joyedit.job.source.result_sizes import AskedSize, asked_size
from joyedit.job.source.schema import PICTURE_KEYS, Line
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.text import MAX_ITEM
from joyedit.job.source.written_paths import is_plain
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
    found.
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
    ) -> None:
        self._file = file
        self._skip_missing = skip_missing
        self._count_missing = 0
        self._first_missing = ""
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
        self._pictures = PictureFinder(base or "", tree, look=look)
        self._mask = None if options.mask is None else PictureFinder("", tree, look=False).find(options.mask)
        self._names = ItemNames(options, base, tree, uses)

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
        if count and self._count_missing == count:
            told = f"the pictures of all {count} items are missing" if count > 1 else "the picture is missing"
            problems.append(Problem(f"{told}, and --skip-missing skips only some: {self._first_missing}"))
        return problems

    def items(self, record: Record) -> Sequence[EditItem | FailedItem]:
        """The items; or a failed one ("bad_line") whose message tells the problems of the record."""
        built = self._build(record)
        if built.items:
            return self._with_pictures(record, built)
        return [self._failed(record.line, one_message(self._placed(record, built)), built)]

    def _with_pictures(self, record: Record, built: _Built) -> list[EditItem | FailedItem]:
        if built.missing is None:
            return [*built.items]
        message = str(record.place(built.missing, self._file))
        return [failed(item, "missing_picture", message) for item in built.items]

    def failed(self, problem: Problem) -> FailedItem:
        """The failed item for a part of the source that cannot be read."""
        return self._failed(problem.line or 0, one_message([problem]), _Built([], []))

    def _placed(self, record: Record, built: _Built) -> list[Problem]:
        return [record.place(problem, self._file) for problem in built.problems]

    def _failed(self, number: int, message: str, built: _Built) -> FailedItem:
        line = built.line
        name = built.name or self._names.failed(None if line is None else line.id, number)
        return FailedItem(
            id=name,
            images=() if line is None else shown_paths(line, self._pictures),
            instruction="" if line is None else cut(line.instruction or "", _SHOWN_TEXT),
            origin=Origin(file=self._file, line=number or None),
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
        in_line = take_pictures(line, problems)
        if sum(map(len, (edits[0].instruction, line.negative_prompt or "", *values.values()))) > MAX_ITEM:
            problems.append(_TOO_LONG)
        pictures, mask, missing = self._find_pictures(line, in_line, problems)
        if edits[0].box is not None and len(pictures) != 1:
            problems.append(Problem(f"a box is drawn on one picture, and this item has {len(pictures)}", key=BOX))
        if not pictures:
            _add(problems, self._left_empty(record.data))
        columns = self._kept_columns(record.data, problems) if self._schema.keeps_any else None
        problems += wrong_loras
        settings, _ = self._settings_with(loras)
        asked = self._asked_size(line, settings, problems)
        fit = line.fit or settings.fit or "crop"
        if mask is not None:
            _add(problems, mask_problem(len(pictures), asked.size))
            problems += self._names.of_input(mask)
        facts = partial(self._facts, pictures[0].path if pictures else "", record.line, values, columns)
        has_template = self._names.outputs.has_template
        named = [(edit.cell, partial(facts, edit) if has_template else None) for edit in edits]
        names = self._names.give(line, values, pictures, max(record.line, 1), named, problems=problems)
        self._count(names.cells)
        if problems or not make:
            swept = () if line.seeds is None and line.sweep is None else [edit.cell for edit in edits]
            return _Built([], problems, line, names.id, edits[0].instruction, missing, loras, swept)
        images = tuple([in_line[found.path] if found.path in in_line else Path(found.path) for found in pictures])
        items = [
            EditItem(
                id=name.id,
                images=images,
                instruction=edit.instruction,
                sampling=edit.sampling,
                basesize=edit.basesize,
                box=edit.box,
                mask=None if mask is None else in_line[mask.path] if mask.path in in_line else Path(mask.path),
                size=asked.size,
                result_size=asked.result,
                fit=fit,
                output=name.output,
                origin=Origin(file=self._file, line=record.line or None),
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

    def _find_pictures(
        self, line: Line, in_line: Mapping[str, DataPicture], problems: list[Problem]
    ) -> tuple[list[FoundPicture], FoundPicture | None, Problem | None]:
        """The pictures, the mask, and why one of them is missing if that stops only the item."""
        if line.image is not None and line.images is not None:
            problems.append(Problem("'image' and 'images' are both given", "keep one of them"))
        pictures = [self._find(image, in_line) for image in images_of(line)]
        mask = self._mask
        if line.mask is not None:
            mask = self._find(line.mask, in_line)
            mask = mask if mask.problem is None else mask._replace(problem=of_mask(mask.problem))
        missing: Problem | None = None
        for found in pictures if mask is None else (*pictures, mask):
            if found.problem is None:
                continue
            if found.is_missing and self._skip_missing:
                missing = missing or found.problem
            else:
                problems.append(found.problem)
        if missing is not None:
            self._count_missing += 1
            self._first_missing = self._first_missing or missing.text
        return pictures, mask, missing

    def _find(self, image: str, in_line: Mapping[str, DataPicture]) -> FoundPicture:
        """A picture in a file or in the line. Of a broken one in the line the problems tell already."""
        if image in in_line or (not is_plain(image) and is_data(image)):
            return FoundPicture(image, (), None)
        return self._pictures.find(image)

    def _left_empty(self, data: dict[str, object]) -> Problem | None:
        """The problem of an item without pictures that does not ask for text to image."""
        if self._text_to_image:
            return None
        remedy = "--text-to-image makes a picture of the instruction alone"
        if isinstance(data, Table):
            for name in data.empty:
                if self._schema.key(name) in PICTURE_KEYS:
                    return Problem(f"{name} is empty, and an edit needs a picture", remedy, key=name)
        mapped = self._schema.mapped_pictures
        if mapped and not any(name in data for name in mapped):
            message = f"the item has no {shown(mapped[0])}, and an edit needs a picture"
            return Problem(message, remedy, once="no mapped picture")
        return None

    def _kept_columns(self, data: dict[str, Any], problems: list[Problem]) -> dict[str, Any] | None:
        kept, problem = kept_columns(data, [name for name in data if self._schema.keeps(name)])
        _add(problems, problem)
        return kept

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
