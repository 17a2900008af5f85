"""Flags -> what a run is asked to do, with every fault of the flags told before anything is read."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import BinaryIO

from joyedit.errors import UsageError
from joyedit.job.results.journal import has_records
from joyedit.job.source.item_builder import BUILT_IN
from joyedit.job.source.recipe import Recipe, load_recipe
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.spec import MAX_PIXELS, READ_TIMEOUT, RunConfig, Settings
from joyedit.options import Flags
from joyedit.runtime.model import model_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One run as it was asked for: where items come from, what is in force, and who said so."""

    source: Source
    config: RunConfig
    flags: Settings
    recipe: Recipe | None
    checkpoint: Settings


def build_request(flags: Flags) -> Request:
    """Raises `UsageError` for flags that cannot work, `ManifestError` for a faulty recipe."""
    _refuse(flags)
    typed = Settings(
        steps=flags.steps,
        guidance_scale=flags.guidance_scale,
        seed=flags.seed,
        negative_prompt=flags.negative_prompt,
        basesize=flags.basesize,
    )
    config = RunConfig(
        output=flags.output,
        model=flags.model,
        batch_size=None if flags.batch_size == "auto" else int(flags.batch_size),
        device=flags.device,
        dtype=flags.dtype,
        attention=flags.attention,
        compile=flags.compile,
        fused=flags.fused,
        offload=flags.offload,
        schedule=flags.schedule,
        format=flags.format,
        quality=flags.quality,
        limit=flags.limit,
        redo="all" if flags.overwrite else "failed" if flags.retry_failed else "changed",
        trust_journal=flags.trust_journal,
        max_duration=None if flags.max_duration is None else _seconds("--max-duration", flags.max_duration),
        max_pixels=MAX_PIXELS if flags.max_pixels is None else flags.max_pixels,
        read_timeout=READ_TIMEOUT if flags.read_timeout is None else _seconds("--read-timeout", flags.read_timeout),
    )
    recipe = None if flags.recipe is None else load_recipe(flags.recipe)
    checkpoint = model_settings(flags.model)
    options = SourceOptions(
        prompt=flags.prompt,
        flags=typed,
        recipe=recipe,
        recipe_values=_recipe_values(flags.values),
        checkpoint=checkpoint,
        format=flags.format,
        output=flags.output,
        limit=flags.limit,
        look=not has_records(flags.output),
    )
    stdin = _stdin() if flags.source == "-" else None
    source = open_source(flags.source, options, stdin)
    return Request(source=source, config=config, flags=typed, recipe=recipe, checkpoint=checkpoint)


def in_force(request: Request, settings: Settings) -> list[tuple[str, str]]:
    """Label and value of each run-wide setting, with its origin if that is not a flag.

    `settings` are the run-wide defaults that the source works with. An item's own line comes before.
    """
    settings = settings.over(BUILT_IN)
    rows = []
    for name in ("steps", "guidance_scale", "seed", "negative_prompt", "basesize", "width", "height"):
        value = getattr(settings, name)
        if value is None:
            continue
        message = repr(value) if isinstance(value, str) else str(value)
        origin = _origin(request, name, value)
        rows.append((name.replace("_", " "), message if origin is None else f"{message} ({origin})"))
    return rows


def _origin(request: Request, name: str, value: object) -> str | None:
    if getattr(request.flags, name) is not None:
        return None
    if request.recipe is not None and getattr(request.recipe.settings, name) is not None:
        return f"recipe {request.recipe.name}"
    checkpoint = getattr(request.checkpoint, name)
    lower = getattr(BUILT_IN, name) if checkpoint is None else checkpoint
    if value != lower:
        return "manifest defaults"
    return "built-in" if checkpoint is None else "checkpoint"


def _refuse(flags: Flags) -> None:
    """Every fault of the flags that are no settings of an item, at once; `open_source` tells those."""
    faults = []
    if flags.model is None and not flags.dry_run:
        faults.append(
            "no model is given: name a checkpoint with --model PATH|HUB-ID or in JOYEDIT_MODEL, "
            "or plan without one with --dry-run"
        )
    if flags.batch_size != "auto" and not (
        flags.batch_size.isascii() and flags.batch_size.isdigit() and int(flags.batch_size)
    ):
        faults.append(f"--batch-size must be auto or a number from 1, not {flags.batch_size!r}")
    if flags.values and flags.recipe is None:
        faults.append("--set fills the parameters of a recipe: name one with --recipe")
    faults += [f"--set takes name=value, not {value!r}" for value in flags.values if not _is_pair(value)]
    if flags.overwrite and flags.retry_failed:
        faults.append("--overwrite and --retry-failed exclude each other")
    if flags.max_pixels is not None and flags.max_pixels < 1:
        faults.append(f"--max-pixels must be a number from 1, not {flags.max_pixels}")
    if flags.quiet and flags.verbose:
        faults.append("--quiet and --verbose exclude each other")
    if faults:
        raise UsageError("\n".join(faults))


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?", re.ASCII)


def _seconds(flag: str, text: str) -> float:
    """The seconds of `8h`, `1h30m`, `90s` or a plain number of seconds."""
    found = _DURATION.fullmatch(text if text[-1:] in _UNITS else text + "s")
    seconds = 0.0
    if found is not None and len(text) < 20:
        seconds = sum(float(part) * unit for part, unit in zip(found.groups("0"), _UNITS.values(), strict=True))
    if seconds <= 0:
        raise UsageError(f"{flag} is a time like 8h, 1h30m or 90s, not {text!r}")
    return seconds


def _is_pair(value: str) -> bool:
    return bool(value.partition("=")[0].strip()) and "=" in value


def _recipe_values(pairs: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name.strip() in values:
            raise UsageError(f"--set {name.strip()} is given twice")
        values[name.strip()] = value
    return values


def _stdin() -> BinaryIO:
    """Standard input for a thread that may still wait in it when the program ends.

    sys.stdin's own buffer would then be locked, and the interpreter dies over that at its exit.
    """
    if sys.stdin is None:
        raise UsageError("SOURCE is -, but there is no standard input")
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError):  # no real file: a test's
        return sys.stdin.buffer
