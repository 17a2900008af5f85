"""A signal that is to end work is never lost, wherever Python stood when it came.

Its handler raises KeyboardInterrupt. Where nobody can receive an exception Python drops it: in the callback of a weak
reference, in `__del__`, in C code that only asks whether there is an attribute. The exception notices that it was
dropped, and a timer raises the next one a moment later, until somebody takes it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

DELAY = 0.01
"""Seconds until the next exception: by then the code that drops exceptions has most likely ended."""


class _Interruption(KeyboardInterrupt):
    """Tells when it is dropped."""

    def __init__(self, dropped: Callable[[], None]) -> None:
        super().__init__()
        self._dropped = dropped

    def __del__(self) -> None:
        self._dropped()


class Interrupts:
    """The interruptions of this process. All methods are for the main thread, where Python runs signal handlers."""

    def __init__(self) -> None:
        self._depth = 0
        self._came = False
        self._pending = False
        self._wanted: Callable[[], bool] = _always
        self._after_end: Callable[[], None] | None = None
        self._hook_before: Callable[[Any], object] = sys.__unraisablehook__

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A block in which interruptions may be raised. What leaves it is the business of the caller."""
        if self._depth:
            self._depth += 1
        else:
            self._came = False
            self._depth, self._hook_before = 1, sys.unraisablehook
            sys.unraisablehook = self._unraisable
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                sys.unraisablehook = self._hook_before
                self._after_end = None
                self.take()
                if signal.getsignal(signal.SIGALRM) == self._alarm:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @contextmanager
    def command(self) -> Iterator[None]:
        """The block of a whole command: Ctrl-C interrupts it. One that is ignored stays so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with self.hold():
            before = signal.getsignal(signal.SIGINT)
            if before in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(signal.SIGINT, self.handle)
            try:
                yield
            finally:
                if before in (signal.default_int_handler, signal.SIG_DFL):
                    signal.signal(signal.SIGINT, before)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler that interrupts; where the work has ended, it only tells `after_end` of `end`."""
        if self._after_end is not None:
            self._after_end()
        else:
            self.interrupt()

    def interrupt(self, wanted: Callable[[], bool] | None = None) -> NoReturn:
        """Raise KeyboardInterrupt, from a signal's handler.

        If the exception was dropped, `wanted` is asked whether the next one is still to come (None: always).
        """
        self._came = self._pending = True
        self._wanted = wanted or _always
        # A timer of somebody else stays. Then the next one does not come by itself, and `is_due` tells of it.
        if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
            signal.signal(signal.SIGALRM, self._alarm)
        raise _Interruption(self._dropped)

    def take(self) -> None:
        """Whoever catches the KeyboardInterrupt and ends for it calls this: none comes again."""
        self._pending = False

    def is_due(self) -> bool:
        """Whether a signal came for which nobody has ended yet."""
        return self._pending and self._wanted()

    def end(self, after_end: Callable[[], None]) -> None:
        """The work has ended and its exit code stands: later signals raise nothing, and call `after_end`."""
        if self._depth:
            self._after_end = after_end

    def _dropped(self) -> None:
        if self._pending and signal.getsignal(signal.SIGALRM) == self._alarm:
            signal.setitimer(signal.ITIMER_REAL, DELAY)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if self.is_due() and self._after_end is None:
            self.interrupt(self._wanted)

    def _unraisable(self, found: Any) -> None:
        """Python tells of an exception that it drops. One of ours comes again, so nobody needs to know.

        A signal between the opening of a file and its block leaves the file to Python, which may warn of it.
        """
        is_ours = isinstance(found.exc_value, _Interruption)
        if not is_ours and not (self._came and issubclass(found.exc_type, ResourceWarning)):
            self._hook_before(found)


def _always() -> bool:
    return True


INTERRUPTS = Interrupts()
"""Signal handlers belong to the process, and so does this."""
