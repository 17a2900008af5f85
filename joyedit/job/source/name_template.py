"""`--name`: a template for the names of the edited pictures, such as `{stem}_{recipe}_{seed}`.

A place is `{field}`, or for a number `{seed:04}`; `{{` and `}}` are braces. The fields are a checked list, and nothing
but their values is ever put in: no attributes, no indexes, no conversions.
"""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from joyedit.errors import UsageError
from joyedit.job.source.names import EXTENSIONS, name_problem
from joyedit.job.source.problems import nearest, shown
from joyedit.printable import brief

TEXTS = ("stem", "folder", "id", "recipe")
NUMBERS = ("index", "line", "seed", "steps", "guidance_scale", "basesize")
FIELDS = (*TEXTS, *NUMBERS)
"""The fields of joyedit; the parameters of the recipe and the columns that are kept come to these."""

UNIQUE = frozenset(("id", "index"))
"""Each of these alone tells all items of a run apart."""

_MOST = 1000
_SPEC = re.compile(r"0[1-9][0-9]?(?:\.[0-9]f)?|\.[0-9]f")
_MADE_SAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:<>"|?*\u2028\u2029\ud800-\udfff]')
_MOST_VALUE = 80
"""So many characters of a value become part of a name."""


class Part(NamedTuple):
    """A text, and the field behind it with its format; both empty at the end."""

    literal: str
    field: str = ""
    spec: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class NameTemplate:
    """A checked template. `text` is how it was written."""

    text: str
    parts: tuple[Part, ...]

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it names."""
        return frozenset(part.field for part in self.parts if part.field)

    def fill(self, facts: Mapping[str, object]) -> str:
        """The name, without an ending. `facts` has each field that the template names; no fact has a `/` but
        `folder` and `id`. Empty folders leave no slash behind.
        """
        made = []
        for literal, field, spec in self.parts:
            made.append(literal)
            if field:
                value = facts[field]
                if field in NUMBERS:
                    made.append(format(value, spec) if spec else _plain(value))
                else:
                    made.append(str(value) if field in ("folder", "id") else _as_part(str(value)))
        return re.sub("/{2,}", "/", "".join(made)).removeprefix("/")


BY_ID = NameTemplate(text="{id}", parts=(Part("", "id"),))
"""What names the pictures as they are named without a template."""


def _plain(number: object) -> str:
    return f"{number:.12g}" if isinstance(number, float) else str(number)


def _as_part(value: str) -> str:
    """A value as a part of a name: it makes no folder, and has no character that a file system refuses."""
    return _MADE_SAFE.sub("_", value)[:_MOST_VALUE].strip()


def read_template(text: str, *, format: str, recipe: Collection[str] | None, columns: Iterable[str]) -> NameTemplate:
    """The template that `text` is. Raises UsageError with every fault of it.

    `recipe` are the parameters of the recipe (None: there is no recipe), `columns` the names of the columns that
    are kept. A picture's ending behind the template must fit `format`, and is left out.
    """
    known = [name for name in FIELDS if name != "recipe" or recipe is not None]
    known += [name for name in (*(recipe or ()), *columns) if name not in FIELDS]
    faults: list[str] = []
    if not text.strip() or len(text) > _MOST or "\0" in text:
        raise UsageError(f"--name {shown(text)} is no template (for example {{stem}}_{{seed}})")
    parts: list[Part] = []
    try:
        for literal, field, spec, conversion in string.Formatter().parse(_without_ending(text, format, faults)):
            parts.append(Part(literal, field or "", spec or ""))
            if field is not None:
                faults += _faults(field, spec or "", conversion, known, has_recipe=recipe is not None)
    except ValueError as error:
        faults.append(
            f"--name: the braces do not match: {error} (a place is {{stem}}; braces are written {{{{ and }}}})"
        )
    if not faults and not any(part.field for part in parts):
        faults.append("--name has no field, so all pictures would have one name (for example {stem}_{seed})")
    reason = name_problem("x".join([*(part.literal for part in parts), ""]).strip("/") or "x")
    if reason is not None and not faults:
        faults.append(f"--name {shown(text)}: the name {reason}")
    if faults:
        raise UsageError("\n".join(faults))
    return NameTemplate(text=text, parts=tuple(parts))


def _faults(field: str, spec: str, conversion: str | None, known: list[str], *, has_recipe: bool) -> list[str]:
    written = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
    place = f"--name: the place {{{brief(written, 60)}}}"
    if field == "recipe" and not has_recipe:
        return [f"{place} needs a recipe (give one with --recipe)"]
    if field not in known:
        near = nearest(field, known) if field else "write a name"
        near = f"{near}; " if not near.startswith("valid") else ""
        return [f"{place} is none of the fields ({near}fields: {', '.join(known)})"]
    if conversion or (spec and (field not in NUMBERS or not _SPEC.fullmatch(spec))):
        return [f"{place} takes no format like this (only numbers take one, such as {{seed:04}})"]
    return []


def _without_ending(text: str, format: str, faults: list[str]) -> str:
    """The template without a picture's ending behind it."""
    for ending_of, endings in EXTENSIONS.items():
        for ending in endings:
            if text.lower().endswith(ending):
                if ending_of != format:
                    faults.append(f"--name ends with {ending}, which does not fit --format {format}")
                return text[: -len(ending)]
    return text
