"""Faults of the command line that typer finds, in joyedit's own words.

typer's messages come from several libraries and differ between its releases. Here are only the kinds of its errors,
the names and values that were given, and the limits in `joyedit.options`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from joyedit.options import BenchOptions, RunOptions, fault_of_text, names_of
from joyedit.printable import brief

_OPTIONS: Mapping[str, type] = {"run": RunOptions, "bench": BenchOptions}
_NEAR = 0.75
"""Names that are less alike than this are no misspellings of each other."""


def usage_fault(error: Any, argv: Sequence[str], root: Any) -> str:
    """The message of a usage error of typer. `argv` are the words after `joyedit`, `root` is the command of it all."""
    context = getattr(error, "ctx", None)
    command = next((word for word in argv if word in root.commands), None)
    path = f"joyedit {command}" if command is not None else "joyedit"
    text = _text(error, argv, root, command, context)
    return f"{text} (see {path} --help)" if "?" not in text else text


def _text(error: Any, argv: Sequence[str], root: Any, command: str | None, context: Any) -> str:
    kind = type(error).__name__
    parameter = getattr(error, "param", None)
    if kind == "NoSuchOption":
        known = root if command is None else root.commands[command]
        flags = [flag for one in known.get_params(context or known.make_context("x", [], resilient_parsing=True))
                 for flag in (*one.opts, *one.secondary_opts)]  # fmt: skip
        return f"no option is named {error.option_name}" + (_as_file(argv) or _near(error.option_name, flags))
    if kind == "BadOptionUsage":
        if "does not take" in str(error.message):
            return f"{error.option_name} takes no value"
        return f"{error.option_name} needs a value"
    if kind == "MissingParameter" and parameter is not None:
        return f"{(parameter.metavar or parameter.name).rstrip('.')} is missing"
    if kind == "BadParameter" and parameter is not None and command is not None and command in _OPTIONS:
        options = _OPTIONS[command]
        given = _given(argv, parameter.opts)
        fault = fault_of_text(options, parameter.name, given) if parameter.name in names_of(options) else ""
        if fault:
            return fault
    if command is None and argv and kind == "UsageError":
        word = next((word for word in argv if not word.startswith("-")), argv[0])
        return f"no command is named {word!r}" + _near(word, root.commands, cutoff=0.6)
    text = str(error.format_message()).rstrip(".").replace("Value error, ", "")
    extra = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", text)
    if extra is not None:
        return f"too many arguments: {extra[1]}"
    return text[:1].lower() + text[1:]


def _as_file(argv: Sequence[str]) -> str:
    """How to name the file that was meant, where a word that begins with a dash is the name of one."""
    found = next((word for word in argv if len(word) > 1 and word[0] == "-" and os.path.lexists(word)), None)
    return "" if found is None else f" (the file of this name is ./{brief(found)})"


def _near(name: str, known: Iterable[str], cutoff: float = _NEAR) -> str:
    """What may have been meant; an empty text if no known name is nearly the same."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)
    return f" (did you mean {found[0]}?)" if found else ""


def _given(argv: Sequence[str], flags: Sequence[str]) -> str:
    """The last value that was given to one of these flags."""
    value = ""
    for place, word in enumerate(argv):
        name, sign, rest = word.partition("=")
        if name in flags:
            value = rest if sign else next(iter(argv[place + 1 :]), "")
        elif word[:2] in flags and not word.startswith("--"):  # -mnano
            value = word[2:]
    return value
