"""How long each stage took, and how long the device had something to do.

Stages of the host are timed around the call. A device runs behind the calls that feed it, so its stages
are timed by timestamps in its own work (see `running_batch`), and nobody waits only to measure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from joyedit.runtime.protocol import DeviceStage

STAGES = ("load", "read", "encode", "denoise", "decode", "write")
DEVICE_STAGES: tuple[DeviceStage, ...] = ("encode", "denoise", "decode")


class Lap:
    """The seconds of one pass through one stage; `seconds` is set when the pass ends."""

    seconds = 0.0


class StageClock:
    """Seconds spent in each stage, added up over all threads.

    Reading and writing run in several threads at once, and the encoder of a batch beside the denoising of
    the one before, so the sums may exceed the time on the wall.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[Lap]:
        """Time the block as a pass through `name`, also when it raises."""
        lap = Lap()
        start = self.now()
        try:
            yield lap
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


class Busy:
    """How long a device had something to do: the union of spans that come in the order of their ends."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until = float("-inf")

    def start(self, at: float) -> None:
        """Count nothing before this."""
        self._until = at

    def add(self, begin: float, end: float) -> float:
        """Count a span; gives the seconds of it that were not counted before."""
        new = max(0.0, end - max(begin, self._until))
        self.seconds += new
        self._until = max(self._until, end)
        return new
