"""What a run learns about itself on the way, and the report that is made of it.

Times are on the run's clock. Only the main thread counts here; the threads count in `StageClock` and `Tally`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from joyedit.errors import (
    EXIT_FATAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_OUT_OF_TIME,
    EXIT_SOME_FAILED,
    JoyeditError,
)
from joyedit.job.clock import utc_now
from joyedit.job.results.report import Idle, Report, StageWork, State, WorkerWork, host_peak_memory, versions
from joyedit.job.results.run_counts import Tally
from joyedit.job.run_config import RunConfig
from joyedit.job.source.sources import SourceSummary
from joyedit.job.spec import Sampling
from joyedit.job.speed.bundles import speed_record
from joyedit.runtime.pipeline.clock import Busy, StageClock
from joyedit.runtime.protocol import BackendInfo, DeviceStage, LoadedModel
from joyedit.runtime.speed_losses import loss_of_run

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, and the error that ended it, if one did."""

    state: State
    error: JoyeditError | None = None

    def exit_code(self, undone: int) -> int:
        """The exit code of the command. `undone`: how many items failed, are left, or did not come, and shards wait."""
        codes = {
            "complete": EXIT_SOME_FAILED if undone else EXIT_OK,
            "interrupted": EXIT_INTERRUPTED,
            "out_of_time": EXIT_OUT_OF_TIME,
            "stopped": EXIT_FATAL,
            "running": EXIT_FATAL,
        }
        return codes[self.state]


class DeviceStats:
    """What the device did in the batches that went through: seconds and operations by stage, and its busy time.

    `loaded` is when all networks were on the device; None before that.
    """

    def __init__(self) -> None:
        self.loaded: float | None = None
        self._busy = Busy()
        self._seconds: Counter[DeviceStage] = Counter()
        self._operations: Counter[DeviceStage] = Counter()

    def all_loaded(self, at: float) -> None:
        """All networks are there. Idle time counts from now on."""
        self.loaded = at
        self._busy.start(at)

    def add(self, spans: Mapping[DeviceStage, tuple[float, float]], operations: Mapping[DeviceStage, int]) -> float:
        """Count one batch; gives the seconds in which the device was not busy with an earlier one."""
        self.count(spans, operations)
        return sum(self._busy.add(begin, end) for begin, end in spans.values())

    def count(self, spans: Mapping[DeviceStage, tuple[float, float]], operations: Mapping[DeviceStage, int]) -> None:
        """Count the seconds and operations of a batch by stage."""
        for stage, (begin, end) in spans.items():
            self._seconds[stage] += end - begin  # type: ignore[assignment]  # a Counter adds floats as well
        self._operations.update(operations)

    def work(self, ceiling: float | None) -> dict[str, StageWork]:
        """By stage, where the backend counts operations. `ceiling`: of a matrix product, in TFLOP/s."""
        return {
            stage: StageWork.of(operations, self._seconds[stage], ceiling)
            for stage, operations in self._operations.items()
        }

    def idle(self, now: float) -> Idle | None:
        """How long the device had nothing to do since all networks were loaded."""
        if self.loaded is None or now <= self.loaded:
            return None
        return Idle.of(now - self.loaded, self._busy.seconds)

    @property
    def busy_seconds(self) -> float:
        """How long the device had something to do."""
        return self._busy.seconds

    def by_worker(self, now: float) -> tuple[WorkerWork, ...]:
        """What each worker process did; none where this process did all."""
        return ()


class RunStats:
    """The figures of one run. `asked` is what the ids of the source depend on."""

    def __init__(self, clock: StageClock) -> None:
        self.device = DeviceStats()
        self.counted = 0
        self.loaded = 0.0
        self.asked: dict[str, Any] = {}
        self.layout: Callable[[], dict[str, Any] | None] = lambda: None  # of the output folder
        self._clock = clock
        self._start = clock.now()
        self._started = utc_now()
        self._waited = {"read": 0.0, "write": 0.0}
        self._matmul_tflops: float | None = None
        self.state: State = "running"
        self.on_report: Callable[[State], None] = lambda state: None
        """Hears of each report, after `state` was set to what it says."""

    def seconds(self) -> float:
        """Since the run began."""
        return self._clock.now() - self._start

    def since_loading(self) -> float:
        """Seconds since the model was loaded; of no meaning before."""
        return self._clock.now() - self.loaded

    def stages(self) -> Mapping[str, float]:
        """The seconds of each stage so far."""
        return self._clock.seconds()

    def idle(self) -> Idle | None:
        """How long the devices had nothing to do until now."""
        return self.device.idle(self._clock.now())

    def workers(self) -> tuple[WorkerWork, ...]:
        """What each worker process did until now."""
        return self.device.by_worker(self._clock.now())

    def count(self, items: Iterable[T]) -> Iterator[T]:
        """`items`, counted as they pass."""
        for item in items:
            self.counted += 1
            yield item

    @contextmanager
    def waiting(self, stage: str) -> Iterator[None]:
        """The device stands still in the meantime, because of `stage` ("read" or "write")."""
        start = self._clock.now()
        try:
            yield
        finally:
            self._waited[stage] += self._clock.now() - start

    def measure_ceiling(self, backend: LoadedModel) -> None:
        """Measure what the device reaches in a large matrix product."""
        self._matmul_tflops = backend.matmul_tflops()

    def report(
        self,
        ending: Ending,
        *,
        source: str,
        config: RunConfig,
        info: BackendInfo,
        summary: SourceSummary,
        tally: Tally,
        backend: LoadedModel | None,
        shard: Mapping[str, int | None] | None = None,
    ) -> Report:
        """The report as it stands now. `backend` is None where no model was loaded."""
        now = self._clock.now()
        self.state = ending.state
        self.on_report(self.state)
        return Report(
            state=ending.state,
            exit_code=ending.exit_code(tally.undone),
            error=None if ending.error is None else str(ending.error),
            started=self._started,
            ended=utc_now(),
            seconds=now - self._start,
            source=source,
            asked=self.asked,
            shard=shard,
            write=self.layout(),
            output=config.objects or str(config.output),
            left=_left(ending, None if backend is None else summary.items, tally),
            passed_over=summary.passed.count,
            passed_over_files=[{"path": path, "reason": kind} for path, kind in summary.passed.names],
            stages=self._clock.seconds(),
            waited=self._waited,
            device_work=self.device.work(self._matmul_tflops),
            matmul_tflops=self._matmul_tflops,
            device_idle=self.device.idle(now),
            workers=self.device.by_worker(now),
            images_per_second=tally.ok / (now - self.loaded) if tally.ok and now > self.loaded else None,
            peak_memory={"device": None if backend is None else backend.peak_memory(), "host": host_peak_memory()},
            predicted_peak=None if backend is None else backend.predicted_peak(),
            batch_size=config.batch_size or "auto",
            settings=summary.settings,
            versions=versions(),
            speed=_speed(config, info, summary.settings.steps),
            computed=None if tally.work is None else tally.work.as_record(),
            **_counts(tally),
            **_model(info),
        )


def _counts(tally: Tally) -> dict[str, Any]:
    return {
        "items": tally.recorded,
        "ok": tally.ok + tally.skipped,
        "skipped": tally.skipped,
        "failed": tally.failed.total(),
        "failed_by_code": dict(tally.failed),
        "missing": tally.missing,
        "batches": tally.batches,
        "warm_up": tally.warm_up(),
        "steady": tally.steady(),
    }


def _model(info: BackendInfo) -> dict[str, Any]:
    return {
        "model": info.model,
        "layout": info.layout,
        "device": info.device,
        "dtype": info.dtype,
        "precision": info.precision,
        "attention": info.attention,
        "schedule": info.schedule,
        "placement": info.placement,
        "fused": info.fused,
        "compile": info.compiled,
        "compile_seconds": info.compile_seconds,
        "notes": info.notes,
    }


def _speed(config: RunConfig, info: BackendInfo, steps: int | None) -> dict[str, Any] | None:
    """What steps leave out, and what is known of its loss; None where they leave out nothing."""
    told, loss = speed_record(config, info.schedule, steps or Sampling().steps), loss_of_run(config, steps)
    return told | ({} if loss is None else {"loss": asdict(loss)}) if told else None


def _left(ending: Ending, expected: int | None, tally: Tally) -> int | None:
    """How many items of the source have no record; None if nobody knows how many items the source has."""
    if ending.state == "complete":
        return tally.left
    return None if expected is None else max(0, expected - tally.recorded)
