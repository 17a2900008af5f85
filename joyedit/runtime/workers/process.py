"""One worker process as its parent sees it: started, spoken to, and gone.

Three threads serve each process: one sends, so that nobody waits for a worker that is slow to read; one reads what
comes, in order, into the queue of all workers; one reads what it prints. The process has a session of its own, so no
signal of the terminal reaches it, and it ends by itself when its parent is gone.
"""

from __future__ import annotations

import itertools
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, BinaryIO

from joyedit.errors import JoyeditError, os_reason
from joyedit.printable import printable
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.entry import command
from joyedit.runtime.workers.place import Place
from joyedit.runtime.workers.shared_weights import inherited
from joyedit.runtime.workers.wire import receive, send

_PIPE = 1 << 20
"""Bytes of a pipe, where the system gives so many: a picture passes in few turns."""
_LAST_LINES = 20
PATIENCE = 2.0
"""Seconds for a process to end by itself, and for the last of its messages to come."""


class WorkerEndedError(Exception):
    """The worker is gone, and answers nothing any more."""


class WorkerProcess:
    """A running worker. Its messages come into `events` as pairs of this object and the message, `Ended` last.

    `printed` are the last lines that it wrote to stderr. Raises JoyeditError where no process can be started.
    """

    def __init__(
        self, place: Place, start: messages.Start, events: queue.SimpleQueue[tuple[WorkerProcess, object] | None]
    ) -> None:
        self.place = place
        self.printed: deque[str] = deque(maxlen=_LAST_LINES)
        self._events = events
        self._offset = 0.0
        self._outgoing: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._asked: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._is_over = False
        self._gone_since: float | None = None
        try:
            self._popen = subprocess.Popen(
                command("worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=place.environment(os.environ),
                start_new_session=True,
                pass_fds=inherited(None if start.config is None else start.config.shared_weights),
            )
        except OSError as error:
            raise JoyeditError(f"cannot start {place.name}: {os_reason(error)}") from error
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._begun = time.perf_counter()
        for pipe in (self._popen.stdin, self._popen.stdout):
            _widen(pipe)
        name = f"joyedit-worker-{place.number}"
        self._threads = [
            threading.Thread(target=work, args=(pipe,), name=name, daemon=True)
            for work, pipe in (
                (self._write, self._popen.stdin),
                (self._read, self._popen.stdout),
                (self._read_errors, self._popen.stderr),
            )
        ]
        for thread in reversed(self._threads):  # the end of a process waits for what it printed
            thread.start()
        self.send(start)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._popen.pid

    def send(self, message: object) -> None:
        """Send this soon, in order. Nothing happens where the worker is gone: `Ended` tells."""
        self.send_made(lambda: message)

    def send_made(self, make: Callable[[], object]) -> None:
        """Send what `make` gives; it is called in the thread that sends."""
        self._outgoing.put(make)

    def ask(self, question: messages.Question, target: tuple[int, int] = (0, 0)) -> Future[Any]:
        """The answer, when it comes; it raises WorkerEndedError where none will come."""
        answer: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            if self._is_over:
                answer.set_exception(WorkerEndedError())
                return answer
            self._asked[number] = answer
        self.send(messages.Ask(number, question, target))
        return answer

    def at(self, seconds: float) -> float:
        """A time of the worker's clock on that of this process."""
        return seconds + self._offset

    def look(self) -> None:
        """See whether the process is gone although its pipe is open: a child of its own may hold that."""
        if self._popen.poll() is None or self._is_over:
            return
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        if now - self._gone_since > PATIENCE:
            self._end()

    def let_go(self) -> None:
        """Close its inbox: it ends. Does not wait."""
        self._outgoing.put(None)

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until it has ended, which it is made to after some seconds."""
        self.let_go()
        try:
            self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            self._popen.wait()
        for thread in self._threads:
            thread.join(PATIENCE)
        for pipe, thread in zip((self._popen.stdout, self._popen.stderr), self._threads[1:], strict=True):
            if pipe is not None and not thread.is_alive():
                pipe.close()

    def _write(self, pipe: BinaryIO) -> None:
        with suppress(OSError):  # nobody reads any more; whoever reads from the worker tells of its end
            while (make := self._outgoing.get()) is not None:
                send(pipe, make())
        with suppress(OSError):
            pipe.close()

    def _read(self, pipe: BinaryIO) -> None:
        try:
            while (message := receive(pipe)) is not None:
                if isinstance(message, messages.Started):
                    self._offset = _offset(self._begun, message.clock, time.perf_counter())
                elif isinstance(message, messages.Answer):
                    self._answered(message)
                else:
                    self._events.put((self, message))
        except Exception as error:  # it wrote something else, or there is no memory for it
            self.printed.append(f"its messages cannot be read: {error}")
        self._end()

    def _read_errors(self, pipe: BinaryIO) -> None:
        for line in pipe:
            self.printed.append(printable(line.decode("utf-8", "replace").rstrip()))

    def _answered(self, message: messages.Answer) -> None:
        with self._lock:
            answer = self._asked.pop(message.number, None)
        if answer is None:
            return
        if message.fault is not None:
            answer.set_exception(message.fault.of_run())
        else:
            answer.set_result(message.value)

    def _end(self) -> None:
        """Tell of the end, once."""
        try:
            self._popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it closed its pipe, and computes on
            self.kill()
            self._popen.wait()
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            asked, self._asked = list(self._asked.values()), {}
        for answer in asked:
            answer.set_exception(WorkerEndedError())
        self._outgoing.put(None)
        self._threads[2].join(PATIENCE)  # its last words
        self._events.put((self, messages.Ended(_how(self._popen.returncode))))


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _offset(begun: float, clock: float, now: float) -> float:
    """What to add to a worker's clock, which said `clock` between two times here: 0 where both may be one clock."""
    return 0.0 if begun <= clock <= now else (begun + now) / 2 - clock


def _widen(pipe: Any) -> None:
    with suppress(ImportError, AttributeError, OSError):  # not every system can, and a user has a limit for all pipes
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
