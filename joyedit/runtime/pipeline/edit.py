"""Batches go through the networks; where a batch fails, its items go through in smaller batches.

Some batches (mostly one) are encoded, then each is denoised and decoded. The device gets a batch whole, and
the call returns while the device works: the host reads and encodes the next batch meanwhile, and the writers
wait for the pictures. At most `RUNNING_BATCHES` batches are on the device.

A batch that runs out of memory is halved, and the size that fits is remembered for its shapes. After any
other error the items go through one by one, so an item that breaks the networks takes no other item with it.
All of this runs on the calling thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from joyedit.errors import concerns_the_run
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.pipeline.batch_limits import BatchLimits
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.running_batch import EncodedBatch, RunningBatch, Span, encode_batch, start_batch
from joyedit.runtime.protocol import Backend, DeviceStage, DeviceTimestamp, OutOfMemory, ReadyBatch, ReadyItem

if TYPE_CHECKING:
    from PIL import Image

    from joyedit.job.spec import SizedItem

T = TypeVar("T")

RUNNING_BATCHES = 2
"""One batch that the device works on, and one behind it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EditedItem:
    """An item on its way through the device, and its place in the batch."""

    ready: ReadyItem
    running: RunningBatch
    place: int

    def seconds(self) -> dict[str, float]:
        """Its share of each stage so far; waits for the device."""
        return {"read": self.ready.seconds, **self.running.share()}

    def work(self) -> BlockSteps | None:
        """What ran of its steps; None where nothing was left out."""
        return self.running.work[self.place] if self.running.work else None

    def picture(self) -> Image.Image:
        """Its picture; waits for the device. Errors as in `RunningBatch.picture`."""
        return self.running.picture(self.place)


class Edited(Protocol):
    """What is written of an item: an `EditedItem`, or one that came back from a worker process."""

    @property
    def ready(self) -> ReadyItem: ...

    def seconds(self) -> dict[str, float]:
        """Its share of each stage so far."""

    def work(self) -> BlockSteps | None:
        """What ran of its steps; None where nothing was left out."""

    def picture(self) -> Image.Image:
        """Its picture, or the error that it has instead."""


class Editor(Protocol):
    """What takes batches, in this process or in others. `dropped`: whether a stop left some out."""

    dropped: bool

    def edit(self, batch: ReadyBatch) -> Iterator[Edited]:
        """Take a batch; gives items to be written, of this or of earlier batches, or none if they go another way."""

    def finish(self) -> Iterator[Edited]:
        """No more batches come for now."""

    def flush(self) -> Iterator[Edited]:
        """Let no batch wait for others: more come only when some of them are done. Gives items as `edit` does."""

    def drain(self) -> None:
        """Wait for what is running."""


class BatchTally(Protocol):
    """Counts batches that went through."""

    def batch(self, images: int, seconds: float, ended: float) -> None: ...


class FailureRecorder(Protocol):
    """Where failures go: a `Recorder`, or the way to one."""

    @property
    def tally(self) -> BatchTally: ...

    def log(self, text: str, error: BaseException | None = None) -> None: ...

    def failed(self, sized: SizedItem, error: Exception, code: str, *, notes: tuple[str, ...] = ()) -> None: ...


class DeviceWatch(Protocol):
    """Hears of the device's times: a `DeviceStats`, or the way to one."""

    loaded: float | None

    def all_loaded(self, at: float) -> None: ...

    def add(self, spans: Mapping[DeviceStage, Span], operations: Mapping[DeviceStage, int]) -> float: ...


class BatchEditor:
    """Gives batches to one device and records the items that fail there.

    `encode_ahead` batches are encoded before the first of them is denoised. After `stopped` says so, no
    further batch starts; `dropped` then tells whether items were left out. `stats` gets the times of the device.
    """

    def __init__(
        self,
        backend: Backend,
        recorder: FailureRecorder,
        clock: StageClock,
        stats: DeviceWatch,
        *,
        encode_ahead: int,
        on_step: Callable[[int, int], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.dropped = False
        self._backend = backend
        self._recorder = recorder
        self._clock = clock
        self._stats = stats
        self._encode_ahead = encode_ahead
        self._on_step = on_step
        self._stopped = stopped
        self._limits = BatchLimits()
        self._waiting: deque[ReadyBatch] = deque()
        self._running: deque[RunningBatch] = deque()

    def edit(self, batch: ReadyBatch) -> Iterator[EditedItem]:
        """Take one planned batch; gives the items that are on their way now. Items that fail are recorded.

        The items are those of this batch and of the batches that waited for it to be encoded together.
        Raises only what concerns the whole run: a `JoyeditError` that is no `ItemError`.
        """
        if batch.items:
            self._waiting.append(batch)
        if len(self._waiting) >= self._encode_ahead:
            yield from self.finish()

    def finish(self) -> Iterator[EditedItem]:
        """Edit the batches that still wait for others."""
        while self._waiting and not self._stopped():
            yield from self._denoise(self._encode())
        self.dropped = self.dropped or bool(self._waiting)

    def flush(self) -> Iterator[EditedItem]:
        """Edit the batches that still wait for others."""
        return self.finish()

    def drain(self) -> None:
        """Wait until the device has finished all batches."""
        while self._running:
            self._collect_oldest()

    @property
    def is_busy(self) -> bool:
        """Whether a batch runs on the device whose times were not counted yet."""
        return bool(self._running)

    def collect(self) -> None:
        """Count the times of the batches that the device has finished. Does not wait."""
        while self._running and self._running[0].is_over():
            self._collect_oldest()

    def _encode(self) -> deque[EncodedBatch]:
        begin = self._prepare([*self._waiting][: self._encode_ahead])
        encoded: deque[EncodedBatch] = deque()
        while self._waiting and len(encoded) < self._encode_ahead:
            batch = self._next_batch()
            found = self._attempt(batch, partial(self._encode_one, batch, begin))
            begin = None
            if found is not None:
                encoded.append(found)
        return encoded

    def _prepare(self, batches: list[ReadyBatch]) -> DeviceTimestamp | None:
        """Let the backend do together what several batches need; gives the timestamp before it.

        Where that fails, each batch is encoded by itself.
        """
        if len(batches) < 2:
            return None
        begin = self._backend.timestamp("encode")
        try:
            with self._time_of_failure("encode"):
                self._backend.prepare(batches)
        except OutOfMemory:
            self._backend.free_memory()
        except Exception as error:
            if concerns_the_run(error):
                raise
            self._recorder.log(f"{len(batches)} batches could not be prepared together", error)
        return begin

    def _denoise(self, encoded: deque[EncodedBatch]) -> Iterator[EditedItem]:
        is_first = True  # what was encoded is paid for, so one batch is denoised even if the run stops
        while encoded and (is_first or not self._stopped()):
            is_first = False
            while len(self._running) >= RUNNING_BATCHES:
                self._collect_oldest()
            given = encoded.popleft()
            running = self._attempt(given.batch, partial(self._start, given))
            if running is not None:
                self._limits.fitted(given.batch.shape, len(given.batch.items))
                self._running.append(running)
                for place, ready in enumerate(given.batch.items):
                    yield EditedItem(ready=ready, running=running, place=place)
            self.collect()
        self.dropped = self.dropped or bool(encoded)

    def _next_batch(self) -> ReadyBatch:
        """The next batch, or the part of it that is known to fit on the device."""
        batch = self._waiting.popleft()
        size = 1 if batch.one_by_one else self._limits.of(batch.shape, len(batch.items))
        if size < len(batch.items):
            self._waiting.appendleft(replace(batch, items=batch.items[size:]))
        return replace(batch, items=batch.items[:size])

    def _encode_one(self, batch: ReadyBatch, begin: DeviceTimestamp | None) -> EncodedBatch:
        with self._time_of_failure("encode"):
            return encode_batch(self._backend, batch, begin)

    def _start(self, given: EncodedBatch) -> RunningBatch:
        if self._stats.loaded is None:
            with self._clock.stage("load"):
                self._backend.ready()
            self._stats.all_loaded(self._clock.now())
        with self._time_of_failure("denoise"):
            return start_batch(self._backend, given, self._on_step)

    def _attempt(self, batch: ReadyBatch, work: Callable[[], T]) -> T | None:
        """What `work` gives. After an error the batch waits again in smaller parts, or its only item is recorded."""
        try:
            try:
                return work()
            except OutOfMemory:
                if not self._running:
                    raise
            # The batches on the device held memory too, so try once more without them.
            self.drain()
            self._backend.free_memory()
            return work()
        except Exception as error:
            if concerns_the_run(error):
                raise
            caught = error
        if isinstance(caught, OutOfMemory):
            self._take_fewer(batch, _without_tensors(caught))
        elif len(batch.items) == 1:
            self._record_failure(batch.items[0], caught, "edit_failed")
        else:
            self._recorder.log(f"batch {batch.index} failed; its {len(batch.items)} items go one by one", caught)
            self._waiting.appendleft(replace(batch, one_by_one=True))
        return None

    def _take_fewer(self, batch: ReadyBatch, error: OutOfMemory) -> None:
        """Remember that the batch is too large, and let it wait again; a single item has failed."""
        size = len(batch.items)
        self._backend.free_memory()
        self._limits.failed(batch.shape, size)
        if size == 1:
            self._record_failure(batch.items[0], error, "out_of_memory")
            return
        fewer = self._limits.of(batch.shape, size)
        self._recorder.log(f"batch {batch.index}: out of memory with {size} items, next try with {fewer}: {error}")
        self._waiting.appendleft(batch)

    def _record_failure(self, ready: ReadyItem, error: Exception, code: str) -> None:
        self._recorder.failed(ready.sized, error, code, notes=ready.notes)

    @contextmanager
    def _time_of_failure(self, stage: DeviceStage) -> Iterator[None]:
        """Count the time of a stage that fails: no timestamps of the device will tell it."""
        start = self._clock.now()
        try:
            yield
        except BaseException:
            self._clock.add(stage, self._clock.now() - start)
            raise

    def _collect_oldest(self) -> None:
        """Wait for the oldest batch on the device, and count its times."""
        running = self._running.popleft()
        try:
            spans = running.spans()
        except Exception as error:  # an error of the device itself: the writers record it for each item
            self._recorder.log("the device failed", error)
            return
        for stage, (begin, end) in spans.items():
            self._clock.add(stage, end - begin)
        busy = self._stats.add(spans, running.operations)
        self._recorder.tally.batch(len(running.pending), busy, spans["decode"][1])


def _without_tensors(error: OutOfMemory) -> OutOfMemory:
    """The same error without its traceback, which holds the tensors of the failed pass."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
