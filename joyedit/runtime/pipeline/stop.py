"""When a run is to stop before its end: on a signal, or when its time is over.

The first Ctrl-C, SIGTERM or hang-up lets the running batches finish. The second ends the process at once; only
the running batches are lost, because the journal is whole at every instant. What comes after the second changes
nothing: the last report is written, or its time ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal, NoReturn

from joyedit.errors import EXIT_INTERRUPTED
from joyedit.job.event_log import last_words
from joyedit.job.pictures.decoder_messages import stderr_number
from joyedit.runtime.pipeline.interrupts import INTERRUPTS

Reason = Literal["interrupted", "out_of_time"]

LAST_SECONDS = 2.0

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stop:
    """Called, it says whether the run is to stop; `reason` then says why. Any thread may ask.

    `max_duration` counts in seconds from now.
    """

    def __init__(self, max_duration: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.reason: Reason | None = None
        self.started = False
        self._hurried = False  # a signal came after the end: no slow reader is waited for
        self._ended = False
        self._takes_signals = False
        self.before_exit: Callable[[], None] = lambda: None
        """What is still to be done when the process ends at once; it gets `LAST_SECONDS` for that."""
        self._now = now
        self._deadline = None if max_duration is None else now() + max_duration

    def __call__(self) -> bool:
        if self.reason is None and self._deadline is not None and self._now() >= self._deadline:
            self.reason = "out_of_time"
        return self.reason is not None or self._hurried

    def interrupt(self) -> None:
        """Stop as on a first Ctrl-C."""
        self.reason = "interrupted"

    def end(self) -> None:
        """The report is about to be written: what it says is true, and a signal changes nothing any more."""
        self._ended = True
        if self._takes_signals:
            INTERRUPTS.end(self._hurry)

    def _hurry(self) -> None:
        self._hurried = True

    @contextlib.contextmanager
    def signals(self, tell: Callable[[Reason], None]) -> Iterator[None]:
        """Take the signals while this lasts, where this is the main thread; `tell` hears of the first one.

        Before `started` is set there is no batch to finish, and the first one raises KeyboardInterrupt.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        seen = 0

        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal seen
            if self._ended:
                self._hurry()
                return
            seen += 1
            if not self.started:
                self.interrupt()
                INTERRUPTS.interrupt(lambda: not self.started and not self._ended)
            if seen > 2:  # the last words are under way, and end soon
                return
            if seen == 2:
                self._exit()
            self.interrupt()
            # The signal may have come in the middle of a write to the same stream.
            with contextlib.suppress(RuntimeError, OSError):
                tell("interrupted")

        # One that is ignored (nohup) stays so.
        taken = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        with INTERRUPTS.hold():
            self._takes_signals = True
            before = {number: signal.signal(number, handle) for number in taken}
            try:
                yield
            finally:
                self._takes_signals = False
                for number, old in before.items():
                    signal.signal(number, old)

    def _exit(self) -> NoReturn:
        """End the process at once."""
        _say_at_once(last_words("stopped at once; run the same command again to continue", EXIT_INTERRUPTED))
        # A disk that does not answer must not keep the process.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(EXIT_INTERRUPTED))
        signal.setitimer(signal.ITIMER_REAL, LAST_SECONDS)
        with contextlib.suppress(Exception):
            self.before_exit()
        os._exit(EXIT_INTERRUPTED)


def _say_at_once(text: bytes) -> None:
    """Write to stderr what it takes now: neither a full pipe nor a dead terminal may keep the process."""
    with contextlib.suppress(OSError, ValueError):
        number = stderr_number()
        if select.select([], [number], [], 0)[1]:
            os.write(number, text)
