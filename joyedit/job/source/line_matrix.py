"""`seeds` and `sweep` of one line of a manifest -> the matrix of its item, with every fault told at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from joyedit.errors import Problem
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.matrix_cells import SEEDS, SWEEP
from joyedit.job.source.matrix_reader import axes_of, too_many
from joyedit.job.source.parameter import Parameter
from joyedit.job.source.problems import Table, repeated_key, shown

_FORM = 'for example {"steps": [20, 40]}'


def matrix_of_line(
    seeds: object, sweep: object, run: Matrix, *, parameters: Mapping[str, Parameter], said: Collection[str]
) -> tuple[Matrix, list[Problem]]:
    """The matrix of an item: what its line says over that of the run, `run`; and what is wrong with it.

    `said` are the keys that the line gives one value for: it may not sweep them too. Whether so many seeds follow the
    item's own, `Matrix.seed_problem` tells.
    """
    table: dict[str, Any] = {} if seeds is None else {SEEDS: _whole(seeds)}
    problems: list[Problem] = []
    if isinstance(sweep, dict):
        table |= {key: value for key, value in sweep.items() if key != SEEDS}
        if SEEDS in sweep:
            problems.append(Problem("sweep: seeds is a key of the line itself", '"seeds": 3', key=SWEEP))
        problems += [repeated_key(name) for name in (sweep.doubled if isinstance(sweep, Table) else ())]
    elif sweep is not None:
        problems.append(Problem(f"sweep must be a mapping of keys to lists of values, not {shown(sweep)}", _FORM))
    if SEEDS in table and not _is_count(table[SEEDS]) and not isinstance(table[SEEDS], list):
        problems.append(Problem(f"seeds must be a number of seeds, or a list of seeds, not {shown(table.pop(SEEDS))}"))
    axes, more = axes_of(table, parameters, None, "sweep:", SEEDS)
    problems += more
    for axis in axes:
        if axis.key in said and not axis.count:
            message = f"this line gives {axis.key} one value, and sweeps it too"
            problems.append(Problem(message, "keep one of them", key=axis.key))
    made = Matrix(axes=tuple(axes)).over(run)
    problems += too_many(made, "sweep: ")
    known = (SEEDS, SWEEP)
    return made, [one if one.key in known else replace(one, key=None if one.key is None else SWEEP) for one in problems]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(value: object) -> object:
    """The value, as a whole number where it is one: tools that know only one kind of number write 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
