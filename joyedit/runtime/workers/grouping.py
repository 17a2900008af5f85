"""`--parallel`: the places of single devices become those of groups that make each picture together. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from joyedit.errors import JoyeditError, UsageError
from joyedit.job.run_config import RandomSize, RunConfig
from joyedit.job.speed.bundles import has_regions
from joyedit.runtime.model import is_fake
from joyedit.runtime.parallel.layout import ParallelName, choose_parallel
from joyedit.runtime.workers.gpus import places_of
from joyedit.runtime.workers.place import Place
from joyedit.weights.describe import describe
from joyedit.weights.wanted import NETWORKS, Wanted

HEADS = 32
"""Attention heads of the published DiT."""
RANDOM_HEADS: dict[RandomSize, int] = {"tiny": 2, "small": 4, "full": HEADS}
"""Those of random weights, by size."""


def with_places(config: RunConfig, gpus: str | None) -> tuple[RunConfig, tuple[Place, ...]]:
    """The places of single devices that `--gpus` stands for, and the configuration of a run with them.

    Raises UsageError and DeviceError, also for what they cannot do together.
    """
    fake, wish = is_fake(config.model), config.parallel
    places = () if gpus is None else places_of(gpus, config.device, is_fake=fake)
    if has_regions(config) and wish == "auto":
        wish = "data"
    if wish in ("guidance", "sequence"):
        if has_regions(config):
            raise UsageError(
                f"--parallel {wish} divides a picture that is computed as a whole, and with regions it is not (use"
                " --parallel data, or --regions off)"
            )
        if not places:
            raise UsageError(f"--parallel {wish} is for several GPUs (add --gpus all, or leave it out)")
        if fake:
            raise UsageError(f"--parallel {wish}: the fake model is in one process alone (use --parallel data)")
        grouped(places, wish, config)  # what cannot be is told before anything else
    return replace(config, workers=max(1, len(places)), parallel="data" if fake else wish), places


def grouped(places: Sequence[Place], wish: ParallelName, config: RunConfig) -> tuple[Place, ...]:
    """A place for each worker: one device each, or the devices of a group. Raises UsageError for what cannot be."""
    if wish == "data" or (wish == "auto" and config.expected_items is None):
        return tuple(places)
    chosen = choose_parallel(
        wish,
        items=config.expected_items,
        gpus=len(places),
        heads=heads_of(config),
        guidance_on=config.expected_guidance,
    )
    size = chosen.layout.world
    if size == 1:
        return tuple(places)
    groups = [places[first : first + size] for first in range(0, size * chosen.groups, size)]
    return tuple(
        Place(
            number=number,
            devices=tuple(device for one in group for device in one.devices),
            threads=group[0].threads,
            layout=chosen.layout,
        )
        for number, group in enumerate(groups)
    )


def heads_of(config: RunConfig) -> int:
    """Attention heads of the DiT; of the published one where the checkpoint does not say it in a configuration."""
    if config.random is not None:
        return RANDOM_HEADS[config.random]
    wanted = Wanted.of(config)
    with suppress(JoyeditError, OSError, ValueError, AttributeError):  # told with its reason when it is loaded
        parts = describe(wanted).parts if wanted.is_enough else ()
        for part in parts:
            if part.network == NETWORKS["dit"] and part.config is not None:
                heads = json.loads(part.config.read_bytes()).get("num_attention_heads")
                return heads if isinstance(heads, int) and heads > 0 else HEADS
    return HEADS


def in_words(places: Sequence[Place], device: str = "") -> str:
    """How these workers share the work: `1 group of 2 x NVIDIA H200 (guidance 2)`, or `2 workers (data)`."""
    count, layout = len(places), places[0].layout
    if layout.world == 1:
        return f"{count} workers (data)"
    groups = "1 group" if count == 1 else f"{count} groups"
    name = device or ("GPU" if places[0].devices else "CPU process")
    return f"{groups} of {layout.world} x {name} ({layout})"
