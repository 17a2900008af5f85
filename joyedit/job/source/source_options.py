"""What holds for every item of a source: options, `defaults:`, and the settings and instruction in force.

Precedence: item > command line > recipe > a manifest's `defaults:` > LoRA > checkpoint > built in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from joyedit.errors import Problem, UsageError
from joyedit.job.boxes import read_box
from joyedit.job.pictures.can_write import NEEDS, can_write
from joyedit.job.shard import Shard
from joyedit.job.source.columns import Columns
from joyedit.job.source.layouts.choice import DatasetChoice
from joyedit.job.source.loras import LoraSet, LoraShelf, wishes_of
from joyedit.job.source.matrix import MOST_CELLS, Matrix
from joyedit.job.source.matrix_reader import matrix_of
from joyedit.job.source.name_template import NameTemplate
from joyedit.job.source.names import EXTENSIONS, SAME
from joyedit.job.source.parameter import BOX, Kind, Parameter
from joyedit.job.source.problems import Record, Table, shown
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.schema import DEFAULTS_KEYS, ITEM_KEYS, SETTINGS_KEYS, Defaults, Schema
from joyedit.job.source.typed_texts import text_faults
from joyedit.job.spec import Box, Sampling, Settings
from joyedit.job.writing.trees import Tree

BUILT_IN = Settings(
    steps=Sampling().steps,
    guidance_scale=Sampling().guidance_scale,
    seed=Sampling().seed,
    negative_prompt=Sampling().negative_prompt,
    basesize=1024,
    size="input",
    fit="auto",
)
"""The settings that hold if nobody gives any."""

MATRIX = "matrix"
"""The key under `defaults:` for the matrix of all items."""
_NO_TEXT = Problem("no instruction", "give it with -p, or as 'instruction' of the item")
PAIR = Problem("width and height go together", "give both or none")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What the command line, a recipe and the checkpoint say about every item of a source."""

    prompt: str | None = None
    flags: Settings = field(default_factory=Settings)
    recipe: Recipe | None = None
    recipe_values: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Settings = field(default_factory=Settings)
    format: str = "png"
    output: Path | None
    """The output folder; None for items that go into none."""
    limit: int | None = None
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders that a walk through a folder leaves out."""
    file_name: str | None = None
    """The name of the edited picture, where the source is one picture and the user names its file."""
    item_id: str | None = None
    """The id of the item, where the source is one picture and its name does not give the id."""
    keys: tuple[str, ...] = ()
    """Keys that an item may have besides those of joyedit and of the recipe."""
    look: bool = True
    """Whether all pictures of a manifest must exist at the start. If not, an item without its picture fails."""
    skip_missing: bool = False
    """Whether some of them may be missing at the start. If all are missing, that is a fault still."""
    text_to_image: bool = False
    """Whether an item whose picture is left empty is text to image. If not, that is a fault."""
    most_references: int | None = None
    """The most pictures that an item may have with the checkpoint; None where nobody knows."""
    columns: Columns = field(default_factory=Columns)
    matrix: Matrix = field(default_factory=Matrix)
    """What multiplies every item."""
    also_said: frozenset[str] = frozenset()
    """Keys that the command line of an earlier run gave one value for."""
    template: NameTemplate | None = None
    """What names the edited pictures (`--name`)."""
    tree: Tree | None = None
    """What names the edited pictures for the scorer of a benchmark, in place of ids and `template`."""
    keeps_row: bool = False
    """Whether items keep all of the row that they come from, because the run writes a dataset."""
    lora: tuple[str, ...] = ()
    """The LoRAs of the command line."""
    mask: str | None = None
    """The path of the mask of items without one of their own, from the current folder."""
    shard: Shard | None = None
    """The part of the items that is asked for; None for all of them."""
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    """What the user says about a source that is a dataset."""
    shelf: LoraShelf = field(default_factory=LoraShelf, compare=False)
    """What finds LoRAs."""

    @property
    def first_values(self) -> dict[str, str]:
        """The values of the recipe for the first edit of an item: those of the command, and of the matrix."""
        return {**self.recipe_values, **self.matrix.first_values}

    @property
    def default_box(self) -> Box | None:
        """The box of an item that says nothing about it."""
        if self.recipe is None or not self.recipe.takes_box:
            return None
        return read_box(self.recipe_values.get(BOX, self.recipe.parameters[BOX].default))

    def count_in_shard(self, ids: Sequence[str], before: int) -> int:
        """How many of these items are of the shard and within the limit, where so many items came before them."""
        counting = ids if self.limit is None else ids[: max(0, self.limit - before)]
        return 0 if self.shard is None else sum(map(self.shard.holds, counting))

    def check(self) -> None:
        """Raises UsageError for options that cannot work with any source."""
        if self.format not in (*EXTENSIONS, SAME):
            raise UsageError(f"--format is one of {', '.join((*EXTENSIONS, SAME))}, not {shown(self.format)}")
        if self.format != SAME and not can_write(self.format):
            raise UsageError(f"--format {self.format}: {NEEDS[self.format]}")
        faults = self._text_faults()
        if faults:
            raise UsageError("\n".join(faults))
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is a whole number from 1, not {self.limit}")
        given = {key: getattr(self.flags, key) for key in SETTINGS_KEYS}
        problems = [_of_flag(problem) for problem in Schema(DEFAULTS_KEYS).read(Defaults, given)[2]]
        problems += [Problem(fault) for fault in self.item_schema().wrong_map()]
        if self.recipe is not None:
            problems += self.recipe.unknown_problems(self.recipe_values)
            wrong = self.recipe.value_problems(self.recipe_values)
            problems += [replace(problem, message=f"--set {problem.message}") for problem in wrong]
            problems += self._prompt_problems(self.recipe)
        elif self.recipe_values:
            problems.append(Problem(f"--set {next(iter(self.recipe_values))} needs a recipe", "give it with --recipe"))
        problems += self.run_loras()[1]
        if problems:
            raise UsageError("\n".join(problem.text for problem in problems))

    def refuse_line_flags(self, source: str) -> None:
        """Raises UsageError for flags about the lines of a manifest, where `source` has none."""
        flags = {"map": "--map", "ignore": "--ignore-columns", "keep": "--keep-columns"}
        given = [flags[name] for name in self.columns.as_json()]
        given += ["--text-to-image"] if self.text_to_image else []
        if given:
            what = "is for the lines of a manifest" if len(given) == 1 else "are for the lines of a manifest"
            raise UsageError(
                f"{' and '.join(given)} {what}, and {source} is none (leave {'it' if len(given) == 1 else 'them'} out)"
            )

    def run_loras(self) -> tuple[LoraSet | None, list[Problem]]:
        """The LoRAs that the command line gives all items, or else the recipe; None if neither says anything."""
        if self.lora:
            found, problems = self.shelf.find(wishes_of(self.lora), "")
            return found, [replace(problem, message=f"--lora: {problem.message}") for problem in problems]
        if self.recipe is None or self.recipe.lora is None:
            return None, []
        found, problems = self.shelf.find(self.recipe.lora, os.path.dirname(self.recipe.file))
        return found, [replace(problem, message=f"{self.recipe.file}: {problem.message}") for problem in problems]

    def _prompt_problems(self, recipe: Recipe) -> list[Problem]:
        """The problem of an instruction that would take the place of the recipe's."""
        if self.prompt is None or recipe.instruction is None or recipe.takes_own_text:
            return []
        message = f"the recipe '{recipe.name}' has its own instruction and takes none with -p"
        return [Problem(message, "leave -p out, or leave --recipe out")]

    def _text_faults(self) -> list[str]:
        negative = "the text given with --neg-prompt"
        texts = {"the instruction given with -p": self.prompt, negative: self.flags.negative_prompt}
        texts |= {f"the value given with --set {name}": value for name, value in self.recipe_values.items()}
        return text_faults(texts, may_be_empty=frozenset((negative,)))

    def item_schema(self) -> Schema:
        """The keys that an item may have, those of the recipe included."""
        parameters = {name: kind for name, kind in self._parameters().items() if name not in ITEM_KEYS}
        return Schema(ITEM_KEYS, parameters, self.columns, is_item=True)

    def defaults_schema(self) -> Schema:
        """The keys that the `defaults:` of a manifest may have."""
        return Schema(DEFAULTS_KEYS, self._parameters(), self.columns)

    def known_parameters(self) -> Mapping[str, Parameter]:
        """The parameters of the recipe; any value is one of those that are only known by name."""
        return {name: Parameter() for name in self.keys} | ({} if self.recipe is None else dict(self.recipe.parameters))

    def said(self) -> set[str]:
        """What the command line and the recipe give one value for: the matrix of a manifest leaves that."""
        settings = self.flags if self.recipe is None else self.flags.over(self.recipe.settings)
        given = {key for key in SETTINGS_KEYS if getattr(settings, key) is not None}
        return given | set(self.recipe_values) | self.also_said

    def with_matrix(self, lower: Matrix) -> SourceOptions:
        """The same options with the matrix of a manifest below that of the command line and the recipe."""
        return replace(self, matrix=self.matrix.over(lower)) if lower else self

    def _parameters(self) -> dict[str, Kind | None]:
        """The kinds of the recipe's parameters by their names."""
        known: dict[str, Kind | None] = {name: None for name in self.keys}
        if self.recipe is not None:
            known |= {name: parameter.kind for name, parameter in self.recipe.parameters.items()}
        return known

    def settings(self, defaults: Settings, lora: Settings | None = None) -> Settings:
        """The settings in force for an item without any of its own.

        `defaults` are the manifest's, `lora` what the item's LoRAs recommend.
        """
        recipe = self.recipe.settings if self.recipe is not None else Settings()
        checkpoint = self.checkpoint if lora is None else lora.over(self.checkpoint)
        return self.flags.over(recipe).over(defaults).over(checkpoint).over(BUILT_IN)


def _of_flag(problem: Problem) -> Problem:
    """The same problem with the name of the flag in place of the key's."""
    key = problem.key or ""
    return replace(problem, message=problem.message.replace(key, "--" + key.replace("_", "-"), 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDefaults:
    """What a manifest says for all its items (`defaults:`). `names` are the keys as they are written."""

    settings: Settings = field(default_factory=Settings)
    instruction: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    loras: LoraSet | None = None
    matrix: Matrix = field(default_factory=Matrix)


def read_defaults(record: Record | None, options: SourceOptions, file: str) -> tuple[RunDefaults, list[Problem]]:
    """The checked `defaults:` of a manifest, and their problems."""
    if record is None or record.data is None:
        return RunDefaults(), []
    if not isinstance(record.data, Table):
        message = f"defaults must be a mapping, not {shown(record.data)}"
        return RunDefaults(), [Problem(message).at(file, record.line)]
    held = record.data.get(MATRIX)
    rest = record.data.without(MATRIX)
    checked, values, problems = options.defaults_schema().read(Defaults, rest)
    matrix = Matrix()
    if isinstance(held, Table):
        matrix, more = matrix_of(held, options.known_parameters(), None)
        matrix = matrix.without(options.said())
        size = options.with_matrix(matrix).matrix.size
        if size > MOST_CELLS and not more:
            more = [Problem(f"matrix: with that of the command or the recipe it has {size:,} edits of each item")]
        problems += [replace(problem, key=MATRIX) for problem in more]
    elif held is not None:
        problems.append(Problem(f"matrix must be a mapping, not {shown(held)}", "steps: [20, 40]", key=MATRIX))
    if options.recipe is not None:
        problems += options.recipe.value_problems(values)
    loras = None
    if checked is not None and checked.lora is not None:
        loras, more = options.shelf.find(wishes_of(checked.lora), os.path.dirname(file))
        problems += more
    placed = [record.place(problem, file) for problem in problems]
    if checked is None:
        return RunDefaults(values=values), placed
    names = frozenset(record.data)
    return (
        RunDefaults(
            settings=checked.settings(),
            instruction=checked.instruction,
            values=values,
            names=names,
            loras=loras,
            matrix=matrix,
        ),
        placed,
    )


def compose_instruction(
    recipe: Recipe | None, values: Mapping[str, str], *, own: str | None, prompt: str | None, default: str | None
) -> tuple[str, list[Problem]]:
    """The instruction in force; without one, an empty text and the problems that say why.

    `own` is the item's text, `prompt` the command line's, `default` the manifest's. If the recipe's template has a
    place for the item's own text, the first of these that is given fills it. Any other template comes after `prompt`
    and before `default`.
    """
    text = own if own is not None else prompt
    if recipe is not None and recipe.instruction is not None and (text is None or recipe.takes_own_text):
        text = default if text is None else text
        problems = recipe.missing_problems(values, text)
        return ("", problems) if problems else (recipe.fill(values, text), [])
    text = default if text is None else text
    return ("", [_NO_TEXT]) if text is None else (text, [])
