"""Standard streams that cannot stop or change a run.

stdout and stderr may be closed, full, a terminal that is gone, or a pipe that nobody reads. A thread writes to both
in the order in which the text came. What cannot be written is dropped, and the command goes on to its own end and
its own exit code. A reader that is only slow is waited for, until the run is to stop.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from joyedit.job.pictures.decoder_messages import set_catching
from joyedit.job.pictures.python_warnings import set_warning_hook

MOST_PENDING = 4096
"""Texts that may wait for their readers before whoever writes has to wait too."""

GRACE = 3.0
"""Seconds without progress after which readers are given up, once the run is to stop."""

_POLL = 0.02


def secure_descriptors() -> None:
    """Open the null device in place of each of the descriptors 0, 1 and 2 that is closed.

    Otherwise the next file that is opened gets that number, and messages of a library end up inside it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if opened != number:  # a lower one was closed by another thread
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


class Pump:
    """A thread that writes bytes to descriptors. `stopped` says whether the run is to stop; any thread may write.

    A signal's handler may write too: nothing here takes a lock that the interrupted code could hold. `own` maps
    descriptors to duplicates that are written in their place.
    """

    def __init__(self, own: Mapping[int, int] | None = None) -> None:
        self._own = dict(own or {})
        self._is_closing = False
        self.stopped: Callable[[], bool] = lambda: False
        self._queue: queue.SimpleQueue[tuple[int, bytes] | threading.Event] = queue.SimpleQueue()
        self._known: set[int] = set()
        self._dead: set[int] = set()
        self._failures: dict[int, OSError] = {}
        self._progress = time.monotonic()
        threading.Thread(target=self._work, name="joyedit-output", daemon=True).start()

    def own_number(self, number: int) -> int | None:
        """The duplicate that is written in place of this descriptor; None if there is none."""
        return self._own.get(number)

    def write(self, number: int, data: bytes) -> None:
        """Take `data` for the descriptor; waits while very much is pending. Drops it where nobody will read it."""
        while self._queue.qsize() > MOST_PENDING and number not in self._dead:
            self._give_up_if_stuck()
            time.sleep(_POLL)
        if number not in self._dead:
            self._known.add(number)
            if self._queue.empty():
                self._progress = time.monotonic()  # nothing was pending, so nobody was slow before
            self._queue.put((number, data))

    def drain(self) -> None:
        """Wait until everything is written or dropped."""
        done = threading.Event()
        self._queue.put(done)
        while not done.wait(_POLL):
            self._give_up_if_stuck()

    def failure(self, number: int) -> OSError | None:
        """Why the descriptor took no more, as far as it is known by now; None also where its reader has left."""
        return self._failures.get(number)

    def close(self) -> None:
        """Drain, and give the duplicates back. What comes later goes to the descriptors themselves."""
        self._is_closing = True
        self.drain()

    def _give_up_if_stuck(self) -> None:
        if self.stopped() and time.monotonic() - self._progress > GRACE:
            self._dead |= self._known

    def _work(self) -> None:
        while True:
            entry = self._queue.get()
            if isinstance(entry, threading.Event):
                while self._is_closing and self._own:  # here, so that no number is used after it is closed
                    os.close(self._own.popitem()[1])
                entry.set()
                self._progress = time.monotonic()
            else:
                try:
                    self._write(*entry)
                except MemoryError:  # the next one may find some
                    self._progress = time.monotonic()

    def _write(self, number: int, data: bytes) -> None:
        rest = memoryview(data)
        own = self._own.get(number, number)
        while rest and number not in self._dead:
            try:
                # A pipe that is ready takes this much without waiting, so nothing here hangs for ever.
                if select.select([], [own], [], _POLL)[1]:
                    rest = rest[os.write(own, rest[: select.PIPE_BUF]) :]
                    self._progress = time.monotonic()
            except BlockingIOError:  # somebody else made the pipe non-blocking, and took the room
                continue
            except (OSError, ValueError) as error:  # full, gone, closed
                if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                    self._failures.setdefault(number, error)
                self._dead.add(number)


def _write_at_once(number: int, data: bytes) -> None:
    """Write without a thread, where none is to be had. What cannot be written within `GRACE` is dropped."""
    until = time.monotonic() + GRACE
    with contextlib.suppress(OSError, ValueError):
        while data and time.monotonic() < until:
            if select.select([], [number], [], _POLL)[1]:
                with contextlib.suppress(BlockingIOError):  # somebody else took the room
                    data = data[os.write(number, data[: select.PIPE_BUF]) :]


class _Raw(io.RawIOBase):
    """A descriptor as a file of bytes that never fails; `write` writes to it."""

    def __init__(self, write: Callable[[int, bytes], None], number: int) -> None:
        self._write = write
        self._number = number
        self._is_terminal = os.isatty(number)

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """As it was at the start, also when the terminal goes away later."""
        return self._is_terminal

    def fileno(self) -> int:
        """The descriptor, for those who ask for the size of a terminal."""
        return self._number

    def write(self, data: Any) -> int:
        """All of it is written, or dropped."""
        taken = bytes(data)
        self._write(self._number, taken)
        return len(taken)


@contextlib.contextmanager
def safe_streams() -> Iterator[Pump | None]:
    """Let sys.stdout and sys.stderr write through a pump. Gives None where they were replaced by somebody else."""
    secure_descriptors()
    before = sys.stdout, sys.stderr
    if not all(_is_descriptor(stream, number) for number, stream in enumerate(before, 1)):
        yield None
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    own = _duplicates()
    pump = None
    try:
        pump = Pump(own)
    except (RuntimeError, MemoryError):  # no thread is to be had: the command tells why it ends
        for number in own.values():
            os.close(number)
    write = _write_at_once if pump is None else pump.write
    sys.stdout, sys.stderr = (_text(write, number, stream) for number, stream in enumerate(before, 1))
    set_catching(bool(own) and pump is not None)
    set_warning_hook(True)
    try:
        yield pump
    finally:
        set_catching(False)
        set_warning_hook(False)
        if pump is not None:
            pump.close()
        sys.stdout, sys.stderr = before


def _duplicates() -> dict[int, int]:
    """A duplicate of descriptor 2, which the pump writes: a library's messages on 2 itself can then be caught."""
    try:
        return {2: os.dup(2)}
    except OSError:  # no descriptor is left
        return {}


def _is_descriptor(stream: Any, number: int) -> bool:
    try:
        return bool(stream.fileno() == number)
    except (OSError, ValueError, AttributeError):  # a test's, or closed
        return False


def _text(write: Callable[[int, bytes], None], number: int, like: Any) -> io.TextIOWrapper:
    # What the encoding does not know is written as an escape: a message must not fail for that. Results are data for
    # other programs, whatever PYTHONIOENCODING says: an escape would be no JSON, and no path.
    is_data = number == 1 and not os.isatty(number)
    encoding = "utf-8" if is_data else getattr(like, "encoding", None) or "utf-8"
    raw: Any = _Raw(write, number)
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
