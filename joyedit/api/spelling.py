"""Messages that name flags of the command, with the keywords of Python in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import get_type_hints

from joyedit.errors import JoyeditError, ManifestError
from joyedit.options import RunOptions, names_of, option_of

_OTHERWISE = {"values": "recipe_values", "no_page": "page=False"}
_IS_ON = re.compile(r"(=True)(?= must be True or False)")
"""A message about the value itself needs the bare name."""
_FLAG = re.compile(r"(?<![\w./-])--?[a-z][a-z-]*(?![\w./-])")


def in_python(text: str) -> str:
    """`text` with `skip_missing=True` in place of `--skip-missing`, and `steps` in place of `--steps`."""
    known = _keywords()
    return _IS_ON.sub("", _FLAG.sub(lambda found: known.get(found[0], found[0]), text))


@contextmanager
def spelled_for_python() -> Iterator[None]:
    """A block whose errors speak of keywords."""
    try:
        yield
    except JoyeditError as error:
        raise respelled(error) from error.__cause__


def respelled(error: JoyeditError) -> JoyeditError:
    """The same error, which speaks of keywords."""
    if isinstance(error, ManifestError):
        error.problems = tuple(
            replace(one, message=in_python(one.message), remedy=in_python(one.remedy)) for one in error.problems
        )
    error.args = tuple(in_python(one) if isinstance(one, str) else one for one in error.args)
    return error


@lru_cache
def _keywords() -> dict[str, str]:
    """By each spelling of a flag its keyword. One that is on or off gets its value."""
    hints = get_type_hints(RunOptions)
    made: dict[str, str] = {}
    for name in names_of(RunOptions):
        shown = _OTHERWISE.get(name, f"{name}=True" if hints[name] is bool else name)
        made |= {flag: shown for flag in option_of(RunOptions, name).flags if flag.startswith("-")}
    return made
