"""The option classes become parameters of typer commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from joyedit.errors import UsageError
from joyedit.options import RunOptions, names_of, option_of

T = TypeVar("T")


def takes_options(
    options: type[T], **arguments: Any
) -> Callable[[Callable[[typer.Context, T], None]], Callable[..., None]]:
    """Turn `command(ctx, options)` into a function with one parameter for each option, which typer reads.

    `arguments` are typer's descriptions of fields that are no options: positional arguments of the command.
    """
    hints = get_type_hints(options)

    def decorate(command: Callable[[typer.Context, T], None]) -> Callable[..., None]:
        def with_parameters(ctx: typer.Context, **given: Any) -> None:
            values = {name: tuple(value or ()) if _is_tuple(hints[name]) else value for name, value in given.items()}
            command(ctx, options(**values))

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
        for name, described in arguments.items():
            taken: Any = list[str] if _is_tuple(hints[name]) else hints[name]
            parameters.append(inspect.Parameter(name, keyword, annotation=Annotated[taken, described]))
        defaults: dict[str, Any] = {one.name: one.default for one in fields(options)}  # type: ignore[arg-type]
        for name in names_of(options):
            kind: Any = list[str] if _is_tuple(hints[name]) else hints[name]
            default: Any = list(defaults[name]) if _is_tuple(hints[name]) else defaults[name]
            annotation = Annotated[kind, _typer_option(options, name)]
            parameters.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))
        with_parameters.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_parameters.__annotations__ = {one.name: one.annotation for one in parameters}
        with_parameters.__doc__ = command.__doc__
        with_parameters.__name__ = command.__name__
        return with_parameters

    return decorate


class WithBareFlags(TyperCommand):
    """A command with options whose value may be left out: `--json` and `--json=all`. typer itself knows none."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Give the bare flags their values, then parse. Raises UsageError for an empty name of a file or folder."""
        words = list(self._with_values(ctx, args))
        rest = super().parse_args(ctx, list(words))
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(words))  # a Path no longer tells "" from "."
        empty = [name for name in _NAMED if typed.get(name) == ""]
        faults = [f"{option_of(RunOptions, name).name} is empty ({_NAMED[name]})" for name in empty]
        if faults:
            raise UsageError("\n".join(faults))
        return rest

    def _with_values(self, ctx: Any, args: list[str]) -> Iterator[str]:
        words = iter(args)
        takes_value = {
            flag for one in self.get_params(ctx) if not getattr(one, "is_flag", True) for flag in one.opts
        } - BARE.keys()
        for word in words:
            yield f"{word}={BARE[word]}" if word in BARE else word
            if word == "--":
                yield from words
            elif word in takes_value:
                yield from islice(words, 1)


BARE = {
    flag: known.bare
    for known in (option_of(RunOptions, name) for name in names_of(RunOptions))
    if known.bare is not None
    for flag in known.flags
}
"""The flags that may stand without a value -> the value that they have then."""


_NAMED = {
    "output": "name a folder; . is the current one",
    "model": "name a folder, a hub id, or nano",
    "metrics": "name a file",
}
"""Options that an unset variable of a shell (`-o "$OUT"`) must not turn into the current folder -> the remedy."""


def _is_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _typer_option(options: type, name: str) -> Any:
    known = option_of(options, name)
    return typer.Option(
        *known.flags,
        help=known.help,
        metavar=known.metavar,
        min=known.least,
        max=known.most,
        envvar=known.envvar,
        show_default=known.show_default,
        case_sensitive=not known.any_case,
    )
