"""What is wrong with the options of a run before anything is read, and what their texts stand for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from joyedit.errors import UsageError
from joyedit.job.source.columns import ALL, Columns
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.name_template import FIELDS, UNIQUE, NameTemplate, read_template
from joyedit.job.source.problems import shown
from joyedit.job.source.recipe import Recipe
from joyedit.job.spec import Settings
from joyedit.options import RunOptions, faults_of, option_of
from joyedit.request.speed import speed_faults
from joyedit.request.values import named_as
from joyedit.runtime.metrics_file import refuse_metrics
from joyedit.runtime.model import (
    no_model,
)
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from joyedit.runtime.one_picture import OnePicture


def refuse(options: RunOptions) -> None:
    """Raises UsageError with every fault of the options that are no settings of an item; `open_source` tells those."""
    settings = {option_of(RunOptions, name).name for name in named_as(Settings, options)}
    faults = [fault for fault in faults_of(options) if fault.split(" ", 1)[0] not in settings]
    wanted = Wanted.of(options)
    if not wanted.is_enough and (wanted.parts or not options.dry_run):
        faults.append(f"{no_model(wanted)}; --dry-run needs none" if not wanted.parts else no_model(wanted))
    if isinstance(options.batch_size, str) and options.batch_size != "auto" and not _is_number(options.batch_size):
        faults.append(f"--batch-size must be auto or a number from 1, not {options.batch_size!r}")
    if options.values and options.recipe is None:
        faults.append("--set gives a parameter of a recipe, but no recipe is given: name one with --recipe")
    faults += [f"--set takes name=value, not {value!r}" for value in options.values if not _is_pair(value)]
    if options.mask is not None and not _is_file(options.mask):
        faults.append(f"--mask {shown(options.mask)}: there is no such picture (give the path of a file)")
    faults += speed_faults(options)
    if options.metrics is not None and not faults:
        refuse_metrics(options.metrics)
    for one, other in (("overwrite", "retry_failed"), ("overwrite", "update"), ("quiet", "verbose")):
        if getattr(options, one) and getattr(options, other):
            first, second = (option_of(RunOptions, name).name for name in (one, other))
            faults.append(f"{first} and {second} exclude each other")
    if faults:
        raise UsageError("\n".join(faults))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _is_pair(value: str) -> bool:
    return bool(value.partition("=")[0].strip()) and "=" in value


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(os.path.expanduser(path))
    except ValueError:  # a NUL in the name
        return False


def with_home(options: RunOptions) -> RunOptions:
    """The options with `~` expanded: a shell leaves it as it is in `--output=~/out`. Raises UsageError."""
    output = home_path("--output", os.fspath(options.output))
    source = tuple([one if os.path.lexists(one) else home_path("SOURCE", one) for one in options.source])
    recipe = None if options.recipe is None else home_path("--recipe", options.recipe)
    mask = None if options.mask is None else home_path("--mask", options.mask)
    metrics = None if options.metrics is None else Path(home_path("--metrics", os.fspath(options.metrics)))
    return replace(options, output=Path(output), source=source, recipe=recipe, mask=mask, metrics=metrics)


def home_path(flag: str, path: str) -> str:
    expanded = os.path.expanduser(path)
    if path[:1] == "~" and expanded == path:
        raise UsageError(f"{flag} {path}: there is no home folder of this name (a folder here of this name: ./{path})")
    return expanded


def name_template(
    options: RunOptions, format: str, recipe: Recipe | None, columns: Columns, matrix: Matrix
) -> NameTemplate | None:
    """What `--name` says, if it is given. Raises UsageError, also where all edits of an item would get one name."""
    if options.name is None:
        return None
    parameters = None if recipe is None else recipe.parameters
    template = read_template(options.name, format=format, recipe=parameters, columns=columns.kept - {ALL})
    lacking = sorted(matrix.keys - template.fields) if not template.fields & UNIQUE else []
    several = [axis for key in lacking if (axis := matrix.axis(key)) is not None and len(axis) > 1]
    if several:
        known = {*FIELDS, *(parameters or ())}
        fields = "".join(f"{{{axis.key}}}, " for axis in several if axis.key in known)
        raise UsageError(
            f"--name {shown(options.name)} gives several edits of an item one name, because each item is edited with "
            f"{matrix.text} (add {fields}{{id}} or {{index}})"
        )
    return template


def one_name(picture: OnePicture | None, matrix: Matrix, template: NameTemplate | None) -> None:
    """Raises UsageError where the output names one picture, and something else names it too."""
    if picture is None:
        return
    if matrix:
        path = picture.path
        raise UsageError(f"-o {path} names one picture, and each item is edited with {matrix.text} (name a folder)")
    if template is not None:
        raise UsageError(f"-o {picture.path} and --name both name the picture (leave one of them out)")
