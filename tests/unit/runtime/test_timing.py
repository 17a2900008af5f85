"""Stage clocks: exact sums, and the device waited for on both sides."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joyedit.runtime.timing import STAGES, StageClock


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


def test_the_device_is_waited_for_before_and_after() -> None:
    events: list[str] = []

    def now() -> float:
        events.append("clock")
        return 0.0

    with StageClock(now=now).stage("encode", lambda: events.append("device")):
        events.append("work")
    assert events == ["device", "clock", "work", "device", "clock"]


def test_a_stage_that_fails_counts_and_does_not_ask_the_device_again() -> None:
    clock = StageClock(now=ticking(0.0, 2.0))
    asked: list[None] = []
    with pytest.raises(RuntimeError, match="device"), clock.stage("decode", lambda: asked.append(None)):
        raise RuntimeError("device")
    assert clock.seconds()["decode"] == 2.0
    assert len(asked) == 1


def test_an_unknown_stage_is_a_fault_of_the_program() -> None:
    with pytest.raises(KeyError):
        StageClock().add("lunch", 1.0)
