"""`--seeds`, `--sweep` and the `matrix:` of a recipe -> the axes of a matrix, with every fault told at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from joyedit.errors import Problem, UsageError
from joyedit.job.source.matrix import MOST_CELLS, SEED, SWEPT, Axis, Matrix, Value
from joyedit.job.source.matrix_cells import SEEDS
from joyedit.job.source.parameter import Parameter
from joyedit.job.source.problems import nearest, shown
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.schema import Defaults, Schema, from_cell, parameter_text
from joyedit.job.spec import Settings

Parameters = Mapping[str, Parameter]

_MANY = f"and {MOST_CELLS:,} edits of one item are the most"
_ONE_VALUE = "give several values, with commas between them, or a JSON list"


def flag_matrix(
    seeds: str | None, sweeps: Sequence[str], recipe: Recipe | None, flags: Settings, values: Mapping[str, str]
) -> Matrix:
    """The matrix of a command: its own axes over those of the recipe. Raises UsageError with every fault.

    `flags` and `values` are what the command line gives once: no axis of its own may change that, and an axis of
    the recipe gives way to it.
    """
    problems: list[Problem] = []
    axes: list[Axis] = []
    parameters = {} if recipe is None else recipe.parameters
    if seeds is not None:
        axes += _seeds_axis(seeds, flags, problems)
    for text in sweeps:
        axes += _sweep_axis(text, parameters, problems)
    said = {name for name in SWEPT if getattr(flags, name) is not None} | set(values)
    problems += _doubles(axes, said)
    lower = Matrix() if recipe is None else recipe.matrix.without(said)
    made = Matrix(axes=tuple(axes)).over(lower)
    if made.size > MOST_CELLS:
        problems.append(Problem(f"the matrix has {made.size:,} edits of each item, {_MANY}"))
    if problems:
        raise UsageError("\n".join(problem.text for problem in problems))
    return made


def _seeds_axis(text: str, flags: Settings, problems: list[Problem]) -> list[Axis]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in parts):
        message = f"--seeds is a count such as 4, or a list of seeds such as 1,2,3, not {shown(text)}"
        problems.append(Problem(message))
        return []
    if len(parts) > 1:
        if flags.seed is not None:
            problems.append(Problem("--seed and a list of --seeds exclude each other", "leave --seed out"))
            return []
        return _axis(SEED, [int(part) for part in parts], {}, "--seeds", problems)
    return _count_axis(int(parts[0]), flags.seed, "--seeds", problems)


def _count_axis(count: int, first: int | None, name: str, problems: list[Problem]) -> list[Axis]:
    if not 1 <= count <= MOST_CELLS:
        remedy = f"one seed is --seed {count}" if name.startswith("-") else "one seed is 'seed' under settings"
        remedy = "one seed is 'seed'" if name == SEEDS else remedy
        problems.append(Problem(f"{name} is from 1 to {MOST_CELLS} seeds, not {count}", remedy))
        return []
    if isinstance(first, int) and first + count > 2**64:  # Python gives any value, and the flag is checked later
        problems.append(Problem(f"{name} {count} from the seed {first} on leads beyond the largest seed"))
        return []
    return [Axis(key=SEED, count=count)]


def _sweep_axis(text: str, parameters: Parameters, problems: list[Problem]) -> list[Axis]:
    key, sign, rest = text.partition("=")
    key = key.strip()
    if not sign or not key:
        problems.append(Problem(f"--sweep takes KEY=VALUE,VALUE, for example steps=20,40, not {shown(text)}"))
        return []
    values: Any = rest.split(",")
    if rest.lstrip().startswith("["):
        try:
            values = json.loads(rest)
        except (ValueError, RecursionError):
            problems.append(Problem(f"--sweep {key}: this is no JSON list: {shown(rest)}"))
            return []
    else:
        values = [from_cell(key, value.strip()) if key in SWEPT else value.strip() for value in values]
    return _axis(key, values, parameters, "--sweep", problems)


def _axis(key: str, values: Sequence[Any], parameters: Parameters, name: str, problems: list[Problem]) -> list[Axis]:
    """The axis of these values; none, and a problem each, for values that cannot be."""
    place = name if name == f"--{SEEDS}" else f"{name} {key}"
    if key not in SWEPT and key not in parameters:
        known = [*SWEPT, *parameters]
        problems.append(Problem(f"{name} cannot change {shown(key)}", nearest(key, known)))
        return []
    kept: list[Value] = []
    before = len(problems)
    for value in values:
        checked = (
            _setting(key, value, place, problems)
            if key in SWEPT
            else _parameter(key, value, parameters[key], place, problems)
        )
        if checked is None:
            continue
        if checked in kept:
            problems.append(Problem(f"{place}: {shown(value)} is given twice", "keep one of them"))
        kept.append(checked)
    if not kept and len(problems) == before:
        problems.append(Problem(f"{place} has no values", _ONE_VALUE))
    return [] if len(problems) > before else [Axis(key=key, values=tuple(kept))]


def _setting(key: str, value: object, place: str, problems: list[Problem]) -> Value | None:
    if value is None or (value == "" and key != "negative_prompt"):
        problems.append(Problem(f"{place}: a value is empty", _ONE_VALUE))
        return None
    checked, _, faults = Schema(SWEPT).read(Defaults, {key: value})
    problems += [replace(fault, message=f"{place}: {fault.message}", key=None) for fault in faults]
    made: Value | None = None if checked is None else getattr(checked, key)
    return made


def _parameter(key: str, value: object, parameter: Parameter, place: str, problems: list[Problem]) -> str | None:
    text = parameter_text(value, parameter.kind)
    if text is None:
        problems.append(Problem(f"{place}: a value must be {parameter.rule}, not {shown(value)}"))
        return None
    fault = parameter.problem(key, text)
    if fault is not None:
        problems.append(replace(fault, message=f"{place}: {fault.message}", key=None))
        return None
    return parameter.read(text)


def _doubles(axes: Iterable[Axis], said: set[str]) -> list[Problem]:
    problems, seen = [], set[str]()
    for axis in axes:
        if axis.key in seen:
            problems.append(Problem(f"two flags sweep {axis.key}", "put all its values into one --sweep"))
        elif axis.key in said and not axis.count:
            flag = f"--{axis.key.replace('_', '-')}" if axis.key in SWEPT else f"--set {axis.key}"
            problems.append(
                Problem(f"{flag} gives one value, and --sweep {axis.key} gives several", "keep one of them")
            )
        seen.add(axis.key)
    return problems


def matrix_of(table: Mapping[str, Any], parameters: Parameters, seed: int | None) -> tuple[Matrix, list[Problem]]:
    """The `matrix:` of a recipe with these parameters, or of the `defaults:` of a manifest; and what is wrong with it.

    `seed` is the first of a number of seeds, if it is known.
    """
    axes, problems = axes_of(table, parameters, seed, "matrix:", f"matrix: {SEEDS}")
    made = Matrix(axes=tuple(replace(axis, is_weak=True) for axis in axes))
    return made, problems + too_many(made, "matrix: ")


def axes_of(
    table: Mapping[str, Any], parameters: Parameters, seed: int | None, place: str, seeds: str
) -> tuple[list[Axis], list[Problem]]:
    """The axes of a mapping of keys to lists of values, and what is wrong with it. A problem has its key.

    `place` begins the messages, `seeds` is what they call a number of seeds; `seed` is the first of these, if it is
    known.
    """
    problems: list[Problem] = []
    axes: list[Axis] = []
    for key, given in table.items():
        before = len(problems)
        if key == SEEDS and isinstance(given, int) and not isinstance(given, bool):
            axes += _count_axis(given, seed, seeds, problems)
        elif isinstance(given, list):
            axes += _axis(SEED if key == SEEDS else key, given, parameters, place, problems)
        else:
            message = f"{place} {key} must be a list of values, not {shown(given)}"
            problems.append(Problem(message, f"{key}: [first, second]"))
        problems[before:] = [replace(one, key=key) for one in problems[before:]]
    if [axis.key for axis in axes].count(SEED) > 1:
        problems.append(Problem(f"{place} seed and seeds are one axis", "keep one of them", key=SEEDS))
    return axes, problems


def too_many(matrix: Matrix, place: str) -> list[Problem]:
    """The problem of a matrix with more edits than an item may have."""
    if matrix.size <= MOST_CELLS:
        return []
    return [Problem(f"{place}it has {matrix.size:,} edits of each item, {_MANY}")]
