"""What the devices of several workers did: each by itself, and all together as the figures of the run."""

from __future__ import annotations

from collections.abc import Mapping

from joyedit.job.results.report import Idle, WorkerWork
from joyedit.runtime.pipeline.stats import DeviceStats
from joyedit.runtime.protocol import DeviceStage


class WorkerStats:
    """The figures of one worker. Times are on the run's clock."""

    def __init__(self) -> None:
        self.device = ""  # as long as it has not loaded
        self.items = 0
        self.batches = 0
        self.deaths = 0
        self.peak: int | None = None
        self.exchanged: int | None = None
        self.times = DeviceStats()
        self._last = 0

    def exchanged_at(self, count: int | None) -> None:
        """Bytes that were exchanged since its process was loaded, which may have been started again since."""
        if count is not None:
            self.exchanged = (self.exchanged or 0) + count - (self._last if count >= self._last else 0)
            self._last = count


class FleetStats(DeviceStats):
    """`DeviceStats` of all workers: idle and busy times are sums over their devices. `workers` by number."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.workers = [WorkerStats() for _ in range(count)]

    def loaded_at(self, worker: int, at: float) -> None:
        """All networks of a worker are there. After a death its idle time counts on."""
        times = self.workers[worker].times
        if times.loaded is None:
            times.all_loaded(at)
        self.loaded = at if self.loaded is None else min(at, self.loaded)

    def batch(
        self,
        worker: int,
        spans: Mapping[DeviceStage, tuple[float, float]],
        operations: Mapping[DeviceStage, int],
        peak: int | None,
    ) -> float:
        """Count one batch of a worker; gives the seconds in which its device was not busy with an earlier one."""
        self.count(spans, operations)
        one = self.workers[worker]
        one.batches += 1
        one.peak = max((n for n in (one.peak, peak) if n is not None), default=None)
        return one.times.add(spans, operations)

    def idle(self, now: float) -> Idle | None:
        """How long the devices had nothing to do, summed up, of the time since each was loaded."""
        loaded = [one.times.loaded for one in self.workers if one.times.loaded is not None]
        whole = sum(max(0.0, now - at) for at in loaded)
        busy = sum(one.times.busy_seconds for one in self.workers)
        return Idle.of(whole, busy) if whole > 0 else None

    def by_worker(self, now: float) -> tuple[WorkerWork, ...]:
        """For the report."""
        return tuple(
            WorkerWork(
                worker=number,
                device=one.device,
                items=one.items,
                batches=one.batches,
                busy=one.times.busy_seconds,
                idle=one.times.idle(now),
                peak_memory=one.peak,
                exchanged=one.exchanged,
                deaths=one.deaths,
            )
            for number, one in enumerate(self.workers)
        )
