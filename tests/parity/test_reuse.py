"""Steps that leave something out, through the whole backend: over several processes, and with layers that pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.parallel.layout import Layout
from support import editing
from support.editing import Edit, batch_of, picture
from support.groups import Followers, group

SPEED = {"reuse": "0.6", "reuse_order": 1, "guidance_reuse": "2"}
STEPS = 8

Result = tuple[Tensor, tuple[BlockSteps, ...]]


@pytest.fixture(scope="module")
def followers() -> Iterator[Followers]:
    found = Followers()
    yield found
    found.close()


def edits() -> list[Edit]:
    image, other = picture(256, 320), picture(256, 320, seed=5)
    return [
        Edit(text="Red.", images=[image], negative="blurry", steps=STEPS),
        Edit(text="Turn the sky into a red evening.", images=[other], guidance=1.0, seed=3, steps=STEPS),
        Edit(text="Remove the car.", images=[image], guidance=2.5, negative="a long one, and more", steps=STEPS),
    ]


def made(model: Any) -> Result:
    model.ready()
    encoded = model.encode(batch_of(edits()))
    latents = model.denoise(encoded, lambda done, total: None)
    return latents, tuple(model.block_steps(encoded))


@pytest.fixture(scope="module")
def one(diffusers_checkpoint: Path) -> Result:
    """What one process makes."""
    latents, work = made(editing.backend(diffusers_checkpoint, **SPEED))
    assert all(item.reused for item in work), work
    assert [bool(item.unguided) for item in work] == [True, False, True]
    return latents, work


@pytest.mark.parametrize("layout", [Layout(guidance=2), Layout(sequence=2), Layout(guidance=3)], ids=str)
def test_as_one_process(layout: Layout, followers: Followers, diffusers_checkpoint: Path, one: Result) -> None:
    """Each rank decides for its own branches; ranks that share their tokens decide the same."""
    with group(followers, diffusers_checkpoint, layout, **SPEED) as model:
        latents, work = made(model)
    assert work == one[1]
    assert (latents - one[0]).abs().max() <= (0 if layout.sequence == 1 else 1e-4)


def test_layers_that_pass_through_the_device(diffusers_checkpoint: Path, one: Result) -> None:
    """The first block stays, as every step computes it; the others pass only where a branch needs them."""
    model = editing.backend(diffusers_checkpoint, offload="blocks", **SPEED)
    assert 0 not in model.placement.streamed_blocks()
    assert model.placement.streams_blocks
    latents, work = made(model)
    assert torch.equal(latents, one[0])
    assert work == one[1]


def test_operations_count_what_ran(diffusers_checkpoint: Path) -> None:
    exact, fast = editing.backend(diffusers_checkpoint), editing.backend(diffusers_checkpoint, **SPEED)
    counts = []
    for model in (exact, fast):
        model.ready()
        encoded = model.encode(batch_of(edits()))
        model.denoise(encoded, lambda done, total: None)
        counts.append(model.operations(encoded)["denoise"])
        work = BlockSteps.total(model.block_steps(encoded))
    assert counts[1] == pytest.approx(counts[0] * work.computed / work.all)


def test_the_memory_model_counts_what_is_kept(diffusers_checkpoint: Path) -> None:
    exact, line, parabola = (
        editing.backend(diffusers_checkpoint, **options).memory.denoising_bytes((256, 320), 2)
        for options in ({}, SPEED, {**SPEED, "reuse_order": 2})
    )
    assert exact < line < parabola
    model = editing.backend(diffusers_checkpoint).memory
    tokens = model.tokens((256, 320))
    assert parabola - line == 2 * 2 * tokens * model.dit.hidden_size * model.itemsize
