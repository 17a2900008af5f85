"""Records -> items: settings and instruction in force, pictures found, names given out.

An ItemBuilder sees every record of a source in order, in each pass anew, so that the names it gives
are the same in each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from joyedit.errors import Problem, UsageError
from joyedit.job.source.names import EXTENSIONS, name_fault, safe_name
from joyedit.job.source.problems import Fault, Record, Table, shown
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.schema import DEFAULTS_KEYS, ITEM_KEYS, SETTINGS_KEYS, Defaults, Line, Schema
from joyedit.job.source.taken_names import TakenNames
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings, Size

BUILT_IN = Settings(
    steps=Sampling().steps,
    guidance_scale=Sampling().guidance_scale,
    seed=Sampling().seed,
    negative_prompt=Sampling().negative_prompt,
    basesize=1024,
)
"""What holds where nobody says anything."""

_PICTURES = 4096
_NO_TEXT = Fault("no instruction", "give it with -p, or as 'instruction' of the item")
_PAIR = Fault("width and height go together", "give both or none")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What the command line, a recipe and the checkpoint say about every item of a source.

    Precedence: item line > `flags` > `recipe` > a manifest's `defaults:` > `checkpoint` > built in.
    """

    prompt: str | None = None
    flags: Settings = field(default_factory=Settings)
    recipe: Recipe | None = None
    recipe_values: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Settings = field(default_factory=Settings)
    format: str = "png"
    output: Path | None
    """The output folder; None for items that go into none."""
    limit: int | None = None
    keys: tuple[str, ...] = ()
    """Keys that an item may hold beside those of joyedit and of the recipe."""
    look: bool = True
    """Whether a manifest's pictures must be there at the start. Where not, each that is gone is a failed item."""

    def check(self) -> None:
        """Raises UsageError for what can be told to be wrong without a source."""
        if self.format not in EXTENSIONS:
            raise UsageError(f"--format is one of {', '.join(EXTENSIONS)}, not {shown(self.format)}")
        if self.prompt is not None and not self.prompt.strip():
            raise UsageError("the instruction given with -p is empty")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is a whole number from 1, not {self.limit}")
        given = {key: getattr(self.flags, key) for key in SETTINGS_KEYS}
        faults = Schema(DEFAULTS_KEYS).read(Defaults, given)[2]
        if self.recipe is not None:
            faults += self.recipe.unknown_faults(self.recipe_values)
            faults += self.recipe.choice_faults(self.recipe_values)
        elif self.recipe_values:
            faults.append(Fault(f"--set {next(iter(self.recipe_values))} needs a recipe", "give it with --recipe"))
        if faults:
            message = [fault.message + (f" ({fault.remedy})" if fault.remedy else "") for fault in faults]
            raise UsageError("\n".join(message))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDefaults:
    """What a manifest says for all its items (`defaults:`)."""

    settings: Settings = field(default_factory=Settings)
    instruction: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)


def read_defaults(record: Record | None, options: SourceOptions, file: str) -> tuple[RunDefaults, list[Problem]]:
    """The checked `defaults:` of a manifest, and their faults."""
    if record is None or record.data is None:
        return RunDefaults(), []
    if not isinstance(record.data, Table):
        message = f"defaults must be a mapping, not {shown(record.data)}"
        return RunDefaults(), [Problem(file=file, line=record.line, message=message)]
    parameters = options.recipe.parameters if options.recipe is not None else ()
    checked, values, faults = Schema(DEFAULTS_KEYS, parameters).read(Defaults, record.data)
    if options.recipe is not None:
        faults += options.recipe.choice_faults(values)
    lines = record.data.lines
    problems = [
        Problem(
            file=file,
            line=lines.get(fault.key or "", record.line),
            message=fault.message,
            remedy=fault.remedy,
        )
        for fault in faults
    ]
    if checked is None:
        return RunDefaults(values=values), problems
    made = RunDefaults(settings=checked.settings(), instruction=checked.instruction, values=values)
    return made, problems


class _Found(NamedTuple):
    """One picture of a manifest: its path, the same absolute, its name below the output folder, its fault."""

    path: str
    absolute: str
    inside: str | None
    fault: Fault | None


class _Built(NamedTuple):
    """What came of one record: the item or its faults, and as much of the rest as could be read."""

    item: EditItem | None
    faults: list[Fault]
    line: Line | None = None
    name: str | None = None


class ItemBuilder:
    """Makes the items of one pass over a source.

    `file` names the source in messages; relative paths are relative to the folder `base` ("" for
    the current one). With `look`, a picture that is not there is a fault.
    """

    def __init__(self, *, file: str, base: str, options: SourceOptions, defaults: RunDefaults, look: bool) -> None:
        self._file = file
        self._base = base
        self._look = look
        self._recipe = options.recipe
        self._prompt = options.prompt
        self._defaults = defaults
        self._values = {**defaults.values, **options.recipe_values}
        self._extensions = EXTENSIONS[options.format]
        self._format = options.format
        self._schema = item_schema(options)
        self.settings = effective_settings(options, defaults.settings)
        self._sampling = _sampling(self.settings)
        self._claims = TakenNames(self._extensions[0])
        self._absolute_base = os.path.abspath(base)
        self._outputs: tuple[str, ...] = ()
        if options.output is not None:
            self._outputs = (os.path.abspath(options.output), os.path.realpath(options.output))
        self._found: dict[str, _Found] = {}

    def build(self, record: Record) -> tuple[EditItem | None, list[Problem]]:
        """The item, or what is wrong with the record. Its names are taken either way."""
        built = self._build(record)
        return built.item, [self._problem(record, fault) for fault in built.faults]

    def faults(self, record: Record) -> list[Problem]:
        """What is wrong with the record."""
        return [self._problem(record, fault) for fault in self._build(record, make=False).faults]

    def item(self, record: Record) -> EditItem | FailedItem:
        """The item, or a failed one ("bad_line") that tells what is wrong with the record."""
        built = self._build(record)
        if built.item is not None:
            return built.item
        text = "; ".join(str(self._problem(record, fault)) for fault in built.faults)
        return self._failed(record.line, text, built)

    def failed(self, problem: Problem) -> FailedItem:
        """The failed item for a line that cannot even be read."""
        return self._failed(problem.line or 0, str(problem), _Built(None, []))

    def _failed(self, number: int, message: str, built: _Built) -> FailedItem:
        line, name = built.line, built.name
        if name is None:
            wish = f"line-{number}"
            if line is not None and line.id is not None and name_fault(line.id) is None:
                wish = line.id
            name = self._claims.default_id(wish, with_output=True)
            self._claims.id(name, max(number, 1))
        return FailedItem(
            id=name,
            images=() if line is None else tuple(Path(self._find(image).path) for image in _images(line)),
            instruction="" if line is None else line.instruction or "",
            origin=Origin(file=self._file, line=number or None),
            code="bad_line",
            message=message,
        )

    def _problem(self, record: Record, fault: Fault) -> Problem:
        line = record.line
        if fault.key is not None and isinstance(record.data, Table):
            line = record.data.lines.get(fault.key, line)
        return Problem(file=self._file, line=line or None, message=fault.message, remedy=fault.remedy)

    def _build(self, record: Record, *, make: bool = True) -> _Built:
        """Whether or not the item itself is made, its names are taken."""
        if not isinstance(record.data, dict):
            message = f"an item is a mapping of keys, not {shown(record.data)}"
            return _Built(None, [Fault(message, "for example image and instruction")])
        line, values, faults = self._schema.read(Line, record.data)
        if line is None:
            return _Built(None, faults)
        instruction = self._instruction(line, values, faults)
        images = tuple([self._find(image) for image in _images(line)])
        if line.image is not None and line.images is not None:
            faults.append(Fault("'image' and 'images' are both given", "keep one of them"))
        if self._look:
            faults.extend(found.fault for found in images if found.fault is not None)
        sampling, size = self._settings(line, faults)
        name, output = self._names(line, images, max(record.line, 1), faults)
        if faults or not make:
            return _Built(None, faults, line, name)
        item = EditItem(
            id=name or "",
            images=tuple([Path(found.path) for found in images]),
            instruction=instruction,
            sampling=sampling,
            basesize=line.basesize or self.settings.basesize or 0,
            size=size,
            output=output,
            origin=Origin(file=self._file, line=record.line or None),
        )
        return _Built(item, faults, line, name)

    def _instruction(self, line: Line, values: Mapping[str, str], faults: list[Fault]) -> str:
        text, more = compose(
            self._recipe,
            {**self._values, **values} if values else self._values,
            line.instruction,
            self._prompt,
            self._defaults.instruction,
        )
        faults.extend(more)
        if values and self._recipe is not None:
            faults.extend(self._recipe.choice_faults(values))
        return text

    def _settings(self, line: Line, faults: list[Fault]) -> tuple[Sampling, Size | None]:
        sampling = self._sampling
        own = (line.steps, line.guidance_scale, line.seed, line.negative_prompt)
        if own != (None, None, None, None):
            sampling = Sampling(
                steps=sampling.steps if line.steps is None else line.steps,
                guidance_scale=(sampling.guidance_scale if line.guidance_scale is None else line.guidance_scale),
                seed=sampling.seed if line.seed is None else line.seed,
                negative_prompt=(sampling.negative_prompt if line.negative_prompt is None else line.negative_prompt),
            )
        width = self.settings.width if line.width is None else line.width
        height = self.settings.height if line.height is None else line.height
        if (width is None) != (height is None):
            faults.append(_PAIR)
        return sampling, None if width is None or height is None else (height, width)

    def _names(
        self, line: Line, images: tuple[_Found, ...], number: int, faults: list[Fault]
    ) -> tuple[str | None, str]:
        """The id and the output, both taken from now on; an id of None could not be had."""
        for found in images:
            if found.inside is not None:
                fault = self._claims.input(found.inside, number)
                if fault is not None:
                    faults.append(fault)
        output = line.output
        if output is not None:
            fault = self._output_fault(output)
            if fault is not None:
                faults.append(fault)
                output = None
        name = line.id
        if name is not None:
            reason = name_fault(name)
            taken = self._claims.id(name, number) if reason is None else _id_fault(name, reason)
            if taken is not None:
                faults.append(taken)
                return None, ""
        else:
            stem = self._stem(images[0]) if images else f"item-{number}"
            name = self._claims.default_id(stem, with_output=line.output is not None)
            self._claims.id(name, number)
        if output is None:
            if line.output is not None:
                return name, ""
            output = name + self._extensions[0]
        fault = self._claims.output(output, number)
        if fault is not None:
            faults.append(fault)
        return name, output

    def _output_fault(self, output: str) -> Fault | None:
        root, ending = os.path.splitext(output)
        reason = name_fault(root)
        if reason is not None:
            remedy = "it is a path below the output folder, with / between its parts"
            return Fault(f"the output {shown(output)} {reason}", remedy, "output")
        if ending.lower() not in self._extensions:
            message = f"the output {shown(output)} does not fit the format {self._format}"
            return Fault(message, f"it ends with {' or '.join(self._extensions)}", "output")
        return None

    def _find(self, image: str) -> _Found:
        """As `_find_picture`; a manifest tends to name the same pictures again and again."""
        found = self._found.get(image)
        if found is None:
            if len(self._found) >= _PICTURES:
                self._found.clear()
            found = self._found[image] = self._find_picture(image)
        return found

    def _find_picture(self, image: str) -> _Found:
        path = os.path.join(self._base, image)
        absolute = os.path.normpath(os.path.join(self._absolute_base, image))
        inside = next((name for root in self._outputs if (name := _below(absolute, root))), None)
        fault = _picture_fault(path, image, self._absolute_base) if self._look else None
        return _Found(path, absolute, inside, fault)

    def _stem(self, found: _Found) -> str:
        """The default id of an item whose first picture this is."""
        below = _below(found.absolute, self._absolute_base) or os.path.basename(found.absolute)
        return safe_name(os.path.splitext(below)[0].replace(os.sep, "/"))


def item_schema(options: SourceOptions) -> Schema:
    """The keys that an item may hold, those of the recipe in force included."""
    parameters = () if options.recipe is None else tuple(options.recipe.parameters)
    return Schema(ITEM_KEYS, (*parameters, *options.keys))


def effective_settings(options: SourceOptions, defaults: Settings) -> Settings:
    """The settings in force for an item that has none of its own."""
    recipe = options.recipe.settings if options.recipe is not None else Settings()
    return options.flags.over(recipe).over(defaults).over(options.checkpoint).over(BUILT_IN)


def compose(
    recipe: Recipe | None, values: Mapping[str, str], own: str | None, prompt: str | None, default: str | None
) -> tuple[str, list[Fault]]:
    """The instruction in force, and why there is none.

    `own` is the item's, `prompt` the command line's, `default` the manifest's. A template with a
    place for the item's own text takes the first of them; any other template stands between
    `prompt` and `default`.
    """
    text = own if own is not None else prompt
    if recipe is not None and recipe.instruction is not None and (text is None or recipe.takes_own_text):
        text = default if text is None else text
        faults = recipe.missing_faults(values, text)
        return ("", faults) if faults else (recipe.fill(values, text), [])
    text = default if text is None else text
    return ("", [_NO_TEXT]) if text is None else (text, [])


def _id_fault(name: str, reason: str) -> Fault:
    return Fault(f"the id {shown(name)} {reason}", "it becomes the name of a file", "id")


def _images(line: Line) -> list[str]:
    return [line.image] if line.image is not None else line.images or []


def _sampling(settings: Settings) -> Sampling:
    """Settings with nothing left open -> Sampling."""
    names = Sampling.__slots__
    return Sampling(**{name: getattr(settings, name) for name in names})


def _below(path: str, root: str) -> str | None:
    """`path` relative to `root`, where it lies below it (both absolute)."""
    if not path.startswith(root):
        return None
    prefix = root if root.endswith(os.sep) else root + os.sep
    return path[len(prefix) :] if path.startswith(prefix) else None


def _picture_fault(path: str, written: str, base: str) -> Fault | None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if "://" in written:
            return Fault(f"{shown(written)} is a web address", "download the picture first", "image")
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, FileNotFoundError):
            reason = "no such picture"
        return Fault(f"{reason}: {shown(written, 300)}", f"paths are relative to {shown(base, 300)}", "image")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        return Fault(f"{shown(written, 300)} is {kind}, not a picture", "", "image")
    return None
