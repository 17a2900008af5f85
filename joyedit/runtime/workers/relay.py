"""The worker's way to its parent: what `BatchEditor` records, counts and finishes becomes messages."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import BinaryIO

from joyedit.errors import ItemError, first_line
from joyedit.job.spec import SizedItem
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import Edited
from joyedit.runtime.pipeline.running_batch import Span
from joyedit.runtime.protocol import Backend, DeviceStage, OutOfMemory
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.wire import send

STEP_SECONDS = 0.2
"""The parent hears of a denoising step at most so often."""
_WAITING = 64


class DeviceLostError(BaseException):
    """The device answers nothing any more. The worker is to die: its items did nothing wrong, and other workers can
    edit them. If it reported them as failed, it would be the least busy worker, and so fail all the others.
    """


def refuse_lost(backend: Backend, error: Exception) -> None:
    """Raises DeviceLostError if an error that nobody expected left a device that does not work."""
    if isinstance(error, (ItemError, OutOfMemory)):
        return
    try:
        backend.timestamp("decode").seconds()
    except Exception as fault:
        raise DeviceLostError(f"the device is lost: {first_line(fault)}") from error


class Outbox:
    """The pipe to the parent; any thread may send."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Where the parent is gone nothing happens: the thread that reads from it ends the process."""
        with self._lock, suppress(OSError):
            send(self._file, message)


class RelayClock(StageClock):
    """A clock whose sums go to the parent bit by bit."""

    def take(self) -> dict[str, float]:
        """The seconds of each stage since the last call, without those that are zero."""
        with self._lock:
            taken = {name: seconds for name, seconds in self._seconds.items() if seconds}
            self._seconds = dict.fromkeys(self._seconds, 0.0)
        return taken


class Relay:
    """Stands for the recorder, the counts and the device's figures of the run. `open_ids` shrinks with each failure."""

    def __init__(self, out: Outbox, clock: RelayClock, open_ids: set[str], backend: Backend) -> None:
        self.loaded: float | None = None
        self._out = out
        self._clock = clock
        self._open = open_ids
        self._backend = backend
        self._done: tuple[Mapping[DeviceStage, Span], Mapping[DeviceStage, int]] = {}, {}
        self._stepped = 0.0

    @property
    def tally(self) -> Relay:
        """Itself: it hears of batches as well."""
        return self

    def log(self, text: str, error: BaseException | None = None) -> None:
        """For joyedit.log."""
        self._out.send(messages.Log(text, "" if error is None else Fault.of(error).trace))

    def failed(self, sized: SizedItem, error: Exception, code: str, *, notes: tuple[str, ...] = ()) -> None:
        """An item that the networks could not edit. Raises DeviceLostError."""
        refuse_lost(self._backend, error)
        self._open.discard(sized.key)
        self._out.send(messages.Failed(sized.key, Fault.of(error, code)))

    def all_loaded(self, at: float) -> None:
        """All networks are on the device."""
        self.loaded = at
        self._out.send(messages.AllThere(at, self._clock.take()))

    def add(self, spans: Mapping[DeviceStage, Span], operations: Mapping[DeviceStage, int]) -> float:
        """The times of a batch; `batch` follows. How busy the device was, its parent finds out."""
        self._done = spans, operations
        return 0.0

    def batch(self, images: int, seconds: float, ended: float) -> None:
        """A batch left the device."""
        spans, operations = self._done
        self._out.send(
            messages.BatchDone(
                images=images,
                spans=dict(spans),
                operations=dict(operations),
                stages=self._clock.take(),
                peak=self._backend.peak_memory(),
                predicted=self._backend.predicted_peak(),
                exchanged=_exchanged(self._backend),
            )
        )

    def step(self, done: int, total: int) -> None:
        """A denoising step was given to the device."""
        now = time.monotonic()
        if now - self._stepped >= STEP_SECONDS:
            self._stepped = now
            self._out.send(messages.Step(done, total))


def _exchanged(backend: Backend) -> int | None:
    """Bytes that a group's first rank has sent; other backends have nobody to send to."""
    count: Callable[[], int] | None = getattr(backend, "exchanged_bytes", None)
    return None if count is None else count()


class Outgoing:
    """A thread that waits for finished pictures, and sends them in the order in which the device makes them."""

    def __init__(self, out: Outbox, open_ids: set[str], backend: Backend, leave: Callable[[int], None]) -> None:
        """`leave` ends the process, with its exit code, where the device is lost."""
        self._out = out
        self._open = open_ids
        self._backend = backend
        self._leave = leave
        self._queue: queue.Queue[Edited] = queue.Queue(_WAITING)
        threading.Thread(target=self._work, name="joyedit-outgoing", daemon=True).start()

    def put_all(self, edited: Iterable[Edited]) -> None:
        """Send these when they are finished; waits where the parent is slow."""
        for one in edited:
            self._queue.put(one)

    def flush(self) -> None:
        """Wait until everything is sent."""
        self._queue.join()

    def _work(self) -> None:
        while True:
            edited = self._queue.get()
            try:
                self._out.send(made_or_broken(edited, self._backend))
                self._open.discard(edited.ready.sized.key)
            except DeviceLostError:
                traceback.print_exc()
                self._leave(1)
            self._queue.task_done()
            del edited  # no picture is held while the next one is waited for


def made_or_broken(edited: Edited, backend: Backend) -> messages.Made | messages.Broken:
    """What is sent of an edited item; waits for the device. Raises DeviceLostError."""
    name = edited.ready.sized.key
    seconds: dict[str, float] = {}
    try:
        seconds = edited.seconds()
        return messages.Made(name, seconds, messages.Pixels.of(edited.picture()), edited.work())
    except Exception as error:
        refuse_lost(backend, error)
        return messages.Broken(name, seconds, Fault.of(error))
