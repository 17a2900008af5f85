"""The clock that stands still while the process does."""

from __future__ import annotations

import time

from joyedit.runtime.pipeline.awake import LONGEST_TICK, AwakeClock


def test_a_long_gap_is_a_stop() -> None:
    times = iter([0.0, 0.1, 0.25, 3600.25, 3600.35])
    clock = AwakeClock(now=lambda: next(times))
    seen = []
    for _ in range(4):
        clock.tick()
        seen.append(round(clock.seconds(), 6))
    assert seen == [0.1, 0.25, 0.25 + LONGEST_TICK, 0.35 + LONGEST_TICK]


def test_its_thread_keeps_the_time_until_it_is_stopped() -> None:
    clock = AwakeClock()
    clock.start()
    until = time.monotonic() + 30
    while clock.seconds() == 0.0 and time.monotonic() < until:
        time.sleep(0.01)
    assert clock.seconds() > 0
    clock.stop()
