"""Stage clocks: exact sums; and the time in which a device had something to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joyedit.runtime.pipeline.clock import STAGES, Busy, StageClock


def ticking(*times: float) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_stages_add_up() -> None:
    clock = StageClock(now=ticking(1.0, 3.5, 10.0, 11.0))
    with clock.stage("denoise") as first:
        pass
    with clock.stage("denoise") as second:
        pass
    clock.add("write", 0.5)
    assert (first.seconds, second.seconds) == (2.5, 1.0)
    assert clock.seconds() == dict.fromkeys(STAGES, 0.0) | {"denoise": 3.5, "write": 0.5}


def test_a_stage_that_fails_counts() -> None:
    clock = StageClock(now=ticking(0.0, 2.0))
    with pytest.raises(RuntimeError, match="disk"), clock.stage("read"):
        raise RuntimeError("disk")
    assert clock.seconds()["read"] == 2.0


def test_an_unknown_stage_is_a_fault_of_the_program() -> None:
    with pytest.raises(KeyError):
        StageClock().add("lunch", 1.0)


def test_a_device_is_busy_once_at_a_time() -> None:
    busy = Busy()
    busy.start(1.0)
    assert [busy.add(0.0, 3.0), busy.add(4.0, 6.0), busy.add(5.0, 7.0), busy.add(2.0, 6.5)] == [2.0, 2.0, 1.0, 0.0]
    assert busy.seconds == 5.0
