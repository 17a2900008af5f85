"""Batches through the networks; where a batch fails, its items go through in smaller ones.

A batch is given to the device whole, and the call returns while the device works: the host reads and encodes
the next one meanwhile, and the writers wait for the pictures. At most `IN_FLIGHT` batches are on
the device. A batch that runs out of memory is halved, and the size that fits is remembered for its shapes.
After any other fault the items go through one by one, so an item that breaks the networks takes none of
its mates with it. Runs on the calling thread.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.spec import Batch
from joyedit.runtime.backend import Backend, BatchInput, DeviceStage, OutOfMemory
from joyedit.runtime.flight import Flight
from joyedit.runtime.limits import BatchLimits
from joyedit.runtime.reading import ReadyItem
from joyedit.runtime.records import Recorder
from joyedit.runtime.timing import Busy, StageClock
from joyedit.runtime.writing import EditedItem

IN_FLIGHT = 2
"""One batch that the device works on, and one behind it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Items of one planned batch that go through together; `alone` sends them one by one."""

    index: int
    items: tuple[ReadyItem, ...]
    alone: bool = False


class Editor:
    """Owns the way of a batch from pictures to pictures. `on_step(done, total)` hears of each step.

    `stopped` is asked between the parts of a batch that was divided: what has not begun then has no
    record, and a later run takes it up. `busy` counts the device's work since `loaded`, which is when
    all networks were there; `operations` those of the batches that are done, by stage, and `seconds`
    what those took.
    """

    def __init__(
        self,
        backend: Backend,
        recorder: Recorder,
        clock: StageClock,
        on_step: Callable[[int, int], None],
        stopped: Callable[[], bool] = lambda: False,
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
        self._limits = BatchLimits()
        self._flights: deque[Flight] = deque()

    def edit(self, index: int, items: Sequence[ReadyItem]) -> Iterator[EditedItem]:
        """The items of one planned batch as they are on their way, in order; failed ones are recorded instead.

        Raises only what concerns the whole run: a `JoyeditError` that is no `ItemError`.
        """
        parts = deque([_Part(index=index, items=tuple(items))] if items else [])
        begun = False
        while parts and not (begun and self._stopped()):
            part = self._take(parts)
            begun = True
            flight = self._fly(part, parts)
            if flight is not None:
                self._flights.append(flight)
                for place, ready in enumerate(part.items):
                    yield EditedItem(ready=ready, flight=flight, place=place)
            while self._flights and self._flights[0].is_over():
                self._land()

    def drain(self) -> None:
        """Wait until the device is done with all batches."""
        while self._flights:
            self._land()

    def _take(self, parts: deque[_Part]) -> _Part:
        """The next part, divided where it is known to be too large."""
        part = parts.popleft()
        size = 1 if part.alone else self._limits.of(_shape(part), len(part.items))
        if size < len(part.items):
            parts.appendleft(_Part(index=part.index, items=part.items[size:], alone=part.alone))
        return _Part(index=part.index, items=part.items[:size], alone=part.alone)

    def _fly(self, part: _Part, parts: deque[_Part]) -> Flight | None:
        """Give the part to the device. After a fault it goes back into `parts`, or its only item is recorded."""
        while len(self._flights) >= IN_FLIGHT:
            self._land()
        shape, size = _shape(part), len(part.items)
        try:
            try:
                flight = self._queue(part)
            except OutOfMemory:
                if not self._flights:
                    raise
                flight = None
            if flight is None:  # what was on its way held memory too, so once more without it
                self.drain()
                self._backend.free_memory()
                flight = self._queue(part)
        except Exception as error:
            if isinstance(error, JoyeditError) and not isinstance(error, ItemError):
                raise
            fault = error
        else:
            self._limits.fitted(shape, size)
            return flight
        if isinstance(fault, OutOfMemory):
            fault = _told(fault)
            self._backend.free_memory()
            self._limits.failed(shape, size)
            if size > 1:
                half = self._limits.of(shape, size)
                told = f"batch {part.index}: out of memory with {size} items, on with {half}: {fault}"
                self._recorder.log(told)
                parts.appendleft(part)
            else:
                self._recorder.failed(part.items[0].sized, fault, "out_of_memory", notes=part.items[0].notes)
        elif size == 1:
            self._recorder.failed(part.items[0].sized, fault, "edit_failed", notes=part.items[0].notes)
        else:
            self._recorder.log(f"batch {part.index} failed; its {size} items go through one by one", fault)
            parts.appendleft(_Part(index=part.index, items=part.items, alone=True))
        return None

    def _queue(self, part: _Part) -> Flight:
        """Every stage of a part, one behind the other on the device."""
        backend, clock = self._backend, self._clock
        batch = Batch(index=part.index, items=tuple(item.sized for item in part.items))
        stage: DeviceStage = "encode"
        start = clock.now()
        try:
            begin = backend.mark(stage)
            encoded = backend.encode(BatchInput(batch=batch, pictures=tuple(item.pictures for item in part.items)))
            encoded_marks = begin, backend.mark(stage)
            if self.loaded is None:
                with clock.stage("load"):
                    backend.ready()
                self.loaded = clock.now()
                self.busy.start(self.loaded)
            operations = backend.operations(encoded)
            stage, start = "denoise", clock.now()
            begin = backend.mark(stage)
            latents = backend.denoise(encoded, self._on_step)
            denoised = begin, backend.mark(stage)
            del encoded  # the decoder can use its memory
            stage, start = "decode", clock.now()
            pending = backend.decode_later(latents)
            decoded = backend.mark(stage)
        except BaseException:
            clock.add(stage, clock.now() - start)
            raise
        if len(pending) != len(part.items):
            raise RuntimeError(f"{len(pending)} pictures came out of a batch of {len(part.items)}")
        return Flight(pending=pending, encoded=encoded_marks, denoised=denoised, decoded=decoded, operations=operations)

    def _land(self) -> None:
        """Wait for the oldest batch on the device, and count what it took."""
        flight = self._flights.popleft()
        try:
            spans = flight.spans()
        except Exception as error:  # of the device itself: the writers record it for each item
            self._recorder.log("the device failed", error)
            return
        new = 0.0
        for stage, (begin, end) in spans.items():
            self._clock.add(stage, end - begin)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + end - begin
            new += self.busy.add(begin, end)
        self.operations.update(flight.operations)
        self._recorder.tally.batch(len(flight.pending), new, spans["decode"][1])


def _shape(part: _Part) -> tuple[object, ...]:
    sized = part.items[0].sized
    return sized.target, sized.references


def _told(fault: OutOfMemory) -> OutOfMemory:
    """The same fault without its traceback, which holds the tensors of the failed pass."""
    fault.__context__ = fault.__cause__ = None
    return fault.with_traceback(None)
