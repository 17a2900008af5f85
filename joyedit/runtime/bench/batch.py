"""What `joyedit bench` edits: random pictures with plain instructions. No torch here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from joyedit.job.buckets import choose_bucket
from joyedit.job.run_config import RandomSize
from joyedit.job.spec import EditItem, Origin, Sampling, SizedItem, SpeedName
from joyedit.runtime.protocol import ReadyBatch

INSTRUCTIONS = (
    "Turn the sky into a red evening.",
    "Remove the car.",
    "Make the house blue and add a small tree behind it.",
    "Change the background to a snowy mountain at night.",
)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure. `batch_size` items of `references` pictures each; `steps` of the whole edit.

    A stage is timed `rounds` times, the whole edit `edits` times; with a `speed`, as often with that too, in turns.
    """

    size: RandomSize
    basesize: int
    references: int = 1
    batch_size: int = 1
    steps: int = 8
    rounds: int = 3
    edits: int = 1
    speed: SpeedName = "exact"

    @property
    def edit_stage(self) -> str:
        """What the stage of the whole edit is called."""
        return f"edit, {self.steps} steps"


def batch_of(config: BenchConfig, instructions: Sequence[str] | None = None) -> ReadyBatch:
    """Items of random square pictures; with `instructions`, one item for each, all of one picture."""
    bucket = choose_bucket((config.basesize, config.basesize), config.basesize)
    texts = instructions or [INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(config.batch_size)]
    shared = _pictures(config, bucket) if instructions else None
    items = [
        SizedItem(
            item=EditItem(
                id=str(number),
                images=tuple(Path(f"{number}-{slot}") for slot in range(config.references)),
                instruction=text,
                sampling=Sampling(steps=config.steps, seed=number),
                basesize=config.basesize,
                size=None,
                output=f"{number}.png",
                origin=Origin(file="bench"),
            ),
            target=bucket,
            references=(bucket,) * config.references,
        )
        for number, text in enumerate(texts)
    ]
    return ReadyBatch.of(items, [shared or _pictures(config, bucket) for _ in texts])


def _pictures(config: BenchConfig, bucket: tuple[int, int]) -> tuple[Image.Image, ...]:
    height, width = bucket
    noise = [Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)) for _ in range(config.references)]
    return tuple(noise)


def with_steps(batch: ReadyBatch, steps: int) -> ReadyBatch:
    """The same edits with another number of steps."""
    items = []
    for ready in batch.items:
        item = replace(ready.item, sampling=replace(ready.item.sampling, steps=steps))
        items.append(replace(ready, sized=replace(ready.sized, item=item)))
    return replace(batch, items=tuple(items))
