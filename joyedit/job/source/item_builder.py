"""Records -> items: the builder checks each record, applies what is in force, and gives out ids and outputs.

An ItemBuilder sees every record of a source in order. Each pass over the source has a builder of its own,
so that every pass gives the same names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.data_picture import DataPicture, Reference
from joyedit.job.plan import failed
from joyedit.job.source.columns import kept_columns
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.default_ids import DefaultIds, PictureIds, Uses
from joyedit.job.source.line_pictures import SHOWN_DATA, images_of, take_pictures
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.loras import LoraSet, wishes_of
from joyedit.job.source.names import default_ending, endings_of, name_problem
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.picture_finder import FoundPicture, PictureFinder
from joyedit.job.source.problems import Record, Table, cut, one_message, shown
from joyedit.job.source.result_sizes import asked_size
from joyedit.job.source.schema import PICTURE_KEYS, Line
from joyedit.job.source.source_options import RunDefaults, SourceOptions, compose_instruction
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.source.text import MAX_ITEM
from joyedit.job.source.written_paths import is_plain
from joyedit.job.spec import EditItem, FailedItem, Origin, Owns, Sampling, Settings

_SHOWN_TEXT = 2000
_SHOWN_PATH = 1000
_TOO_LONG = Problem(f"this item has more than {MAX_ITEM >> 20} MiB beside its pictures")
_SHOWN_IMAGES = 20


class _Built(NamedTuple):
    """What became of one record: the item or its problems, and as much of the record as could be read."""

    item: EditItem | None
    problems: list[Problem]
    line: Line | None = None
    name: str | None = None
    instruction: str = ""
    missing: Problem | None = None
    """A picture that is not there, where that stops only its item."""
    loras: LoraSet = LoraSet()


class _Names(NamedTuple):
    """The names of an item; the id is None if the item cannot have it. The other fields are as in `EditItem`."""

    id: str | None
    output: str = ""
    other_ids: Iterable[str] = ()
    owns: Owns = "none"


class ItemBuilder:
    """Makes the items of one pass over a source.

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
        self._extensions = endings_of(options.format)
        self._format = options.format
        self._schema = options.item_schema()
        self._schema.unmet -= defaults.names
        self.loras = options.run_loras()[0] or defaults.loras or LoraSet()
        self._options, self._defaults = options, defaults.settings
        self._own_settings: dict[tuple[Settings, ...], tuple[Settings, Sampling]] = {}
        self.settings = options.settings(defaults.settings, self.loras.settings)
        self._sampling = self.settings.sampling()
        tree = OutputTree(options.output)
        self._taken = TakenNames(default_ending(options.format, None), tree.place)
        if uses is not None:
            self._taken.reserve(uses.given_ids, uses.given_outputs)
        self._base = base or ""
        self._pictures = PictureFinder(base or "", tree, look=look)
        self._default_ids = DefaultIds(PictureIds(base), uses)

    def build(self, record: Record) -> tuple[EditItem | FailedItem | None, list[Problem]]:
        """The item, or the problems of the record. The builder gives out its names in both cases."""
        built = self._build(record)
        if built.item is None:
            return None, self._placed(record, built)
        return self._with_pictures(record, built.item, built.missing), []

    def problems(self, record: Record, lines: LineSettings | None = None) -> list[Problem]:
        """The problems of the record; the item itself is not made. `lines` counts what it says."""
        built = self._build(record, make=False)
        if lines is not None and built.line is not None and not built.problems:
            lines.add(built.line, built.instruction, built.loras)
        return self._placed(record, built)

    @property
    def instruction(self) -> str | None:
        """The instruction of an item that gives neither its own nor a value of the recipe; None if there is none."""
        text, problems = compose_instruction(
            self._recipe, self._values, own=None, prompt=self._prompt, default=self._default_instruction
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

    def item(self, record: Record) -> EditItem | FailedItem:
        """The item; or a failed one ("bad_line") whose message tells the problems of the record."""
        built = self._build(record)
        if built.item is not None:
            return built.item if built.missing is None else self._with_pictures(record, built.item, built.missing)
        return self._failed(record.line, one_message(self._placed(record, built)), built)

    def _with_pictures(self, record: Record, item: EditItem, missing: Problem | None) -> EditItem | FailedItem:
        return item if missing is None else failed(item, "missing_picture", str(record.place(missing, self._file)))

    def failed(self, problem: Problem) -> FailedItem:
        """The failed item for a part of the source that cannot be read."""
        return self._failed(problem.line or 0, one_message([problem]), _Built(None, []))

    def _placed(self, record: Record, built: _Built) -> list[Problem]:
        return [record.place(problem, self._file) for problem in built.problems]

    def _failed(self, number: int, message: str, built: _Built) -> FailedItem:
        line, name = built.line, built.name
        if name is None:
            wish = f"line-{number}"
            if line is not None and line.id is not None and name_problem(line.id) is None:
                wish = line.id
            elif self._taken.is_reserved(wish, with_output=True):
                wish += "-broken"
            name = self._taken.default_id(wish, with_output=True)
            self._taken.take_id(name, max(number, 1))
        return FailedItem(
            id=name,
            images=() if line is None else self._shown_paths(line),
            instruction="" if line is None else cut(line.instruction or "", _SHOWN_TEXT),
            origin=Origin(file=self._file, line=number or None),
            code="bad_line",
            message=message,
        )

    def _shown_paths(self, line: Line) -> tuple[Reference, ...]:
        """The paths of a line that is no item, as its record shows them: the first few, the long ones cut."""
        return tuple(self._shown_path(image) for image in images_of(line)[:_SHOWN_IMAGES])

    def _shown_path(self, image: str) -> Reference:
        if not is_plain(image) and is_data(image):
            return DataPicture(cut(image, SHOWN_DATA), "", b"")
        return Path(cut(self._pictures.find(image).path, _SHOWN_PATH))

    def _build(self, record: Record, *, make: bool = True) -> _Built:
        """Checks the record and takes its names; makes the item if `make` is set and there is no problem."""
        if not isinstance(record.data, dict):
            message = f"an item is a mapping of keys, not {shown(record.data)}"
            return _Built(None, [Problem(message, "for example image and instruction")])
        line, values, problems = self._schema.read(Line, record.data)
        if line is None:
            return _Built(None, problems)
        instruction = self._instruction(line, values, problems)
        in_line = take_pictures(line, problems)
        if sum(map(len, (instruction, line.negative_prompt or "", *values.values()))) > MAX_ITEM:
            problems.append(_TOO_LONG)
        pictures, missing = self._find_pictures(line, in_line, problems)
        if not pictures:
            _add(problems, self._left_empty(record.data))
        columns = self._kept_columns(record.data, problems) if self._schema.keeps_any else None
        loras = self._own_loras(line, problems)
        settings, given = self._settings_with(loras)
        sampling = self._own_sampling(line, given)
        asked = asked_size(settings, problems, line)
        names = self._names(line, values, pictures, max(record.line, 1), problems)
        if problems or not make:
            return _Built(None, problems, line, names.id, instruction, missing, loras)
        item = EditItem(
            id=names.id or "",
            images=tuple([in_line[found.path] if found.path in in_line else Path(found.path) for found in pictures]),
            instruction=instruction,
            sampling=sampling,
            basesize=line.basesize or settings.basesize or 0,
            size=asked.size,
            result_size=asked.result,
            fit=line.fit or settings.fit or "crop",
            output=names.output,
            origin=Origin(file=self._file, line=record.line or None),
            loras=loras.loras,
            has_default_id=line.id is None,
            other_ids=names.other_ids,
            owns=names.owns,
            columns=columns,
        )
        return _Built(item, problems, line, names.id, instruction, missing, loras)

    # Each of the following reads one part of an item, and adds what is wrong with it to `problems`.

    def _instruction(self, line: Line, values: Mapping[str, str], problems: list[Problem]) -> str:
        text, more = compose_instruction(
            self._recipe,
            {**self._values, **values} if values else self._values,
            own=line.instruction,
            prompt=self._prompt,
            default=self._default_instruction,
        )
        problems.extend(more)
        if values and self._recipe is not None:
            problems.extend(self._recipe.choice_problems(values))
        return text

    def _find_pictures(
        self, line: Line, in_line: Mapping[str, DataPicture], problems: list[Problem]
    ) -> tuple[list[FoundPicture], Problem | None]:
        """The pictures, and why one of them is missing if that stops only the item."""
        if line.image is not None and line.images is not None:
            problems.append(Problem("'image' and 'images' are both given", "keep one of them"))
        pictures = [
            FoundPicture(image, (), None)
            if image in in_line or (not is_plain(image) and is_data(image))  # the problems tell of a broken one
            else self._pictures.find(image)
            for image in images_of(line)
        ]
        missing: Problem | None = None
        for found in pictures:
            if found.problem is None:
                continue
            if found.is_missing and self._skip_missing:
                missing = missing or found.problem
            else:
                problems.append(found.problem)
        if missing is not None:
            self._count_missing += 1
            self._first_missing = self._first_missing or missing.text
        return pictures, missing

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

    def _names(
        self,
        line: Line,
        values: Mapping[str, str],
        pictures: list[FoundPicture],
        number: int,
        problems: list[Problem],
    ) -> _Names:
        """The id and the output; both are taken from now on."""
        self._taken.extension = default_ending(self._format, pictures[-1].path if pictures else None)
        for found in pictures:
            for name_in_output in found.names_in_output:
                _add(problems, self._taken.note_input(name_in_output))
        wrong_output = None if line.output is None else self._wrong_output(line.output)
        _add(problems, wrong_output)
        others: Iterable[str] = ()
        owns: Owns = "none"
        if line.id is None:
            # Only lines of the same content get numbers, which depend on the order of the lines.
            name, others, short, owns = self._default_ids.of(line, values)
            has_output = line.output is not None
            if short is not None and self._taken.is_reserved(short, with_output=False):
                message = f"another line gives the id or output of {shown(short)}, which may be this picture's too"
                problems.append(Problem(message, "give this line an id of its own"))
            if not self._taken.is_reserved(name, with_output=has_output):  # else the two lines are told of each other
                wish, name = name, self._taken.default_id(name, with_output=has_output)
                others = others if name == wish else ()
        else:
            name = line.id
        if not self._takes_id(name, number, problems):
            return _Names(None)
        if wrong_output is not None:
            return _Names(name)
        output = name + self._taken.extension if line.output is None else line.output
        _add(problems, self._taken.take_output(output, number))
        return _Names(name, output, others, owns)

    def _takes_id(self, name: str, number: int, problems: list[Problem]) -> bool:
        """Take an id. Says whether the item can have it."""
        reason = name_problem(name)
        if reason is not None:
            problems.append(Problem(f"the id {shown(name)} {reason}", "it becomes the name of a file", key="id"))
            return False
        problem = self._taken.take_id(name, number)
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


def _add(problems: list[Problem], problem: Problem | None) -> None:
    if problem is not None:
        problems.append(problem)
