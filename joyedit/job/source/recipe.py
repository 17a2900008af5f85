"""Recipes: a YAML file of settings and an instruction with `{named}` places -> ready instructions.

A place is `{name}` and nothing else; `{{` and `}}` are braces. `{instruction}` takes the item's own
text. What is filled in is never read again, so it may hold braces itself.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from joyedit.errors import ManifestError, Problem, UsageError
from joyedit.job.source.problems import Fault, Problems, Table, nearest, shown
from joyedit.job.source.schema import (
    ALIASES,
    DEFAULTS_KEYS,
    ITEM_KEYS,
    SETTINGS_KEYS,
    Defaults,
    Schema,
    parameter_text,
)
from joyedit.job.source.yaml_reader import YamlError, read_document
from joyedit.job.spec import Settings

OWN_TEXT = "instruction"
"""The place in a template that takes the item's own instruction."""

_KEYS = ("name", "description", "instruction", "parameters", "settings")
_PARAMETER_KEYS = ("description", "default", "choices")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TAKEN = frozenset((*ITEM_KEYS, *DEFAULTS_KEYS, *ALIASES))


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One named place of a template. Without a default a value must be given; no choices: any value."""

    description: str = ""
    default: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe as read from `file`. `parts` is its template, taken apart: (literal text, place or None)."""

    name: str
    description: str = ""
    instruction: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    file: str = ""
    parts: tuple[tuple[str, str | None], ...] = ()

    @property
    def takes_own_text(self) -> bool:
        """Whether the template has a place for the item's own instruction."""
        return any(place == OWN_TEXT for _, place in self.parts)

    def unknown_faults(self, names: Iterable[str]) -> list[Fault]:
        """One fault for each name that is no parameter of this recipe."""
        return [
            Fault(
                f"the recipe '{self.name}' has no parameter {shown(name)}",
                nearest(name, self.parameters) or "it has none at all",
                name,
            )
            for name in names
            if name not in self.parameters
        ]

    def choice_faults(self, values: Mapping[str, str]) -> list[Fault]:
        """One fault for each value that is not among the choices of its parameter."""
        return [
            Fault(f"{name} must be {_one_of(choices)}, not {shown(value)}", nearest(value, choices), name)
            for name, value in values.items()
            if name in self.parameters and (choices := self.parameters[name].choices) and value not in choices
        ]

    def missing_faults(self, values: Mapping[str, str], own: str | None) -> list[Fault]:
        """One fault for each place of the template that nothing fills."""
        faults = []
        for place in dict.fromkeys(place for _, place in self.parts if place is not None):
            if place == OWN_TEXT:
                if own is None:
                    message = f"the recipe '{self.name}' needs an instruction of the item's own"
                    faults.append(Fault(message, "give it with -p, or as 'instruction'"))
            elif place not in values and self.parameters[place].default is None:
                message = f"the recipe '{self.name}' needs a value for '{place}'"
                faults.append(Fault(message, f"give it with --set {place}=..., or as a key of the item"))
        return faults

    def render(self, values: Mapping[str, str], instruction: str | None) -> str:
        """The finished instruction; `instruction` is the item's own text.

        Raises ManifestError for an unknown or missing parameter and for a value that is no choice.
        Without a template the item's own text is the result.
        """
        faults = self.unknown_faults(values) + self.choice_faults(values)
        faults += self.missing_faults(values, instruction)
        if self.instruction is None and instruction is None:
            faults.append(Fault(f"the recipe '{self.name}' has no instruction, and none was given"))
        if faults:
            raise ManifestError(
                Problem(file=self.file or self.name, message=fault.message, remedy=fault.remedy) for fault in faults
            )
        return self.fill(values, instruction)

    def fill(self, values: Mapping[str, str], own: str | None) -> str:
        """As `render`, for values that were checked."""
        if self.instruction is None:
            return own or ""
        made = []
        for literal, place in self.parts:
            made.append(literal)
            if place == OWN_TEXT:
                made.append(own or "")
            elif place is not None:
                made.append(values[place] if place in values else self.parameters[place].default or "")
        return "".join(made)


def load_recipe(name_or_file: str) -> Recipe:
    """The recipe of a file (ending in .yaml or .yml, or with a folder in its name), or the packaged one.

    Raises UsageError where there is none, ManifestError with every fault where it is wrong.
    """
    text = os.fspath(name_or_file)
    if text.lower().endswith((".yaml", ".yml")) or "/" in text or os.sep in text:
        return _read(Path(text), text)
    names = _packaged()
    if text not in names:
        raise UsageError(f"no recipe is named {shown(text)} ({nearest(text, names)}; a file needs its ending .yaml)")
    return _read(names[text], text + ".yaml")


def list_recipes() -> list[Recipe]:
    """The packaged recipes, by name."""
    return [load_recipe(name) for name in _packaged()]


def _packaged() -> dict[str, Path]:
    """Name -> file. In a wheel they lie inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parents[2]
    inside, beside = package / "recipes", package.parent / "recipes"
    folder = inside if inside.is_dir() else beside
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _read(path: Path, label: str) -> Recipe:
    try:
        with path.open("rb") as file:
            value, faults = read_document(file)
    except OSError as error:
        raise UsageError(f"{label}: cannot read this recipe: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{shown(label)}: cannot read this recipe: {error}") from error
    except YamlError as error:
        problem = Problem(file=label, line=error.line, message=error.fault.message, remedy=error.fault.remedy)
        raise ManifestError([problem]) from error
    return _Reader(label).recipe(value, path.stem, faults)


class _Reader:
    """Checks one recipe file, gathering every fault before it refuses."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems = Problems()

    def recipe(self, value: object, stem: str, faults: list[tuple[int, Fault]]) -> Recipe:
        for line, fault in faults:
            self._tell(line, fault)
        if not isinstance(value, Table):
            message = f"a recipe is a mapping, not {shown(value)}"
            self._tell(1, Fault(message, f"its keys: {', '.join(_KEYS)}"))
            self.problems.raise_any()
            raise AssertionError("the fault above was raised")
        self._keys(value, _KEYS)
        parameters = self._parameters(value)
        template = self._text(value, "instruction")
        parts = self._template(value, template, parameters)
        recipe = Recipe(
            name=self._text(value, "name") or stem,
            description=self._text(value, "description") or "",
            instruction=template,
            parameters=parameters,
            settings=self._settings(value),
            file=self.file,
            parts=parts,
        )
        self.problems.raise_any()
        return recipe

    def _tell(self, line: int | None, fault: Fault) -> None:
        self.problems.add([Problem(file=self.file, line=line, message=fault.message, remedy=fault.remedy)])

    def _keys(self, table: Table, valid: tuple[str, ...]) -> None:
        for key in table.doubled:
            self._tell(table.lines.get(key), Fault(f"the key {shown(key)} stands twice", "keep one of them"))
        for key in table:
            if key not in valid:
                self._tell(table.lines.get(key), Fault(f"unknown key {shown(key)}", nearest(key, valid)))

    def _text(self, table: Table, key: str) -> str | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self._tell(table.lines.get(key), Fault(f"{key} must be text that is not empty, not {shown(value)}"))
            return None
        return value

    def _inner(self, table: Table, key: str) -> Table:
        value = table.get(key)
        if isinstance(value, Table):
            return value
        if value is not None:
            self._tell(table.lines.get(key), Fault(f"{key} must be a mapping, not {shown(value)}"))
        return Table()

    def _settings(self, table: Table) -> Settings:
        inner = self._inner(table, "settings")
        checked, _, faults = Schema(SETTINGS_KEYS).read(Defaults, inner)
        for fault in faults:
            self._tell(inner.lines.get(fault.key or ""), fault)
        return checked.settings() if checked is not None else Settings()

    def _parameters(self, table: Table) -> dict[str, Parameter]:
        inner = self._inner(table, "parameters")
        for name in inner.doubled:
            self._tell(inner.lines.get(name), Fault(f"the parameter {shown(name)} stands twice"))
        parameters = {}
        for name, value in inner.items():
            line = inner.lines.get(name)
            if not _NAME.fullmatch(name):
                message = f"{shown(name)} cannot be a parameter's name"
                self._tell(line, Fault(message, "letters, digits, _ and - can be in it"))
            elif name in _TAKEN:
                self._tell(line, Fault(f"a parameter cannot be named '{name}'", "that is a key of manifests"))
            elif value is not None and not isinstance(value, Table):
                keys = ", ".join(_PARAMETER_KEYS)
                self._tell(line, Fault(f"a parameter is a mapping, not {shown(value)}", f"its keys: {keys}"))
            parameters[name] = self._parameter(name, value if isinstance(value, Table) else Table())
        return parameters

    def _parameter(self, name: str, table: Table) -> Parameter:
        self._keys(table, _PARAMETER_KEYS)
        default = self._value(table, "default", table.get("default"))
        held = table.get("choices")
        choices: tuple[str, ...] = ()
        if isinstance(held, list) and held:
            made = [self._value(table, "choices", choice) for choice in held]
            choices = tuple(choice for choice in made if choice is not None)
        elif held is not None:
            self._tell(table.lines.get("choices"), Fault(f"choices must be a list, not {shown(held)}"))
        if default is not None and choices and default not in choices:
            message = f"the default of '{name}' must be {_one_of(choices)}, not {shown(default)}"
            self._tell(table.lines.get("default"), Fault(message, nearest(default, choices)))
        return Parameter(description=self._text(table, "description") or "", default=default, choices=choices)

    def _value(self, table: Table, key: str, value: object) -> str | None:
        text = parameter_text(value)
        if text is None and (value is not None or key == "choices"):
            fault = Fault(f"{key} must be text or a number, not {shown(value)}", "write it in quotes")
            self._tell(table.lines.get(key), fault)
        return text

    def _template(
        self, table: Table, template: str | None, parameters: Mapping[str, Parameter]
    ) -> tuple[tuple[str, str | None], ...]:
        line = table.lines.get("instruction")
        parts: list[tuple[str, str | None]] = []
        try:
            for literal, place, spec, conversion in string.Formatter().parse(template or ""):
                if place is not None and (spec or conversion or not _NAME.fullmatch(place)):
                    written = place + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                    message = f"the place {shown('{' + written + '}')} is refused"
                    self._tell(line, Fault(message, "a place is {name}; braces are written {{ and }}"))
                elif place is not None and place != OWN_TEXT and place not in parameters:
                    near = nearest(place, [*parameters, OWN_TEXT])
                    self._tell(line, Fault(f"the instruction names an unknown parameter '{place}'", near))
                parts.append((literal, place))
        except ValueError as error:
            message = f"the braces of the instruction do not match: {error}"
            self._tell(line, Fault(message, "a place is {name}; braces are written {{ and }}"))
            return ()
        used = {place for _, place in parts}
        inner = self._inner(table, "parameters") if isinstance(table.get("parameters"), Table) else Table()
        for name in parameters:
            if name not in used:
                message = f"the parameter '{name}' is not in the instruction"
                self._tell(inner.lines.get(name), Fault(message, f"write {{{name}}} where it belongs"))
        return tuple(parts)


def _one_of(choices: Iterable[str]) -> str:
    return "one of " + ", ".join(f"'{choice}'" for choice in choices)
