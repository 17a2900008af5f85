"""Recipe files (YAML) -> recipes: the packaged ones by name, others by path. Every problem is told at once."""

from __future__ import annotations

import math
import os
import re
import stat
import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from joyedit.errors import ManifestError, Problem, UsageError, os_reason
from joyedit.job.source.loras import LoraWish, wishes_of
from joyedit.job.source.matrix_reader import matrix_of
from joyedit.job.source.parameter import BOX, KINDS, Kind, Parameter
from joyedit.job.source.problems import FewProblems, Problems, Table, cut, nearest, one_of, repeated_key, shown
from joyedit.job.source.recipe import OWN_TEXT, Recipe
from joyedit.job.source.schema import (
    ALIASES,
    DEFAULTS_KEYS,
    ITEM_KEYS,
    RECIPE_KEYS,
    Defaults,
    Schema,
    parameter_text,
)
from joyedit.job.source.text import BrokenFileError
from joyedit.job.source.yaml_reader import read_document
from joyedit.job.spec import Settings

_KEYS = ("name", "description", "instruction", "parameters", "settings", "matrix")
_PARAMETER_KEYS = ("description", "type", "default", "choices", "minimum", "maximum", "if_true", "if_false")
_OF_KINDS = {
    "choices": ("text", "choice", "number", "integer"),
    "minimum": ("number", "integer"),
    "maximum": ("number", "integer"),
    "if_true": ("boolean",),
    "if_false": ("boolean",),
}
"""The keys that only parameters of some kinds may have."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TAKEN = frozenset((*ITEM_KEYS, *DEFAULTS_KEYS, *ALIASES))
_PLACE = "a place is {name}; braces are written {{ and }}"


def load_recipe(name_or_file: str) -> Recipe:
    """The recipe of a file (it ends in .yaml or .yml, or has a folder in its name), or the packaged recipe.

    Raises UsageError if there is none, ManifestError with all problems of the recipe.
    """
    text = os.fspath(name_or_file)
    return _read(Path(text), text) if _is_path(text) else _read(_packaged_file(text), text + ".yaml")


def _is_path(text: str) -> bool:
    return text.lower().endswith((".yaml", ".yml")) or "/" in text or os.sep in text


def _packaged_file(name: str) -> Path:
    names = _packaged()
    if name not in names:
        raise UsageError(f"no recipe is named {shown(name)} ({nearest(name, names)}; a recipe file ends in .yaml)")
    return names[name]


def file_of(name_or_file: str) -> Path:
    """The file of a recipe, by its name or path. Raises UsageError for a name that no recipe has."""
    text = os.fspath(name_or_file)
    return Path(text) if _is_path(text) else _packaged_file(text)


def list_recipes() -> list[Recipe]:
    """The packaged recipes, by name."""
    return [load_recipe(name) for name in _packaged()]


def _packaged() -> dict[str, Path]:
    """Name -> file. In a wheel the recipes lie inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parents[2]
    inside, beside = package / "recipes", package.parent / "recipes"
    folder = inside if inside.is_dir() else beside
    return {file.stem: file for file in sorted(folder.glob("*.yaml"), key=lambda file: file.stem)}


def _read(path: Path, label: str) -> Recipe:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # waits for no pipe
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{label}: this recipe is no file (write it into a file that ends in .yaml)")
            value, problems = read_document(file)
    except OSError as error:
        raise UsageError(f"{label}: cannot read this recipe: {os_reason(error)}") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{shown(label)}: cannot read this recipe: {error}") from error
    except BrokenFileError as error:
        raise ManifestError([error.problem.at(label)]) from error
    return _Reader(label).recipe(value, path.stem, problems)


class _Reader:
    """Checks one recipe file. It collects all problems before it refuses the file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems = Problems()

    def recipe(self, value: object, stem: str, problems: list[Problem]) -> Recipe:
        """The recipe that the file holds as `value`. Raises ManifestError with `problems` and what else is wrong."""
        self.problems.add(problem.at(self.file) for problem in problems)
        if not isinstance(value, Table):
            message = f"a recipe is a mapping, not {shown(value)}"
            self._add(1, Problem(message, f"its keys: {', '.join(_KEYS)}"))
            self.problems.raise_any()
            raise AssertionError("the problem above was raised")
        self._keys(value, _KEYS)
        parameters = self._parameters(value)
        template = self._text(value, "instruction")
        parts = self._template(value, template, parameters)
        settings, lora = self._settings(value)
        recipe = Recipe(
            name=self._text(value, "name") or stem,
            description=self._text(value, "description") or "",
            instruction=template,
            parameters=parameters,
            settings=settings,
            lora=lora,
            file=self.file,
            parts=parts,
        )
        inner = self._inner(value, "matrix")
        for key in inner.doubled:
            self._add(inner.lines.get(key), repeated_key(key))
        self.problems.raise_any()  # the values of a matrix are told by what their parameters are
        matrix, wrong = matrix_of(inner, parameters, settings.seed)
        for problem in wrong:
            self._add(inner.lines.get(problem.key or ""), problem)
        self.problems.raise_any()
        return replace(recipe, matrix=matrix)

    def _add(self, line: int | None, problem: Problem) -> None:
        self.problems.add([problem.at(self.file, line)])

    def _keys(self, table: Table, valid: tuple[str, ...]) -> None:
        for key in table.doubled:
            self._add(table.lines.get(key), repeated_key(key))
        for key in table:
            if key not in valid:
                self._add(table.lines.get(key), Problem(f"unknown key {shown(key)}", nearest(key, valid)))

    def _text(self, table: Table, key: str) -> str | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self._add(table.lines.get(key), Problem(f"{key} must be text that is not empty, not {shown(value)}"))
            return None
        return value

    def _inner(self, table: Table, key: str) -> Table:
        value = table.get(key)
        if isinstance(value, Table):
            return value
        if value is not None:
            self._add(table.lines.get(key), Problem(f"{key} must be a mapping, not {shown(value)}"))
        return Table()

    def _settings(self, table: Table) -> tuple[Settings, tuple[LoraWish, ...] | None]:
        inner = self._inner(table, "settings")
        checked, _, problems = Schema(RECIPE_KEYS).read(Defaults, inner)
        for problem in problems:
            self._add(inner.lines.get(problem.key or ""), problem)
        if checked is None:
            return Settings(), None
        return checked.settings(), None if checked.lora is None else tuple(wishes_of(checked.lora))

    def _parameters(self, table: Table) -> dict[str, Parameter]:
        inner = self._inner(table, "parameters")
        for name in inner.doubled:
            self._add(inner.lines.get(name), Problem(f"the parameter {shown(name)} is given twice", "keep one of them"))
        parameters = {}
        for name, value in inner.items():
            line = inner.lines.get(name)
            if not _NAME.fullmatch(name):
                message = f"{shown(name)} cannot be the name of a parameter"
                self._add(line, Problem(message, "it can have letters, digits, _ and -"))
            elif name in _TAKEN and name != BOX:
                self._add(
                    line, Problem(f"a parameter cannot have the name '{name}'", "manifests have a key of that name")
                )
            elif value is not None and not isinstance(value, Table):
                keys = ", ".join(_PARAMETER_KEYS)
                self._add(line, Problem(f"a parameter is a mapping, not {shown(value)}", f"its keys: {keys}"))
            parameters[name] = self._parameter(name, value if isinstance(value, Table) else Table())
        return parameters

    def _parameter(self, name: str, table: Table) -> Parameter:
        self._keys(table, _PARAMETER_KEYS)
        kind = self._kind(name, table)
        for key, kinds in _OF_KINDS.items():
            if table.get(key) is not None and kind not in kinds:
                message = f"'{name}' is of the type {kind} and has no {key}"
                self._add(table.lines.get(key), Problem(message, f"for the types {', '.join(kinds)}"))
        bare = Parameter(
            description=self._text(table, "description") or "",
            kind=kind,
            minimum=self._number(table, "minimum"),
            maximum=self._number(table, "maximum"),
            if_true=self._plain_text(table, "if_true"),
            if_false=self._plain_text(table, "if_false"),
        )
        if bare.minimum is not None and bare.maximum is not None and bare.minimum > bare.maximum:
            self._add(table.lines.get("minimum"), Problem(f"the minimum of '{name}' is more than its maximum"))
            bare = replace(bare, minimum=None, maximum=None)
        if kind == "choice" and table.get("choices") is None:
            self._add(table.lines.get("type"), Problem(f"'{name}' is of the type choice and has no choices"))
        choices = tuple(self._choices(name, table, bare))
        chosen = replace(bare, choices=choices)
        default = self._value(table, "default", table.get("default"), kind)
        wrong = None if default is None else chosen.problem(f"the default of '{name}'", default)
        if wrong is not None:
            self._add(table.lines.get("default"), wrong)
            return chosen
        return replace(chosen, default=None if default is None else chosen.read(default))

    def _kind(self, name: str, table: Table) -> Kind:
        """The type of a parameter, as it is said or as its choices say it."""
        written = table.get("type")
        if written is None:
            kind: Kind = "box" if name == BOX else "text" if table.get("choices") is None else "choice"
        elif isinstance(written, str) and written in KINDS:
            kind = cast("Kind", written)
        else:
            message = f"the type of '{name}' must be {one_of(KINDS)}, not {shown(written)}"
            near = nearest(written, KINDS) if isinstance(written, str) else ""
            self._add(table.lines.get("type"), Problem(message, near))
            return "box" if name == BOX else "text"
        if (kind == "box") != (name == BOX):
            message = "a box is always the parameter 'box', and 'box' is always a box"
            self._add(table.lines.get("type"), Problem(message, "give this parameter another name or type"))
        return kind

    def _number(self, table: Table, key: str) -> float | None:
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self._add(table.lines.get(key), Problem(f"{key} must be a number, not {shown(value)}"))
            return None
        return float(value)

    def _plain_text(self, table: Table, key: str) -> str:
        """A text that may be empty, and may begin with a space."""
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value or ""
        self._add(table.lines.get(key), Problem(f"{key} must be text, not {shown(value)}", "write it in quotes"))
        return ""

    def _choices(self, name: str, table: Table, parameter: Parameter) -> Iterator[str]:
        held = table.get("choices")
        if held is None:
            return
        if not isinstance(held, list) or not held:
            self._add(table.lines.get("choices"), Problem(f"choices must be a list, not {shown(held)}"))
            return
        for choice in held:
            text = self._value(table, "choices", choice, parameter.kind)
            wrong = None if text is None else parameter.problem(f"a choice of '{name}'", text)
            if wrong is not None:
                self._add(table.lines.get("choices"), wrong)
            elif text is not None:
                yield parameter.read(text) or text

    def _value(self, table: Table, key: str, value: object, kind: Kind) -> str | None:
        text = parameter_text(value, kind)
        if text is None and (value is not None or key == "choices"):
            what = {"box": "a list of four numbers", "boolean": "true or false"}.get(kind, "text or a number")
            message = f"{key} must be {what}, not {shown(value)}"
            self._add(table.lines.get(key), Problem(message, "write it in quotes" if what[:4] == "text" else ""))
        return text

    def _template(
        self, table: Table, template: str | None, parameters: Mapping[str, Parameter]
    ) -> tuple[tuple[str, str | None], ...]:
        line = table.lines.get("instruction")
        parts: list[tuple[str, str | None]] = []
        few = FewProblems()
        try:
            for literal, place, spec, conversion in string.Formatter().parse(template or ""):
                if place is not None and (spec or conversion or not _NAME.fullmatch(place)):
                    written = place + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                    message = f"the instruction cannot have the place {shown('{' + written + '}')}"
                    few.add(partial(Problem, message, _PLACE))
                elif place is not None and place != OWN_TEXT and place not in parameters:
                    few.add(partial(_unknown_parameter, place, parameters))
                parts.append((literal, place))
        except ValueError as error:
            message = f"the braces of the instruction do not match: {error}"
            self._add(line, Problem(message, _PLACE))
            return ()
        for problem in few.take():
            self._add(line, problem)
        used = {place for _, place in parts}
        inner = self._inner(table, "parameters") if isinstance(table.get("parameters"), Table) else Table()
        for name in parameters:
            if name == BOX and template is None:
                self._add(inner.lines.get(name), Problem("a recipe with a box needs an instruction that names it"))
            elif name not in used and name != BOX:
                message = f"the instruction has no place for the parameter '{name}'"
                self._add(inner.lines.get(name), Problem(message, f"write {{{name}}} where it belongs"))
        return tuple(parts)


def _unknown_parameter(place: str, parameters: Mapping[str, Parameter]) -> Problem:
    near = nearest(place, [*parameters, OWN_TEXT])
    return Problem(f"the instruction names an unknown parameter '{cut(place, 100)}'", near)
