"""Gives a function with `**options: Unpack[...]` the signature and the help that a notebook shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from joyedit.options import RunOptions, names_of, option_of

Function = TypeVar("Function", bound=Callable[..., Any])


def shows(keywords: type, *, hidden: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """A decorator: each key of the TypedDict `keywords` becomes a keyword of the signature that is shown.

    Defaults and help are those of the options of the command with the same names. `hidden` are old spellings.
    """

    def decorate(function: Function) -> Function:
        known = {one.name: one.default for one in fields(RunOptions)}
        own = inspect.signature(function)
        kept = [_resolved(one, function) for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=known.get(name), annotation=hint)
            for name, hint in get_type_hints(keywords).items()
            if name not in hidden
        ]
        setattr(function, "__signature__", own.replace(parameters=[*kept, *more]))  # noqa: B010 (mypy knows no such name)
        function.__doc__ = f"{inspect.getdoc(function)}\n\n{_help_of(get_type_hints(keywords))}"
        return function

    return decorate


def _resolved(parameter: inspect.Parameter, function: Callable[..., Any]) -> inspect.Parameter:
    """The parameter with its type in place of the text of it."""
    hint = parameter.annotation
    if not isinstance(hint, str):
        return parameter
    names = {"hint": hint}
    holder = type("Holder", (), {"__annotations__": names})
    return parameter.replace(annotation=get_type_hints(holder, function.__globals__)["hint"])


def _help_of(keywords: Mapping[str, Any]) -> str:
    """One line for each keyword that is an option of the command."""
    options = set(names_of(RunOptions))
    told = [f"    {name}: {option_of(RunOptions, name).help}" for name in keywords if name in options]
    return "\n".join(["Keywords:", *told])
