"""Stage clocks: how long each stage took, with the device synchronised where it does the work.

A device runs behind the calls that feed it. So a stage of the device is timed from one
synchronisation to the next, and the time of one stage never lands in another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STAGES = ("load", "read", "encode", "denoise", "decode", "write")
DEVICE_STAGES = ("encode", "denoise", "decode")


class Lap:
    """The seconds of one pass through one stage; `seconds` is set when the pass ends."""

    seconds = 0.0


class StageClock:
    """Seconds spent in each stage, added up over all threads.

    Reading and writing run in several threads at once, so their sums may exceed the time on the wall.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, synchronize: Callable[[], None] | None = None) -> Iterator[Lap]:
        """Time the block as a pass through `name`, also when it raises.

        `synchronize` waits for the device; it is called before and after. After a fault of the
        device it is not called again: it would raise the same fault and hide the first one.
        """
        lap = Lap()
        if synchronize is not None:
            synchronize()
        start = self.now()
        try:
            yield lap
            if synchronize is not None:
                synchronize()
        finally:
            lap.seconds = self.now() - start
            self.add(name, lap.seconds)

    def add(self, name: str, seconds: float) -> None:
        """Add `seconds` to a stage of `STAGES`."""
        with self._lock:
            self._seconds[name] += seconds

    def seconds(self) -> dict[str, float]:
        """A copy of the sums so far, in the order of `STAGES`."""
        with self._lock:
            return dict(self._seconds)
