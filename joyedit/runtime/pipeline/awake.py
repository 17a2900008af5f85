"""A clock that stands still while this process is stopped (SIGSTOP, a debugger, a suspended machine).

A disk is not late because nobody ran to see its answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

TICK = 0.1
"""Seconds between two looks at the time."""

LONGEST_TICK = 1.0
"""A tick that takes longer than this was a stop; no more than this counts. A busy machine may delay a tick by less."""


class AwakeClock:
    """`seconds()` since the start, without the time in which the process did not run. A thread keeps the time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counted = 0.0
        self._last = now()
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to keep the time."""
        threading.Thread(target=self._keep, name="joyedit-clock", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()

    def seconds(self) -> float:
        """The time awake, up to the last tick: after a stop it does not jump before the stop was noticed."""
        return self._counted

    def tick(self) -> None:
        """Count the time since the last tick."""
        now = self._now()
        self._counted += min(now - self._last, LONGEST_TICK)
        self._last = now

    def _keep(self) -> None:
        while not self._ended.wait(TICK):
            self.tick()
