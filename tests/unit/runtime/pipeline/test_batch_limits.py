"""Batch sizes that did not fit are halved, and tried again later, ever more rarely."""

from __future__ import annotations

from joyedit.runtime.pipeline.batch_limits import PATIENCE, BatchLimits


def go(limits: BatchLimits, room: int, batches: int, wished: int = 16) -> list[int]:
    """The sizes that were tried, on a device with room for so many items."""
    tried = []
    while batches:
        size = limits.of("shape", wished)
        tried.append(size)
        if size > room:
            limits.failed("shape", size)
        else:
            limits.fitted("shape", size)
            batches -= 1
    return tried


def test_halved_until_it_fits_and_remembered() -> None:
    assert go(BatchLimits(), 5, 3) == [16, 8, 4, 4, 4]


def test_other_shapes_are_not_concerned() -> None:
    limits = BatchLimits()
    limits.failed("shape", 8)
    assert (limits.of("shape", 16), limits.of("other", 16), limits.of("shape", 3)) == (4, 16, 3)


def test_tried_again_after_a_while_and_ever_more_rarely() -> None:
    tried = go(BatchLimits(), 5, 200)
    assert [place for place, size in enumerate(tried) if size == 8] == [
        1,
        2 + 2 * PATIENCE,
        3 + 6 * PATIENCE,
    ]  # one failure came before the first fit, so the first wait is already twice as long


def test_grows_back_when_there_is_room_again() -> None:
    limits = BatchLimits()
    go(limits, 4, 1)
    assert go(limits, 100, 500)[-1] == 16


def test_a_limit_is_at_least_one() -> None:
    limits = BatchLimits()
    limits.failed("shape", 1)
    assert limits.of("shape", 4) == 1


def test_smaller_batches_say_nothing_about_the_limit() -> None:
    limits = BatchLimits()
    limits.failed("shape", 8)
    for _ in range(100):
        limits.fitted("shape", 2)
    assert limits.of("shape", 16) == 4
