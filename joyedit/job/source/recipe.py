"""A recipe: settings, and an instruction with `{named}` places that parameters fill.

A place is `{name}` and nothing else; `{{` and `}}` are braces. `{instruction}` takes the item's own text.
joyedit never reads a filled-in value again, so a value may contain braces. `recipe_reader.py` reads recipes
from files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from joyedit.errors import ManifestError, Problem
from joyedit.job.source.loras import LoraWish
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.parameter import BOX, Parameter
from joyedit.job.source.problems import nearest, shown
from joyedit.job.spec import Settings

OWN_TEXT = "instruction"
"""The place in a template that takes the item's own instruction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A recipe as read from `file`.

    `parts` is its template in pieces: (literal text, place or None). `matrix` multiplies every item. The paths of
    `lora` are relative to the folder of the file.
    """

    name: str
    description: str = ""
    instruction: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    matrix: Matrix = field(default_factory=Matrix)
    lora: tuple[LoraWish, ...] | None = None
    file: str = ""
    parts: tuple[tuple[str, str | None], ...] = ()

    @property
    def takes_box(self) -> bool:
        """Whether a red box is drawn on the picture."""
        return BOX in self.parameters

    @property
    def takes_own_text(self) -> bool:
        """Whether the template has a place for the item's own instruction."""
        return any(place == OWN_TEXT for _, place in self.parts)

    def unknown_problems(self, names: Iterable[str]) -> list[Problem]:
        """One problem for each name that is no parameter of this recipe."""
        return [
            Problem(
                f"the recipe '{self.name}' has no parameter {shown(name)}",
                nearest(name, self.parameters) or "it has no parameters",
                key=name,
            )
            for name in names
            if name not in self.parameters
        ]

    def value_problems(self, values: Mapping[str, str]) -> list[Problem]:
        """One problem for each value that its parameter cannot have."""
        found = [self.parameters[name].problem(name, text) for name, text in values.items() if name in self.parameters]
        return [problem for problem in found if problem is not None]

    def missing_problems(self, values: Mapping[str, str], own: str | None) -> list[Problem]:
        """One problem for each place of the template that nothing fills."""
        problems = []
        for place in dict.fromkeys(place for _, place in self.parts if place is not None):
            if place == OWN_TEXT:
                if own is None:
                    message = f"the recipe '{self.name}' needs an instruction from each item"
                    problems.append(Problem(message, "give it with -p, or as 'instruction'"))
            elif place not in values and self.parameters[place].default is None:
                problems.append(self._needs(place))
        if self.takes_box and BOX not in values and self.parameters[BOX].default is None:
            problems.append(self._needs(BOX))
        return problems

    def _needs(self, name: str) -> Problem:
        message = f"the recipe '{self.name}' needs a value for '{name}'"
        return Problem(message, f"give it with --set {name}=..., or as a key of the item")

    def render(self, values: Mapping[str, str], instruction: str | None) -> str:
        """The finished instruction; `instruction` is the item's own text, and the result if there is no template.

        Raises ManifestError for an unknown or missing parameter and for a value that is no choice.
        """
        problems = self.unknown_problems(values) + self.value_problems(values)
        problems += self.missing_problems(values, instruction)
        if self.instruction is None and instruction is None:
            problems.append(Problem(f"the recipe '{self.name}' has no instruction, and none was given"))
        if problems:
            raise ManifestError(problem.at(self.file or self.name) for problem in problems)
        return self.fill(values, instruction)

    def fill(self, values: Mapping[str, str], own: str | None) -> str:
        """As `render`, for values that are already checked."""
        if self.instruction is None:
            return own or ""
        made = []
        for literal, place in self.parts:
            made.append(literal)
            if place == OWN_TEXT:
                made.append(own or "")
            elif place is not None:
                parameter = self.parameters[place]
                made.append(parameter.put(values.get(place, parameter.default or "")))
        return "".join(made)
