"""Rows on their way from a program to a run in another thread.

The program's iterator is asked in the thread that called joyedit, never in another one: a cursor of a database may
belong to that thread, and Ctrl-C interrupts a generator that waits. Only a few rows wait here.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from joyedit.errors import JoyeditError, first_line
from joyedit.job.source.source import SourceStoppedError

AHEAD = 16
"""So many rows are asked for before the run takes them."""
_POLL = 0.1


class BrokenIteratorError(JoyeditError):
    """The program's iterator raised an error, which is the cause of this one."""


class _End:
    """Behind the last row; with the error of the iterator, if it raised one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class RowFeed:
    """`pull` and `wants` are for the thread that has the iterator, `rows` is for that of the run.

    `on_taken` is called by the run when there is room for another row.
    """

    def __init__(self, rows: Iterable[Any], name: str) -> None:
        self._given = rows
        self._name = name
        self._iterator: Iterator[Any] | None = None
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pulled = 0
        self._asked = False
        self.ended = False
        self.on_taken: Callable[[], None] = _nothing

    def wants(self) -> bool:
        """Whether the run has begun to ask for rows and has room for another one."""
        return self._asked and not self.ended and self._queue.qsize() < AHEAD

    def pull(self) -> None:
        """Ask the iterator for one row. Its error goes to the run; an interruption is raised here."""
        try:
            if self._iterator is None:
                self._iterator = iter(self._given)
            row = next(self._iterator)
        except StopIteration:
            self._end(_End())
        except Exception as error:
            self._end(_End(error))
        else:
            self._pulled += 1
            self._queue.put(row)

    def close(self) -> None:
        """No more rows are asked for. A generator ends as after a loop over it."""
        self.ended = True
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if callable(close):
            close()

    def rows(self, stopped: Callable[[], bool]) -> Iterator[Any]:
        """The rows. Raises SourceStoppedError when `stopped` says so, and BrokenIteratorError."""
        count = 0
        while True:
            self._asked = True
            self.on_taken()
            row = self._take(stopped)
            if isinstance(row, _End):
                if row.error is None:
                    return
                text = f"{type(row.error).__name__}: {first_line(row.error)}".removesuffix(": ")
                message = f"{self._name}[{count}]: the iterator raised {text} (the items before it are done)"
                raise BrokenIteratorError(message) from row.error
            count += 1
            yield row
            del row

    def _take(self, stopped: Callable[[], bool]) -> Any:
        while True:
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                if stopped():
                    raise SourceStoppedError("the run stopped while it waited for the iterator") from None

    def _end(self, end: _End) -> None:
        self.ended = True
        self._queue.put(end)


def _nothing() -> None:
    """Nobody waits."""
