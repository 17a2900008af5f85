"""What an option is: a field of an options class that says its flags, its help and its limits."""

from __future__ import annotations

import types
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_KEY = "option"


@dataclass(frozen=True, slots=True)
class Option:
    """How an option is given on the command line, and which numbers it takes.

    `flags` are its spellings; the long one is used in messages. `least` and `most` bound a number. `bare` is the
    value of a flag that is given without one; None for a flag that always needs its value.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str | None = None
    least: int | None = None
    most: int | None = None
    envvar: str | None = None
    show_default: bool = True
    bare: str | None = None
    any_case: bool = False
    """Whether its choices may be written in capitals."""

    @property
    def name(self) -> str:
        """The long flag: `--steps`."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.metavar or "")


def option(default: Any, *flags: str, help: str, **more: Any) -> Any:
    """A field of an options class. `more` are fields of `Option`."""
    return field(default=default, metadata={_KEY: Option(flags, help, **more)})


def same_as(options: type, name: str) -> Any:
    """The option of this name of another class, for a second command."""
    known = next(one for one in fields(options) if one.name == name)
    return field(default=known.default, metadata=known.metadata)


def option_of(options: type, name: str) -> Option:
    """The `Option` of a field. Raises KeyError for a field that is none."""
    found: Option = options.__dataclass_fields__[name].metadata[_KEY]  # type: ignore[attr-defined]
    return found


def names_of(options: type) -> list[str]:
    """The names of all options of a class, in order."""
    return [one.name for one in fields(options) if _KEY in one.metadata]


def faults_of(options: Any) -> list[str]:
    """What is wrong with the values, by type, choices and limits: one sentence for each. Python gives any value."""
    hints = get_type_hints(type(options))
    faults = []
    for name in names_of(type(options)):
        fault = _fault(option_of(type(options), name), hints[name], getattr(options, name))
        if fault:
            faults.append(fault)
    return faults


def fault_of_text(options: type, name: str, text: str) -> str:
    """What is wrong with the value of an option as it was typed; an empty text if nothing is."""
    hint = get_type_hints(options)[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    value: Any = text
    for kind in (int, float):
        if kind in kinds:
            try:
                value = kind(text)
            except ValueError:
                value = text
    return _fault(option_of(options, name), hint, value)


def _fault(known: Option, hint: Any, value: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return ""
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        wanted = value.lower() if known.any_case and isinstance(value, str) else value
        return "" if wanted in choices else f"{known.name} must be {_one_of(choices)}, not {value!r}"
    if get_origin(hint) is tuple:
        return "" if isinstance(value, tuple) else f"{known.name} must be a tuple, not {value!r}"
    kinds: dict[Any, tuple[type, ...]] = {float: (int, float)}
    if not isinstance(value, kinds.get(hint, (hint,))) or (isinstance(value, bool) and hint is not bool):
        return f"{known.name} must be {_KINDS[hint]}, not {value!r}"
    if known.least is not None and value < known.least:
        return f"{known.name} must be at least {known.least}, not {value}"
    if known.most is not None and value > known.most:
        return f"{known.name} must be at most {known.most}, not {value}"
    return ""


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", Path: "a path"}


def _one_of(choices: tuple[Any, ...]) -> str:
    *most, last = map(str, choices)
    return f"{', '.join(most)} or {last}"
