"""The batch that nobody asked for: how it is chosen, bounded and remembered."""

from __future__ import annotations

import pytest

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.runtime.joyimage.batch_size import (
    kept_size,
    largest_batch_that_fits,
    smallest_saturating_batch,
)
from joyedit.runtime.joyimage.memory import decoding_bytes, denoising_bytes
from joyedit.runtime.protocol import OutOfMemory


@pytest.mark.parametrize(
    ("seconds", "chosen", "asked"),
    [
        ({1: 1.0, 2: 1.99}, 1, 2),  # full with one: the larger ones are not tried
        ({1: 1.0, 2: 1.2, 4: 2.0, 8: 3.99}, 4, 4),
        ({1: 1.0, 2: 1.1, 4: 1.3, 8: 2.0}, 8, 4),
        ({1: 1.0, 2: 1.0}, 2, 3),  # no room for four
    ],
)
def test_the_smallest_batch_that_fills_the_device(seconds: dict[int, float], chosen: int, asked: int) -> None:
    tried: list[int] = []

    def measured(size: int) -> float:
        tried.append(size)
        if size not in seconds:
            raise OutOfMemory
        return seconds[size]

    assert smallest_saturating_batch(measured) == chosen
    assert len(tried) == asked


def test_without_room_for_one_it_is_one() -> None:
    def full(size: int) -> float:
        raise OutOfMemory

    assert smallest_saturating_batch(full) == 1
    assert largest_batch_that_fits(lambda size: 100 * size, 50) == 1
    assert largest_batch_that_fits(lambda size: 100 * size, 450) == 4


@pytest.mark.parametrize(("found", "size"), [(4, 4), (0, None), ("4", None), (True, None), (None, None)])
def test_only_a_size_is_taken_from_memory(found: object, size: int | None) -> None:
    assert kept_size(found) == size


def test_the_memory_model_grows_with_what_it_counts() -> None:
    cfg = DiTConfig()
    one, two = (denoising_bytes(cfg, tokens, 40, 2) for tokens in (18504, 37008))
    fixed = denoising_bytes(cfg, 0, 40, 2)
    assert two - fixed == 2 * (one - fixed)
    assert 1.5e9 < one < 4e9
    assert decoding_bytes(VAEConfig(), 1024, 1024, 2) == 4 * decoding_bytes(VAEConfig(), 512, 512, 2)
