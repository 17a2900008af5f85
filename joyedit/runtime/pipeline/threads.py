"""Threads for calls that may never return, such as reading a file from a disk that hangs.

A call that takes too long is given up: nobody waits for its thread any more, and a new thread takes its place.
The threads are daemons, so none of them delays the end of the program.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar

from joyedit.errors import ItemError, JoyeditError, first_line, system_limit
from joyedit.job.pictures.budget import NobodyWaits
from joyedit.runtime.pipeline.awake import AwakeClock

T = TypeVar("T")

MOST_LOST = 64
"""So many threads may hang at one time before the run gives up: each holds memory and an open file."""

_POLL = 0.1
_PATIENCE = 2.0


class StoppedError(NobodyWaits):
    """The run stops; nobody waits for this any more."""


class Task(Generic[T]):
    """One call of a worker, and what came of it."""

    __slots__ = ("call", "done", "error", "give_back", "lost", "started", "value")

    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.done = threading.Event()
        self.started: float | None = None
        self.lost = False
        self.give_back: list[Callable[[], None]] = []
        self.value: T | None = None
        self.error: BaseException | None = None


class Workers:
    """A context around a few threads. `timeout` is the seconds that one call may take.

    `stopped` is asked while somebody waits. Leaving the context drops what has not begun.
    """

    def __init__(self, count: int, name: str, *, timeout: float, stopped: Callable[[], bool] = lambda: False) -> None:
        self._count = count
        self._name = name
        self._timeout = timeout
        self._stopped = stopped
        self._tasks: queue.SimpleQueue[Task[object] | None] = queue.SimpleQueue()
        self._closed = False
        self._clock = AwakeClock()
        self._lock = threading.Lock()
        self._lost = 0  # threads that hang now; one that comes back is none
        self._threads: list[threading.Thread] = []
        self._running: dict[Task[Any], None] = {}

    def __enter__(self) -> Workers:
        self._clock.start()
        for _ in range(self._count):
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._clock.stop()
        for _ in self._threads:
            self._tasks.put(None)
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def submit(self, call: Callable[[], T]) -> Task[T]:
        """Have `call` made by a worker."""
        task = Task(call)
        self._tasks.put(task)  # type: ignore[arg-type]  # the queue does not look inside
        return task

    def result(self, task: Task[T], what: str) -> T:
        """Wait for what `task` gives, or raise what it raised.

        Raises `ItemError("picture_timeout")`, which names `what`, when its time is over, `StoppedError`
        when the run stops meanwhile, and `JoyeditError` when too many threads hang.
        """
        while not task.done.wait(_POLL):
            if self._stopped() or self._closed:
                raise StoppedError
            if task.lost or self._is_overdue(task):
                self._write_off(task)
                raise self._timed_out(what)
        if task.lost and isinstance(task.error, StoppedError):  # it came back, and nobody waited for it
            raise self._timed_out(what)
        if isinstance(task.error, Exception):
            raise task.error
        if task.error is not None:
            raise JoyeditError(f"a thread that read pictures ended: {first_line(task.error)}") from task.error
        return task.value  # type: ignore[return-value]  # it is done, and without an error

    def _timed_out(self, what: str) -> ItemError:
        message = f"{what}: reading took longer than {self._timeout:g} seconds (--read-timeout allows more)"
        return ItemError("picture_timeout", message)

    def _is_overdue(self, task: Task[Any]) -> bool:
        started = task.started
        return started is not None and self._clock.seconds() - started > self._timeout

    def _write_off_overdue(self) -> None:
        """For a task that waits for what others hold: nobody may ask for the result of one that hangs."""
        with self._lock:
            overdue = [task for task in self._running if self._is_overdue(task)]
        for task in overdue:
            self._write_off(task)

    def _write_off(self, task: Task[Any]) -> None:
        """Count the thread of this task as one that hangs, start another one, and give back what the task holds."""
        with self._lock:
            if task.lost or task.done.is_set():
                return
            task.lost = True
            self._lost += 1
            lost = self._lost
            self._running.pop(task, None)
            held, task.give_back = task.give_back, []
        for give_back in held:
            give_back()
        if lost >= MOST_LOST:
            raise JoyeditError(f"{lost} pictures could not be read in time; check that their disk is still connected")
        self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads
            raise (system_limit(error) or error) from error
        self._threads.append(thread)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None or self._closed:
                return
            task.started = self._clock.seconds()
            _here.call = RunningCall(self, task)
            with self._lock:
                self._running[task] = None
            try:
                task.value = task.call()
            except BaseException as error:  # whoever waits must hear of all of them
                task.error = error
            _here.call = None
            with self._lock:
                self._running.pop(task, None)
                task.give_back = []
                task.done.set()
                if task.lost:  # another thread has taken this one's place
                    self._lost -= 1
                    return
            del task  # no picture is held while it waits for the next one


_here = threading.local()


def running_call() -> RunningCall | None:
    """The call of a worker that this thread is in; None in any other thread."""
    found: RunningCall | None = getattr(_here, "call", None)
    return found


class RunningCall:
    """What a call may tell the workers that make it."""

    def __init__(self, workers: Workers, task: Task[Any]) -> None:
        self._workers = workers
        self._task = task

    def check(self) -> None:
        """For a call that waits for others: give up those that hang. Raises `StoppedError` if nobody waits for it."""
        workers = self._workers
        if self._task.lost or workers._closed or workers._stopped():
            raise StoppedError
        workers._write_off_overdue()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which the call waits for others. Its time does not count for the call's timeout."""
        clock, task = self._workers._clock, self._task
        used = clock.seconds() - (task.started or 0.0)
        task.started = None
        try:
            yield
        finally:
            task.started = clock.seconds() - used

    def when_given_up(self, give_back: Callable[[], None]) -> None:
        """Have `give_back` called if the call takes too long and is given up."""
        with self._workers._lock:
            if not self._task.lost:
                self._task.give_back.append(give_back)
                return
        give_back()
