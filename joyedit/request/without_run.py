"""Requests without a run: a model to load, one item to edit, and what `joyedit doctor` asks about."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyedit.errors import UsageError
from joyedit.job.results.objects.address import refuse_address
from joyedit.job.run_config import RunConfig
from joyedit.job.source.item_builder import ItemBuilder
from joyedit.job.source.loras import LoraSet, LoraShelf, wishes_of
from joyedit.job.source.problems import Record
from joyedit.job.source.source_options import RunDefaults
from joyedit.job.source.sources import SourceOptions
from joyedit.job.spec import BASE_SIZES, EditItem, Lora, Settings
from joyedit.options import DoctorOptions, RunOptions, faults_of, names_of
from joyedit.quantities import memory_bytes
from joyedit.request.checks import home_path
from joyedit.request.speed import speed_faults
from joyedit.request.values import converted, named_as
from joyedit.weights.lora_facts import lora_facts

if TYPE_CHECKING:
    pass


def loading_config(model: str | None, options: Mapping[str, Any]) -> RunConfig:
    """The checked options of loading a model, for a caller that edits without a run. Raises UsageError."""
    wanted = RunOptions(source=(), model=model, **options)
    faults = faults_of(wanted) + speed_faults(wanted)
    if faults:
        raise UsageError("\n".join(faults))
    return RunConfig(**named_as(RunConfig, wanted) | converted(wanted), merged_loras=loaded_loras(wanted.lora).loras)


def loaded_loras(given: tuple[str, ...]) -> LoraSet:
    """The LoRAs of a model that is loaded with `--lora`. Raises UsageError."""
    found, problems = LoraShelf(lora_facts).find(wishes_of(given), "")
    if problems:
        raise UsageError("\n".join(f"--lora: {problem.text}" for problem in problems))
    return found


def doctor_request(options: DoctorOptions) -> tuple[RunConfig, Settings]:
    """The configuration of a run that is not to be made, and the settings of its items. Raises UsageError."""
    faults = faults_of(options)
    if options.basesize is not None and options.basesize not in BASE_SIZES:
        faults.append(f"--basesize must be one of {', '.join(map(str, BASE_SIZES))}, not {options.basesize}")
    if faults:
        raise UsageError("\n".join(faults))
    named = set(names_of(DoctorOptions)) & {one.name for one in fields(RunConfig)}
    given = {name: getattr(options, name) for name in named}
    refuse_address(options.output, "doctor -o", "leave -o out: an object store has no disk to look at")
    output = Path(home_path("--output", os.fspath(options.output)))
    config = RunConfig(**given | {"memory": memory_bytes(options.memory), "output": output})
    return config, Settings(basesize=options.basesize)


def build_item(
    pictures: int, instruction: str, settings: Mapping[str, Any], checkpoint: Settings, loras: tuple[Lora, ...] = ()
) -> EditItem:
    """One edit of `pictures` references, checked as a line of a manifest is. Raises UsageError.

    `checkpoint` are the settings that the checkpoint brings, `loras` those that the model is loaded with.
    """
    options = SourceOptions(checkpoint=checkpoint, output=None)
    builder = ItemBuilder(file="edit", base="", options=options, defaults=RunDefaults(), look=False)
    line = {key: value for key, value in settings.items() if value is not None}
    line |= {"id": "edit", "instruction": instruction}
    if pictures:
        line["images"] = [f"picture {number}" for number in range(1, pictures + 1)]
    items, problems = builder.build(Record(0, line))
    item = items[0] if items else None
    if not isinstance(item, EditItem):
        message = (one.message + (f" ({one.remedy})" if one.remedy else "") for one in problems)
        raise UsageError("\n".join(message))
    return replace(item, loras=loras)
