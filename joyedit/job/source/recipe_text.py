"""What people read of a recipe, and the file that they fill in to write their own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joyedit.errors import UsageError, os_reason
from joyedit.job.source.matrix import Axis
from joyedit.job.source.parameter import Parameter
from joyedit.job.source.problems import shown
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.schema import SETTINGS_KEYS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

NEW = """\
# yaml-language-server: $schema=recipe.schema.json
# An editor that knows this line completes and checks the keys: joyedit schema recipe > recipe.schema.json
#
# See what it does:  joyedit recipes show {file}
#                    joyedit run photos/ --recipe {file} --set colour=blue --dry-run
name: {name}
description: Say here in one line what the recipe does.

# The instruction. A place in braces takes the value of a parameter; {{instruction}} takes the item's own text.
# A brace itself is written twice.
instruction: Paint the {{thing}} {{colour}}. Keep everything else.

# A parameter has a type: text, number, integer, choice or boolean. Without a default it must be given, with --set or
# as a key of the item.
parameters:
  thing:
    description: What to paint.
    default: house
  colour:
    description: The new colour.
    type: choice
    choices: [red, green, blue]
  # angle:
  #   description: Degrees to turn.
  #   type: number
  #   minimum: -180
  #   maximum: 180
  #   default: 0
  # shadow:
  #   description: Keep the shadow.
  #   type: boolean
  #   default: true
  #   if_true: " Keep the shadow."     # what the place takes; if_false is empty if it is not given
  # box:
  #   description: A red box that is drawn on the picture, for an instruction that speaks of "the red box".
  #   type: box

# Settings for all items. Flags and lines are stronger. Each of them may be left out.
settings:
  steps: 40
  # guidance_scale: 4.0
  # seed: 42
  # negative_prompt: blurry
  # basesize: 1024

# Several edits of each item: one for each combination of these values.
# matrix:
#   colour: [red, blue]
#   seeds: 2
"""


def write_new(name: str) -> Path:
    """Write a recipe to fill in: `paint` gives paint.yaml. Raises UsageError, also for a file that is there already."""
    given = Path(name)
    path = given if given.suffix.lower() in (".yaml", ".yml") else given.with_name(given.name + ".yaml")
    if not _NAME.fullmatch(path.stem):
        raise UsageError(f"{shown(name)} cannot be the name of a recipe (it can have letters, digits, _ and -)")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(NEW.format(name=path.stem, file=path))
    except FileExistsError:
        raise UsageError(f"{path} is there already, and is not replaced (choose another name)") from None
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot write {path}: {reason}") from error
    return path


def lines_about(recipe: Recipe, given: str, file: Path) -> Iterator[str]:
    """Everything about a recipe, for people. `given` is how its user names it, `file` where it is."""
    yield f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name
    yield f"file: {file}"
    if recipe.instruction is None:
        yield "instruction: your own"
    else:
        own = " (takes your own text)" if recipe.takes_own_text else ""
        yield f"instruction{own}:"
        yield from (f"  {line}" for line in recipe.instruction.rstrip("\n").split("\n"))
    if recipe.parameters:
        yield "parameters:"
        for name, parameter in recipe.parameters.items():
            yield f"  {name}: {_about(parameter)}, {_default(parameter, recipe.matrix.axis(name))}"
            if parameter.description:
                yield f"      {parameter.description}"
            if parameter.kind == "boolean":
                yield f"      true puts in {shown(parameter.if_true)}, false {shown(parameter.if_false)}"
    settings = [(key, getattr(recipe.settings, key)) for key in SETTINGS_KEYS]
    said = [f"{key} {shown(value)}" for key, value in settings if value is not None]
    if recipe.lora is not None:
        said.append("lora " + (", ".join(wish.file for wish in recipe.lora) or "none"))
    if said:
        yield f"settings: {', '.join(said)}"
    if recipe.matrix:
        yield f"matrix: {recipe.matrix.size} edits of each item ({recipe.matrix.text})"
    yield f"example: {_example(recipe, given)}"


def _about(parameter: Parameter) -> str:
    """`number from -180 to 180`"""
    kind = parameter.rule.removeprefix("a ").removeprefix("whole ") if not parameter.choices else parameter.rule
    if parameter.kind == "integer" and not parameter.choices:
        kind = f"whole {kind}"
    return kind


def _default(parameter: Parameter, axis: Axis | None) -> str:
    if axis is not None:
        return f"{len(axis)} values in turn"
    return "must be given" if parameter.default is None else f"default {parameter.default}"


def _example(recipe: Recipe, given: str) -> str:
    words = [f"joyedit run photos/ --recipe {given}"]
    for name, parameter in recipe.parameters.items():
        if parameter.default is None and recipe.matrix.axis(name) is None:
            words.append(f"--set {name}={_value(parameter)}")
    if recipe.instruction is None or recipe.takes_own_text:
        words.append('-p "..."')
    return " ".join([*words, "-m MODEL -o " + os.path.splitext(os.path.basename(given))[0]])


def _value(parameter: Parameter) -> str:
    if parameter.choices:
        value = parameter.choices[0]
        return json.dumps(value) if " " in value else value
    if parameter.kind in ("number", "integer"):
        return f"{parameter.minimum:g}" if parameter.minimum is not None else "1"
    return {"box": "0.1,0.2,0.5,0.6", "boolean": "true"}.get(parameter.kind, "...")


def record_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON: what its file says, with everything that it leaves open."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "instruction": recipe.instruction,
        "takes_prompt": recipe.instruction is None or recipe.takes_own_text,
        "parameters": {
            name: {
                "type": parameter.kind,
                "description": parameter.description,
                "default": parameter.default,
                "choices": list(parameter.choices),
                "minimum": parameter.minimum,
                "maximum": parameter.maximum,
            }
            for name, parameter in recipe.parameters.items()
        },
        "settings": {key: value for key in SETTINGS_KEYS if (value := getattr(recipe.settings, key)) is not None},
        "matrix": {axis.key: list(axis.values) or axis.count for axis in recipe.matrix.axes},
        "edits_of_each_item": recipe.matrix.size,
    }
