"""Threads for calls that may never return, such as reading a file from a disk that hangs.

A call that takes too long is given up: nobody waits for its thread any more, and a new thread takes its place.
The threads are daemons, so none of them delays the end of the program.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from joyedit.errors import ItemError, JoyeditError, first_line
from joyedit.runtime.pipeline.awake import AwakeClock

T = TypeVar("T")

MOST_LOST = 64
"""So many threads may hang at one time before the run gives up: each holds memory and an open file."""

_POLL = 0.1
_PATIENCE = 2.0


class StoppedError(Exception):
    """The run stops; nobody waits for this any more."""


class Task(Generic[T]):
    """One call of a worker, and what came of it."""

    __slots__ = ("call", "done", "error", "lost", "started", "value")

    def __init__(self, call: Callable[[], T]) -> None:
        self.call = call
        self.done = threading.Event()
        self.started: float | None = None
        self.lost = False
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
            if task.started is not None and self._clock.seconds() - task.started > self._timeout:
                self._write_off(task)
                message = f"{what}: reading took longer than {self._timeout:g} seconds (--read-timeout allows more)"
                raise ItemError("picture_timeout", message)
        if isinstance(task.error, Exception):
            raise task.error
        if task.error is not None:
            raise JoyeditError(f"a thread that read pictures ended: {first_line(task.error)}") from task.error
        return task.value  # type: ignore[return-value]  # it is done, and without an error

    def _write_off(self, task: Task[T]) -> None:
        """Count the thread of this task as one that hangs, and start another one."""
        with self._lock:
            if task.lost or task.done.is_set():
                return
            task.lost = True
            self._lost += 1
            lost = self._lost
        if lost >= MOST_LOST:
            raise JoyeditError(f"{lost} pictures could not be read in time; check that their disk is still connected")
        self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads
            message = "the system allows no more threads (ulimit -u and ulimit -v say how many, and how much memory)"
            raise JoyeditError(message) from error
        self._threads.append(thread)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None or self._closed:
                return
            task.started = self._clock.seconds()
            try:
                task.value = task.call()
            except BaseException as error:  # whoever waits must hear of all of them
                task.error = error
            with self._lock:
                task.done.set()
                if task.lost:  # another thread has taken this one's place
                    self._lost -= 1
                    return
            del task  # no picture is held while it waits for the next one
