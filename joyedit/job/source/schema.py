"""The keys that a manifest, its `defaults:` and a recipe's `settings:` may have, and their values.

Here pydantic checks what users write: behind this border every value has the right type and is in range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from joyedit.errors import Problem
from joyedit.job.boxes import RULE as BOX_RULE
from joyedit.job.boxes import box_text, read_box
from joyedit.job.fit import SIZE_RULE, parse_size
from joyedit.job.sizes import MAX_SIDE, FitName
from joyedit.job.source.columns import ALL, Columns, as_value
from joyedit.job.source.data_uris import is_data
from joyedit.job.source.loras import MOST_SCALE, RULE
from joyedit.job.source.matrix_cells import LINE_MATRIX, from_matrix_cell
from joyedit.job.source.parameter import Kind
from joyedit.job.source.problems import FewProblems, Table, nearest, repeated_key, shown
from joyedit.job.spec import BASE_SIZES, MAX_GUIDANCE, MAX_STEPS, Settings
from joyedit.job.turns import MOST_TURNS

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
    "steps", "guidance_scale", "basesize", "width", "height", "size", "fit", "output", "lora", "box",
    "mask", *LINE_MATRIX, "turns",
)  # fmt: skip
SETTINGS_KEYS = (*Settings.__slots__,)
RECIPE_KEYS = (*SETTINGS_KEYS, "lora")
DEFAULTS_KEYS = ("instruction", *RECIPE_KEYS)

PICTURE_KEYS = ("image", "images")
INPUT_KEYS = (*PICTURE_KEYS, "mask")
"""The keys whose values are paths of pictures, or pictures themselves."""
WHOLE_KEYS = frozenset(("seed", "steps", "basesize", "width", "height"))

MAX_IMAGES = 64
"""The most references of one item."""

_Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
_Filled = Annotated[str, StringConstraints(pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
_Side = Annotated[int, Field(ge=16, le=MAX_SIDE)]
_Size = Annotated[
    str,
    AfterValidator(lambda text: str(parse_size(text))),
    Field(json_schema_extra={"pattern": "^(input|bucket|[0-9]{2,5}[xX][0-9]{2,5}|long=[0-9]{2,5})$"}),
]

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
    "width": f"a whole number from 16 to {MAX_SIDE}",
    "height": f"a whole number from 16 to {MAX_SIDE}",
    "size": SIZE_RULE,
    "fit": "auto, crop, pad or stretch",
    "output": "text",
    "lora": RULE,
    "box": BOX_RULE,
    "mask": "the path of one picture",
    "turns": f"a list of 1 to {MOST_TURNS} instructions",
}
"""What each key must be, in the words of the messages. The models below check the same rules."""


class LoraEntry(BaseModel):
    """A LoRA as an object: a path as it is, and a scale."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    file: _Filled
    scale: Annotated[float, Field(ge=-MOST_SCALE, le=MOST_SCALE)] = 1.0


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
    size: _Size | None = None
    fit: FitName | None = None
    lora: _Filled | LoraEntry | list[_Filled | LoraEntry] | None = None


class Line(_Strict):
    """One item of a manifest. None stands for a key that is not given."""

    image: _Filled | None = None
    images: list[_Filled] | None = None
    id: str | None = None
    output: str | None = None
    box: list[float] | str | None = None
    mask: _Filled | None = None
    seeds: Any = None  # these two are checked in `line_matrix.py`
    sweep: Any = None
    turns: Annotated[list[_Filled], Field(min_length=1, max_length=MOST_TURNS)] | None = None


class Defaults(_Strict):
    """The `defaults:` of a YAML manifest, or the `settings:` of a recipe (those have no instruction)."""

    def settings(self) -> Settings:
        """The same settings as a plain record."""
        return Settings(**{key: getattr(self, key) for key in SETTINGS_KEYS})


Model = TypeVar("Model", Line, Defaults)


class Schema:
    """The keys that one kind of table may have: joyedit's own, their aliases, and the parameters of a recipe.

    `parameters` has the kind of each parameter; None for one that takes any value.
    `columns` is what the user says about the names in a file. With `is_item` messages name the flags for that.
    `unmet` are the names that the user maps or keeps and that no table had so far.
    """

    def __init__(
        self,
        keys: Iterable[str],
        parameters: Mapping[str, Kind | None] | None = None,
        columns: Columns | None = None,
        *,
        is_item: bool = False,
    ) -> None:
        self.keys = tuple(keys)
        self.parameters = parameters or {}
        self._is_item = is_item
        self._columns = columns or Columns()
        self._names = {key: key for key in (*self.keys, *sorted(self.parameters))}
        self._names |= {alias: name for alias, name in ALIASES.items() if name in self.keys}
        known = dict(self._names)
        for column, key in self._columns.mapped.items():
            if key in known:
                self._names[column] = known[key]
        for column in self._columns.ignored:
            self._names.pop(column, None)
        self.unmet = {*self._columns.mapped, *self._columns.kept} - {ALL}
        self.keeps_any = bool(self._columns.kept)
        self.mapped_pictures = [name for name in self._columns.mapped if self.key(name) in PICTURE_KEYS]

    def key(self, written: str) -> str | None:
        """The key that `written` stands for; None if it is unknown, or ignored."""
        return self._names.get(written)

    def keeps(self, written: str) -> bool:
        """Whether this column goes into the record."""
        kept = self._columns.kept
        return written in kept or (ALL in kept and written not in self._names)

    def passes_over(self, written: str) -> bool:
        """Whether nobody needs this column, and the user said so."""
        if written in self._names or self.keeps(written):
            return False
        ignored = self._columns.ignored
        return ALL in ignored or written in ignored

    def is_unknown(self, written: str) -> bool:
        """Whether this column is no key, and the user says nothing about it."""
        return written not in self._names and not self.keeps(written) and not self.passes_over(written)

    def unknown(self, written: str) -> Problem:
        """The problem of a key that this table cannot hold."""
        remedy = nearest(written, self._names)
        if self._is_item:
            name, key = as_value(written), "KEY"
            if remedy.startswith("did you"):
                key = self._names.get(remedy.split("'")[1], key)
            remedy += f"; or --map {key}={name}, or --ignore-columns {name}"
        return Problem(f"unknown key {shown(written)}", remedy, key=written, once=f"unknown {written}"[:1000])

    def wrong_map(self) -> list[str]:
        """What is wrong with the keys that the user maps columns to."""
        known = Schema(self.keys, self.parameters)
        wrong = sorted({key for key in self._columns.mapped.values() if known.key(key) is None})
        return [f"--map: joyedit has no key {shown(key)} ({nearest(key, known._names)})" for key in wrong]

    def two_spellings(self, first: str, second: str) -> Problem:
        """The problem of a table that gives one key under two names."""
        message = f"'{first}' and '{second}' mean the same key"
        if (first in self._columns.mapped) == (second in self._columns.mapped):
            return Problem(message, "keep one of them", key=second)
        mapped, other = (first, second) if first in self._columns.mapped else (second, first)
        return Problem(message, f"--ignore-columns {as_value(other)} reads {shown(mapped)} alone", key=mapped)

    def read(
        self, model: type[Model], table: Mapping[str, object]
    ) -> tuple[Model | None, dict[str, str], list[Problem]]:
        """The checked fields (None if they have a problem), the values of the recipe's parameters, all problems.

        A null counts as a key that is not given.
        """
        few = FewProblems()
        unknown: FewProblems | None = None
        fields: dict[str, object] = {}
        values: dict[str, str] = {}
        written: dict[str, str] = {}
        for name in table.doubled if isinstance(table, Table) else ():
            few.add(partial(repeated_key, name))
        if self.unmet:
            self.unmet.difference_update(table)
        for name, value in table.items():
            key = self._names.get(name)
            if key is None:
                if self.is_unknown(name):
                    unknown = unknown or FewProblems()
                    unknown.add(partial(self.unknown, name))
                continue
            if key in written:
                few.add(partial(self.two_spellings, written[key], name))
                continue
            written[key] = name
            if value is None:
                continue
            if key in self.parameters:
                text = parameter_text(value, self.parameters[key])
                if text is None:
                    few.add(partial(_no_text, name, value))
                else:
                    values[key] = text
            elif key == "images" and isinstance(value, list) and len(value) > MAX_IMAGES:
                few.add(partial(Problem, f"{name} has {len(value)} paths, and {MAX_IMAGES} are the most", key=name))
            elif type(value) is float and key in WHOLE_KEYS and _is_whole(value):
                fields[key] = int(value)  # tools that know only one kind of number write 7.0
            else:
                fields[key] = value
        checked, more = _check(model, fields, written)
        told = few.take()
        return checked, values, (told if unknown is None else told + unknown.take()) + more


def _is_whole(value: float) -> bool:
    return value.is_integer() and abs(value) < 2**53


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
            if isinstance(detail["input"], str) and _SURROGATE.search(detail["input"]):
                message = f"{name} is not valid Unicode: {shown(detail['input'])}"
            problems.setdefault(key, Problem(message, _remedy(key, fields[key]), key=name))
        return None, list(problems.values())
    if checked.basesize is not None and checked.basesize not in BASE_SIZES:
        message = f"{written.get('basesize', 'basesize')} must be {RULES['basesize']}, not {checked.basesize}"
        return None, [Problem(message, key="basesize")]
    box = getattr(checked, "box", None)
    if box is not None and read_box(box) is None:
        name = written.get("box", "box")
        message = f"{name} must be {RULES['box']}, not {shown(box if isinstance(box, str) else str(box))}"
        return None, [Problem(message, "left is less than right, top is less than bottom", key=name)]
    return checked, []


def _remedy(key: str, value: object) -> str:
    if key == "image" and isinstance(value, list):
        return "write several pictures under 'images'"
    if key == "images" and isinstance(value, str):
        return "write one picture under 'image'"
    if key in ("id", "output") and isinstance(value, (int, float)):
        return "write it in quotes"
    if key in (*WHOLE_KEYS, "guidance_scale") and isinstance(value, str):
        plain = _DECIMAL.fullmatch(value)
        if plain is None:
            return "write it in plain digits" if any(char.isdigit() for char in value[:50]) else ""
        return "write it without quotes" if key not in WHOLE_KEYS or not plain[1] else ""
    return ""


def parameter_text(value: object, kind: Kind | None = "text") -> str | None:
    """A recipe's value as text; None if it is neither text nor a plain number.

    A boolean may be true or false, and a box a list of numbers; so may a value of a `kind` that is not known.
    """
    if isinstance(value, bool):
        return str(value).lower() if kind in ("boolean", None) else None
    if isinstance(value, list) and kind in ("box", None):
        box = read_box(value)
        return None if box is None else box_text(box)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else None
    if isinstance(value, float):
        return repr(value) if value - value == 0 else None
    if isinstance(value, str) and value.strip() and "\0" not in value and not _SURROGATE.search(value):
        return value
    return None


_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"([+-]?[0-9]{1,20})(?:[.,]0)?")
_DECIMAL = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(\.[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[0-9]{1,3},[0-9]{1,2}")


def from_cell(key: str, cell: str) -> object:
    """The value of a CSV cell for `key`: a number, a list of paths, or the text itself; None if empty.

    Spreadsheets write 7.0 for 7, and a decimal comma in some countries. Text that should be a number and is none stays
    text; the check of its type reports it.
    """
    if cell == "":
        return None
    if key in WHOLE_KEYS:
        whole = _WHOLE.fullmatch(cell.strip())
        return cell if whole is None else int(whole[1])
    if key == "guidance_scale":
        number = cell.strip()
        try:
            return float(number.replace(",", ".") if _DECIMAL_COMMA.fullmatch(number) else number)
        except ValueError:
            return cell
    if key == "lora" and cell.lstrip()[:1] not in ("[", "{"):
        return [path.strip() for path in cell.split(";")]
    if key == "box":
        return cell.strip()
    if key in LINE_MATRIX:
        return from_matrix_cell(key, cell, from_cell)
    if key == "turns" and cell.lstrip()[:1] != "[":
        return [cell]
    if key in ("images", "lora", "turns"):
        if cell.lstrip()[:1] in ("[", "{" if key == "lora" else "["):
            try:
                return json.loads(cell)
            except (ValueError, RecursionError):
                return cell
        return [path.strip() for path in _parts_of(cell)]
    return cell


def _parts_of(cell: str) -> list[str]:
    """The paths of a cell, with `;` between them. A `;` in front of the data of a `data:` URI belongs to it."""
    parts: list[str] = []
    for part in cell.split(";"):
        if parts and is_data(f"{parts[-1].lstrip()};") and "," not in parts[-1]:
            parts[-1] += f";{part}"
        else:
            parts.append(part)
    return parts
