"""Batches through the networks; where a batch fails, its items go through in smaller ones.

A window of batches (mostly one) is encoded, then each is denoised and decoded.

A batch is given to the device whole, and the call returns while the device works: the host reads and encodes
the next one meanwhile, and the writers wait for the pictures. At most `RUNNING_BATCHES` batches are on
the device. A batch that runs out of memory is halved, and the size that fits is remembered for its shapes.
After any other fault the items go through one by one, so an item that breaks the networks takes none of
its mates with it. Runs on the calling thread.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.spec import Batch
from joyedit.runtime.pipeline.batch_limits import BatchLimits
from joyedit.runtime.pipeline.clock import Busy, StageClock
from joyedit.runtime.pipeline.read import ReadyItem
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.running_batch import RunningBatch
from joyedit.runtime.pipeline.write import EditedItem
from joyedit.runtime.protocol import Backend, BatchInput, DeviceStage, DeviceTimestamp, OutOfMemory

T = TypeVar("T")

RUNNING_BATCHES = 2
"""One batch that the device works on, and one behind it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Items of one planned batch that go through together; `alone` sends them one by one."""

    index: int
    items: tuple[ReadyItem, ...]
    alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Encoded:
    """A part that was encoded, and the timestamps around that."""

    part: _Part
    encoded: Any
    timestamps: tuple[DeviceTimestamp, DeviceTimestamp]


class Editor:
    """Owns the way of a batch from pictures to pictures. `on_step(done, total)` hears of each step.

    `window` batches are encoded before the first of them is denoised. `stopped` is asked between them and
    between the parts of a divided one: what has not begun then has no record, and a later run takes it up;
    `dropped` tells that there was some. `busy` counts the device's work since `loaded`, which is when all
    networks were there; `operations` those of the batches that are done, by stage, and `seconds` what
    those took.
    """

    def __init__(
        self,
        backend: Backend,
        recorder: Recorder,
        clock: StageClock,
        on_step: Callable[[int, int], None],
        stopped: Callable[[], bool] = lambda: False,
        window: int = 1,
    ) -> None:
        self.busy = Busy()
        self.loaded: float | None = None
        self.operations: Counter[DeviceStage] = Counter()
        self.seconds: dict[DeviceStage, float] = {}
        self._backend = backend
        self._recorder = recorder
        self._clock = clock
        self._on_step = on_step
        self._stopped = stopped
        self._window = window
        self._limits = BatchLimits()
        self.dropped = False
        self._waiting: deque[_Part] = deque()
        self._running: deque[RunningBatch] = deque()

    def edit(self, index: int, items: Sequence[ReadyItem]) -> Iterator[EditedItem]:
        """Take one planned batch; gives the items that are on their way now, failed ones are recorded instead.

        These are the items of this batch and of those before it that filled the window, if they did.
        Raises only what concerns the whole run: a `JoyeditError` that is no `ItemError`.
        """
        if items:
            self._waiting.append(_Part(index=index, items=tuple(items)))
        if len(self._waiting) >= self._window:
            yield from self.finish()

    def finish(self) -> Iterator[EditedItem]:
        """The batches that wait for the window to fill."""
        parts = self._waiting
        while parts and not self._stopped():
            window: deque[_Encoded] = deque()
            while parts and len(window) < self._window:
                part = self._take(parts)
                encoded = self._attempt(part, parts, partial(self._encode, part))
                if encoded is not None:
                    window.append(encoded)
            first = True
            while window and (first or not self._stopped()):
                first = False
                while len(self._running) >= RUNNING_BATCHES:
                    self._land()
                encoded = window.popleft()
                running = self._attempt(encoded.part, parts, partial(self._denoise, encoded))
                if running is not None:
                    self._limits.fitted(_shape(encoded.part), len(encoded.part.items))
                    self._running.append(running)
                    for place, ready in enumerate(encoded.part.items):
                        yield EditedItem(ready=ready, running=running, place=place)
                while self._running and self._running[0].is_over():
                    self._land()
            self.dropped = self.dropped or bool(window)
        self.dropped = self.dropped or bool(parts)

    def drain(self) -> None:
        """Wait until the device is done with all batches."""
        while self._running:
            self._land()

    def _take(self, parts: deque[_Part]) -> _Part:
        """The next part, divided where it is known to be too large."""
        part = parts.popleft()
        size = 1 if part.alone else self._limits.of(_shape(part), len(part.items))
        if size < len(part.items):
            parts.appendleft(_Part(index=part.index, items=part.items[size:], alone=part.alone))
        return _Part(index=part.index, items=part.items[:size], alone=part.alone)

    def _attempt(self, part: _Part, parts: deque[_Part], work: Callable[[], T]) -> T | None:
        """What `work` gives. After a fault the part goes back into `parts`, or its only item is recorded."""
        try:
            try:
                return work()
            except OutOfMemory:
                if not self._running:
                    raise
            # What was on its way held memory too, so once more without it.
            self.drain()
            self._backend.free_memory()
            return work()
        except Exception as error:
            if isinstance(error, JoyeditError) and not isinstance(error, ItemError):
                raise
            fault = error
        shape, size = _shape(part), len(part.items)
        if isinstance(fault, OutOfMemory):
            fault = _told(fault)
            self._backend.free_memory()
            self._limits.failed(shape, size)
            if size > 1:
                half = self._limits.of(shape, size)
                message = f"batch {part.index}: out of memory with {size} items, on with {half}: {fault}"
                self._recorder.log(message)
                parts.appendleft(part)
            else:
                self._recorder.failed(part.items[0].sized, fault, "out_of_memory", notes=part.items[0].notes)
        elif size == 1:
            self._recorder.failed(part.items[0].sized, fault, "edit_failed", notes=part.items[0].notes)
        else:
            self._recorder.log(f"batch {part.index} failed; its {size} items go through one by one", fault)
            parts.appendleft(_Part(index=part.index, items=part.items, alone=True))
        return None

    def _encode(self, part: _Part) -> _Encoded:
        batch = Batch(index=part.index, items=tuple(item.sized for item in part.items))
        pictures = tuple(item.pictures for item in part.items)
        with self._faults_count("encode"):
            begin = self._backend.timestamp("encode")
            encoded = self._backend.encode(BatchInput(batch=batch, pictures=pictures))
            return _Encoded(part=part, encoded=encoded, timestamps=(begin, self._backend.timestamp("encode")))

    def _denoise(self, given: _Encoded) -> RunningBatch:
        """The rest of the way, one stage behind the other on the device."""
        backend, clock = self._backend, self._clock
        if self.loaded is None:
            with clock.stage("load"):
                backend.ready()
            self.loaded = clock.now()
            self.busy.start(self.loaded)
        with self._faults_count("denoise"):
            begin = backend.timestamp("denoise")
            latents = backend.denoise(given.encoded, self._on_step)
            denoised = begin, backend.timestamp("denoise")
        with self._faults_count("decode"):
            pending = backend.decode_later(latents)
            decoded = backend.timestamp("decode")
        if len(pending) != len(given.part.items):
            raise RuntimeError(f"{len(pending)} pictures came out of a batch of {len(given.part.items)}")
        return RunningBatch(
            pending=pending,
            encoded=given.timestamps,
            denoised=denoised,
            decoded=decoded,
            operations=backend.operations(given.encoded),
        )

    @contextmanager
    def _faults_count(self, stage: DeviceStage) -> Iterator[None]:
        """The time of a stage that does not come to its end is told too."""
        start = self._clock.now()
        try:
            yield
        except BaseException:
            self._clock.add(stage, self._clock.now() - start)
            raise

    def _land(self) -> None:
        """Wait for the oldest batch on the device, and count what it took."""
        running = self._running.popleft()
        try:
            spans = running.spans()
        except Exception as error:  # of the device itself: the writers record it for each item
            self._recorder.log("the device failed", error)
            return
        new = 0.0
        for stage, (begin, end) in spans.items():
            self._clock.add(stage, end - begin)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + end - begin
            new += self.busy.add(begin, end)
        self.operations.update(running.operations)
        self._recorder.tally.batch(len(running.pending), new, spans["decode"][1])


def _shape(part: _Part) -> tuple[object, ...]:
    sized = part.items[0].sized
    return sized.target, sized.references


def _told(fault: OutOfMemory) -> OutOfMemory:
    """The same fault without its traceback, which holds the tensors of the failed pass."""
    fault.__context__ = fault.__cause__ = None
    return fault.with_traceback(None)
