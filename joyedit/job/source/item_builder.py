"""Records -> items: the builder checks each record, applies what is in force, and gives out ids and outputs.

An ItemBuilder sees every record of a source in order. Each pass over the source has a builder of its own,
so that every pass gives the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.plan import failed
from joyedit.job.source.columns import kept_columns
from joyedit.job.source.default_ids import Uses
from joyedit.job.source.item_cells import CellEdit
from joyedit.job.source.item_names import CellName, ItemNames
from joyedit.job.source.item_pictures import ItemPictures
from joyedit.job.source.item_turns import images_with, turn_problems, wishes_of
from joyedit.job.source.line_edits import LineEdits
from joyedit.job.source.line_pictures import images_of, mask_problem, too_many_references
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.loras import LoraSet
from joyedit.job.source.matrix import Cell, Matrix
from joyedit.job.source.output_names import Facts
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.parameter import BOX
from joyedit.job.source.problems import Record, cut, one_message, shown
from joyedit.job.source.schema import Line
from joyedit.job.source.source_options import RunDefaults, SourceOptions
from joyedit.job.source.text import MAX_ITEM
from joyedit.job.source.turn_links import CellWishes, Links, NoLinks, TurnLinks
from joyedit.job.spec import EditItem, FailedItem, Origin, Settings
from joyedit.job.turns import named_path

_UNSAID = (None, None, None)
_SHOWN_TEXT = 2000
_NO_LINKS = NoLinks()
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
    """The cells of a line that has a matrix, or turns, of its own."""
    wishes: Sequence[CellWishes] = ()
    """The items that the record makes, and whose results they begin with."""


class ItemBuilder:
    """Makes the items of one pass over a source. A matrix makes several items of one record, else there is one.

    `file` names the source in messages; relative paths are relative to the folder `base` ("" for the current one, None
    for the current one where ids must not depend on it). With `look`, a picture that does not exist is a problem; with
    `skip_missing` too, its item fails and is no problem of the source. `uses` are what a first pass over the source
    found, `links` say whose results items begin with; with None no item names any.
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
        links: Links | None = None,
    ) -> None:
        self._file = file
        self._text_to_image = options.text_to_image
        self._schema = options.item_schema()
        self._schema.unmet -= defaults.names
        self._options = options
        self._edits = LineEdits(options, defaults, base or "")
        self.counted = 0
        """How many items all records so far make."""
        self.in_shard = 0
        """How many of them are of the shard, where the source is for one."""
        tree = OutputTree(options.output)
        self._pictures = ItemPictures(
            base or "", tree, self._schema, mask=options.mask, look=look, skip_missing=skip_missing
        )
        self._names = ItemNames(options, base, tree, uses)
        self.links = links

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

    def note(self, record: Record, links: TurnLinks) -> bool:
        """Note in `links` whose results the items of the record begin with. Says whether it could be read."""
        limit = self._options.limit
        within = None if limit is None else max(0, limit - self.counted)
        built = self._build(record, make=False)
        links.note(built.name, built.wishes, record.line, within=within)
        return not built.problems

    def knows(self, name: str) -> bool:
        """Whether this pass gave out the id."""
        return self._names.knows(name)

    @property
    def instruction(self) -> str | None:
        """The instruction of an item that gives neither its own nor a value of the recipe; None if there is none."""
        return self._edits.instruction

    @property
    def loras(self) -> LoraSet:
        """The LoRAs of an item that names none itself."""
        return self._edits.loras

    @property
    def settings(self) -> Settings:
        """The settings of an item that gives none itself."""
        return self._edits.settings

    @property
    def matrix(self) -> Matrix:
        """What multiplies every item."""
        return self._edits.matrix

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
        loras = self._edits.own_loras(line, wrong_loras)
        edits = self._edits.edits(line, values, loras, problems)
        found = self._pictures.of(line, record, problems, names_results=self.links is not None)
        problems += turn_problems(line, edits)
        _add(problems, _too_long(line, edits[0].instruction, values))
        pictures, mask, missing, _ = found
        self._check_count(len(pictures), edits[0].box is not None, record.data, problems)
        columns = self._columns(record, record.data, problems)
        problems += wrong_loras
        settings, _ = self._edits.settings_with(loras)
        asked = self._edits.asked_size(line, settings, problems)
        if mask is not None:
            _add(problems, mask_problem(len(pictures), asked.size))
            problems += self._names.of_input(mask)
        facts = partial(self._facts, named_path(found.name), record, values, columns)
        named = [(edit.cell, partial(facts, edit) if self._names.outputs.has_template else None) for edit in edits]
        names = self._names.give(line, values, pictures, max(record.line, 1), named, problems=problems)
        wishes = wishes_of(images_of(line), edits, names.cells, names_results=self.links is not None)
        links = self.links or _NO_LINKS
        earlier = [links.earlier(one, problems) for one in wishes]
        self._count(names.cells)
        if problems or not make:
            swept = [edit.cell for edit in edits] if _has_several(line) else ()
            return _Built([], problems, line, names.id, edits[0].instruction, missing, loras, swept, wishes)
        images, origin, row = found.images, self._origin(record, record.line), record.row
        items = [
            EditItem(
                id=name.id,
                images=images_with(images, begins, is_later_turn=edit.turn > 0),
                instruction=edit.instruction,
                sampling=edit.sampling,
                basesize=edit.basesize,
                box=edit.box,
                mask=None if mask is None else found.reference(mask),
                size=asked.size,
                result_size=asked.result,
                fit=line.fit or settings.fit or "crop",
                output=name.output,
                origin=origin,
                loras=loras.loras,
                earlier=begins if any(begins) else (),
                chain=links.chain(name.id),
                has_default_id=line.id is None,
                other_ids=name.other_ids,
                owns=names.owns,
                columns=columns,
                row=row,
            )
            for name, edit, begins in zip(names.cells, edits, earlier, strict=True)
        ]
        return _Built(items, problems, line, names.id, edits[0].instruction, missing, loras)

    def _check_count(self, pictures: int, has_box: bool, data: dict[str, object], problems: list[Problem]) -> None:
        if has_box and pictures != 1:
            problems.append(Problem(f"a box is drawn on one picture, and this item has {pictures}", key=BOX))
        _add(problems, too_many_references(pictures, self._options.most_references))
        if not pictures and not self._text_to_image:
            _add(problems, self._pictures.left_empty(data))

    def _count(self, cells: Sequence[CellName]) -> None:
        if self._options.shard is not None:
            links = self.links or _NO_LINKS
            chains = [links.chain(cell.id) or cell.id for cell in cells]
            self.in_shard += self._options.count_in_shard(chains, self.counted)
        self.counted += len(cells)

    def _facts(
        self,
        picture: str,
        record: Record,
        values: Mapping[str, str],
        columns: Mapping[str, object] | None,
        edit: CellEdit,
    ) -> Facts:
        """What `--name` may put into a name."""
        said = {**self._edits.values, **values, **edit.cell.values}
        fields = None if record.dataset is None else record.dataset.fields
        return Facts(picture, record.line or None, edit.sampling, edit.basesize, said, columns or {}, fields or {})

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


def _too_long(line: Line, instruction: str, values: Mapping[str, str]) -> Problem | None:
    texts = (instruction, *(line.turns or ()), line.negative_prompt or "", *values.values())
    return _TOO_LONG if sum(map(len, texts)) > MAX_ITEM else None


def _has_several(line: Line) -> bool:
    """Whether a line itself asks for several edits."""
    return any(one is not None for one in (line.seeds, line.sweep, line.turns))


def _add(problems: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        problems.append(problem)
