"""The keys that a manifest, its `defaults:` and a recipe's `settings:` may have, and their values.

Here pydantic checks what users write: behind this border every value has the right type and is in range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from joyedit.errors import Problem
from joyedit.job.source.problems import FewProblems, Table, nearest, repeated_key, shown
from joyedit.job.spec import BASE_SIZES, MAX_GUIDANCE, MAX_STEPS, Settings

ALIASES: Mapping[str, str] = {
    "prompt": "instruction",
    "edit_prompt": "instruction",
    "file_name": "image",
    "input_image": "image",
    "source": "image",
}
"""Names that users know from other tools -> joyedit's keys."""

ITEM_KEYS = (
    "image", "images", "instruction", "id", "negative_prompt", "seed",
    "steps", "guidance_scale", "basesize", "width", "height", "output",
)  # fmt: skip
SETTINGS_KEYS = (*Settings.__slots__,)
DEFAULTS_KEYS = ("instruction", *SETTINGS_KEYS)

MAX_IMAGES = 64
"""The most references of one item."""

_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
_Filled = Annotated[str, StringConstraints(pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
_Side = Annotated[int, Field(ge=16, le=16384)]

RULES: Mapping[str, str] = {
    "image": "the path of one picture",
    "images": "a list of paths",
    "instruction": "text that is not empty",
    "id": "text",
    "negative_prompt": "text",
    "seed": "a whole number from 0 to 18446744073709551615",
    "steps": f"a whole number from 1 to {MAX_STEPS}",
    "guidance_scale": f"a number from 0 to {MAX_GUIDANCE}",
    "basesize": "one of " + ", ".join(str(size) for size in BASE_SIZES),
    "width": "a whole number from 16 to 16384",
    "height": "a whole number from 16 to 16384",
    "output": "text",
}
"""What each key must be, in the words of the messages. The models below check the same rules."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    instruction: _Filled | None = None
    negative_prompt: _Text | None = None
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] | None = None
    basesize: int | None = None
    width: _Side | None = None
    height: _Side | None = None


class Line(_Strict):
    """One item of a manifest. None stands for a key that is not given."""

    image: _Filled | None = None
    images: list[_Filled] | None = None
    id: str | None = None
    output: str | None = None


class Defaults(_Strict):
    """The `defaults:` of a YAML manifest, or the `settings:` of a recipe (those have no instruction)."""

    def settings(self) -> Settings:
        """The same settings as a plain record."""
        return Settings(**{key: getattr(self, key) for key in SETTINGS_KEYS})


Model = TypeVar("Model", Line, Defaults)


class Schema:
    """The keys that one kind of table may have: joyedit's own, their aliases, and the parameters of a recipe."""

    def __init__(self, keys: Iterable[str], parameters: Iterable[str] = ()) -> None:
        self.keys = tuple(keys)
        self.parameters = frozenset(parameters)
        self._names = {key: key for key in (*self.keys, *sorted(self.parameters))}
        self._names |= {alias: name for alias, name in ALIASES.items() if name in self.keys}

    def key(self, written: str) -> str | None:
        """The key that `written` stands for; None if it is unknown."""
        return self._names.get(written)

    def unknown(self, written: str) -> Problem:
        """The problem of a key that this table cannot hold."""
        return Problem(f"unknown key {shown(written)}", nearest(written, self._names), key=written)

    @staticmethod
    def two_spellings(first: str, second: str) -> Problem:
        """The problem of a table that gives one key under two names."""
        return Problem(f"'{first}' and '{second}' mean the same key", "keep one of them", key=second)

    def read(
        self, model: type[Model], table: Mapping[str, object]
    ) -> tuple[Model | None, dict[str, str], list[Problem]]:
        """The checked fields (None if they have a problem), the values of the recipe's parameters, all problems.

        A null counts as a key that is not given.
        """
        few = FewProblems()
        fields: dict[str, object] = {}
        values: dict[str, str] = {}
        written: dict[str, str] = {}
        for name in table.doubled if isinstance(table, Table) else ():
            few.add(partial(repeated_key, name))
        for name, value in table.items():
            key = self._names.get(name)
            if key is None:
                few.add(partial(self.unknown, name))
                continue
            if key in written:
                few.add(partial(self.two_spellings, written[key], name))
                continue
            written[key] = name
            if value is None:
                continue
            if key in self.parameters:
                text = parameter_text(value)
                if text is None:
                    few.add(partial(_no_text, name, value))
                else:
                    values[key] = text
            elif key == "images" and isinstance(value, list) and len(value) > MAX_IMAGES:
                few.add(partial(Problem, f"{name} has {len(value)} paths, and {MAX_IMAGES} are the most", key=name))
            else:
                fields[key] = value
        checked, more = _check(model, fields, written)
        return checked, values, few.take() + more


def _no_text(name: str, value: object) -> Problem:
    return Problem(f"{name} must be text or a number, not {shown(value)}", "write it in quotes", key=name)


def _check(
    model: type[Model], fields: dict[str, object], written: Mapping[str, str]
) -> tuple[Model | None, list[Problem]]:
    try:
        checked = model.model_validate(fields)
    except ValidationError as error:
        problems: dict[str, Problem] = {}
        for detail in error.errors(include_url=False, include_context=False):
            key = str(detail["loc"][0])
            name = written.get(key, key)
            message = f"{name} must be {RULES[key]}, not {shown(detail['input'])}"
            message += " in the list" if len(detail["loc"]) > 1 else ""
            problems.setdefault(key, Problem(message, _remedy(key, fields[key]), key=name))
        return None, list(problems.values())
    if checked.basesize is not None and checked.basesize not in BASE_SIZES:
        message = f"{written.get('basesize', 'basesize')} must be {RULES['basesize']}, not {checked.basesize}"
        return None, [Problem(message, key="basesize")]
    return checked, []


def _remedy(key: str, value: object) -> str:
    if key == "image" and isinstance(value, list):
        return "write several pictures under 'images'"
    if key == "images" and isinstance(value, str):
        return "write one picture under 'image'"
    if key in ("id", "output") and isinstance(value, (int, float)):
        return "write it in quotes"
    return ""


def parameter_text(value: object) -> str | None:
    """A recipe's value as text; None if it is neither text nor a plain number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else None
    if isinstance(value, float):
        return repr(value) if value - value == 0 else None
    if isinstance(value, str) and value.strip() and "\0" not in value and not _SURROGATE.search(value):
        return value
    return None


_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBERS = ("seed", "steps", "basesize", "width", "height")


def from_cell(key: str, cell: str) -> object:
    """The value of a CSV cell for `key`: a number, a list of paths, or the text itself; None if empty.

    Text that should be a number and is none stays text; the check of its type reports it.
    """
    if cell == "":
        return None
    if key in _NUMBERS and _WHOLE.fullmatch(cell.strip()):
        return int(cell)
    if key == "guidance_scale":
        try:
            return float(cell)
        except ValueError:
            return cell
    if key == "images":
        if cell.lstrip().startswith("["):
            try:
                return json.loads(cell)
            except (ValueError, RecursionError):
                return cell
        return [path.strip() for path in cell.split(";")]
    return cell
