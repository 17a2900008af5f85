"""A run in a thread of its own, and the caller that serves it: gives rows, takes results, draws, and may interrupt it.

The run itself needs no signal. So it works from any thread and under a running event loop, and Ctrl-C reaches the
caller, in whose thread Python raises it. The first one lets the batch in work be finished, the second drops it, and the
third waits no longer.
"""

from __future__ import annotations

import atexit
import contextvars
import ctypes
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from types import FrameType
from typing import Any
from weakref import WeakValueDictionary

from joyedit.api.display import Display
from joyedit.api.folder import ResultFolder
from joyedit.api.outcome import Outcome, RunInterrupted, remember
from joyedit.api.result import Result
from joyedit.api.result_list import ResultList
from joyedit.api.spelling import respelled
from joyedit.api.watch import FINISHED, RunWatch
from joyedit.errors import JoyeditError, UsageError, first_line
from joyedit.job.results.records import parse
from joyedit.job.source.python.feed import RowFeed
from joyedit.request import Request, run_request
from joyedit.runtime.run import RunOutcome

_POLL = 0.1
_AT_START = 5.0
"""A thread that has not begun after so many seconds never will."""
_AT_EXIT = 30.0
"""When the interpreter ends, a run that is left has so many seconds for its end."""

_living: WeakValueDictionary[str, RunningRun] = WeakValueDictionary()
"""The runs by their folders. The thread of a run holds it; a stream that was left holds nothing after that."""


class RunningRun:
    """One run. Only the thread that made it calls `results` and `wait`; any thread may call `stop`."""

    def __init__(
        self, request: Request, feed: RowFeed | None, watch: RunWatch, display: Display, folder: ResultFolder
    ) -> None:
        self._request = request
        self._feed = feed
        self._watch = watch
        self._display = display
        self._folder = folder
        self._made: RunOutcome | None = None
        self._error: BaseException | None = None
        self._interrupts = 0
        self._last: Result | None = None  # that of the one picture, whose file comes at the end of the run
        self._ident: int | None = None  # of the run's thread, once that has begun
        self._over = threading.Lock()  # held as long as the run goes on; no signal can break a wait for it
        self._key = os.path.realpath(request.config.output)
        self.stopped = False
        request.source.on_item = watch.item
        if feed is not None:
            feed.on_taken = lambda: watch.events.put(None)

    def start(self) -> None:
        """Begin. A run of this program into the same folder that is about to end is waited for.

        Raises UsageError where one goes on there.
        """
        before = _living.get(self._key)
        if before is not None and before.is_alive():
            if not before.stopped:
                raise UsageError(f"a stream of this program still edits into {self._key} (close it, or go on with it)")
            before.join()
        context, device = contextvars.copy_context(), _chosen_device()
        thread = threading.Thread(target=context.run, args=(self._work, device), name="joyedit", daemon=True)
        _living[self._key] = self
        atexit.unregister(_end_all)
        atexit.register(_end_all)  # what comes last runs first: a temporary folder is removed after its run has ended
        self._over.acquire()
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._over.release()
            raise
        except KeyboardInterrupt:
            until = time.monotonic() + _AT_START
            while self._ident is None:
                if time.monotonic() > until:
                    raise RunInterrupted(None) from None
                time.sleep(_POLL / 10)
            self._interrupted()

    def is_alive(self) -> bool:
        """Whether the run goes on."""
        return self._over.locked()

    def join(self, seconds: float = -1) -> None:
        """Wait for the end, at most so many seconds."""
        if self._over.acquire(timeout=seconds):
            self._over.release()

    def stop(self) -> None:
        """Stop as on a first Ctrl-C. Does not wait, and raises nothing."""
        self.stopped = True
        self._watch.interrupt()

    def leave(self) -> None:
        """Nobody takes results any more: stop, and ask the iterator for nothing. Raises nothing."""
        self.stop()
        if self._feed is not None:
            with suppress(Exception):  # there is nobody to tell it to
                self._feed.close()

    def take(self) -> Result | None:
        """The next result; None at the end of the run. An interruption ends the run first, and is raised then."""
        while True:
            try:
                with _other_signals():
                    return self._taken()
            except RunInterrupted:
                raise
            except KeyboardInterrupt:
                self._interrupted()

    def wait(self) -> None:
        """Wait for the end. An interruption ends the run first, and is raised by `outcome` then."""
        while self.take() is not None:
            pass

    def outcome(self) -> Outcome:
        """How the run ended. Raises what it raised, and RunInterrupted where the caller was interrupted."""
        if self._made is None:
            if isinstance(self._error, KeyboardInterrupt) and not isinstance(self._error, RunInterrupted):
                raise RunInterrupted(None) from None
            assert self._error is not None, "a run that ended has an outcome or an error"
            raise respelled(self._error) if isinstance(self._error, JoyeditError) else self._error
        picture = self._request.picture
        results = ResultList(
            self._folder,
            self._watch.sorted_ids(),
            held=None if picture is None else self._watch.held,
            file=None if picture is None else picture.path,
        )
        known = {one.name: getattr(self._made, one.name) for one in fields(RunOutcome)}
        folder = self._folder.path if picture is None else picture.path.parent
        if self._made.error is not None:
            respelled(self._made.error)
        outcome = remember(Outcome(**known, results=results, folder=folder, notes=tuple(self._watch.notes)))
        if self._interrupts:
            raise RunInterrupted(outcome)
        return outcome

    def _taken(self) -> Result | None:
        while True:
            found = self._turn()
            if isinstance(found, Result) and not self._interrupts:
                return found
            if found is None:
                last, self._last = self._last, None
                if last is not None and self._made is not None and not self._interrupts:
                    return last
                self._close()
                return None

    def _turn(self) -> Result | bool | None:
        """One turn of the caller: a result, True for anything else, None at the end."""
        watch, feed = self._watch, self._feed
        while feed is not None and feed.wants() and not self.stopped and watch.events.empty():
            feed.pull()
        self._display.update(watch)
        try:
            event = watch.events.get(timeout=_POLL)
        except queue.Empty:
            return True if self.is_alive() or not watch.events.empty() else None
        if event is None:
            return True
        line, was_done = event
        picture = self._request.picture
        file = None if picture is None else picture.path
        result = Result(parse(line.encode()) or {}, self._folder, was_done=was_done, file=file)
        if picture is None:
            return result
        self._last = result
        return True

    def _interrupted(self) -> None:
        """The caller was interrupted. Raises KeyboardInterrupt at the third time."""
        self._interrupts += 1
        self.stopped = True
        if self._interrupts == 1:
            if not self._watch.interrupt():
                self._raise_in_run()
        elif self._interrupts == 2:
            self._watch.drop()
        else:
            raise RunInterrupted(None)

    def _raise_in_run(self) -> None:
        """Raise KeyboardInterrupt in the run's thread: there is no batch yet that could be finished."""
        if self._ident is not None and self.is_alive():
            number, error = ctypes.c_ulong(self._ident), ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error)

    def _close(self) -> None:
        self.join()
        if _living.get(self._key) is self:
            del _living[self._key]
        if self._feed is not None:
            try:
                self._feed.close()
            except Exception as error:  # the run is done, and its outcome must not be lost
                self._watch.note(f"the iterator raised {type(error).__name__} when it was closed: {first_line(error)}")
        if self._made is not None:
            self._watch.end(_ENDINGS.get(self._made.report.state, "stopped"))
        else:
            self._watch.end("interrupted" if self._interrupts else "refused")
        self._display.close(self._watch)

    def _work(self, choose_device: Callable[[], None]) -> None:
        """The thread of the run."""
        try:
            self._ident = threading.get_ident()
            choose_device()
            self._made = run_request(self._request, self._watch, page_stopped=self._watch.is_page_stopped)
        except BaseException as error:  # the caller raises it
            self._error = error
        finally:
            self._over.release()
            self._watch.events.put(None)


_ENDINGS = {"complete": FINISHED, "interrupted": "interrupted", "out_of_time": "out of time"}


@contextmanager
def _other_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, which would end the process at once, interrupt as Ctrl-C does while this lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _chosen_device() -> Callable[[], None]:
    """Makes the GPU that the caller chose with torch that of another thread, too: torch keeps it for each thread."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return lambda: None
    device = torch.cuda.current_device()
    return lambda: torch.cuda.set_device(device)


def _end_all() -> None:
    """The interpreter ends: what is left of streams is stopped, and their journals are whole in any case."""
    for one in [*_living.values()]:
        if one.is_alive():
            one.stop()
            one._watch.drop()
            one.join(_AT_EXIT)
