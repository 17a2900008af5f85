"""Results as they are finished."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from joyedit.api.outcome import Outcome, RunInterrupted
from joyedit.api.result import Result
from joyedit.api.running import RunningRun


class Stream(Iterator[Result]):
    """An iterator over the results of a run, in the order in which they are finished; those of earlier runs too.

    The run goes on in the background while the loop works with a result. It begins with the first result that is
    asked for, takes no further items while a few hundred results wait, and is stopped when the loop is left.
    After the last result the stream raises what stopped the run, if something did.
    """

    def __init__(self, running: RunningRun) -> None:
        self._running = running
        self._begun = self._ended = False
        self._outcome: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How the run ended; None before its end."""
        return self._outcome

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Result:
        if self._ended:
            raise StopIteration
        if not self._begun:
            self._running.start()
            self._begun = True
        result = self._running.take()
        if result is not None:
            return result
        self._end()
        if self._outcome is not None and self._outcome.error is not None:
            raise self._outcome.error
        raise StopIteration

    def stop(self) -> None:
        """Let the batch in work be finished, and no other one begin. Any thread may call; the loop ends by itself."""
        self._running.stop()

    def close(self) -> None:
        """Stop, and wait for the end. What is finished stays, and `outcome` tells it."""
        self._running.stop()
        if self._begun and not self._ended:
            self._running.wait()
            self._end()
        self._ended = True

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._begun and not self._ended:
            self._running.leave()

    def _end(self) -> None:
        self._ended = True
        try:
            self._outcome = self._running.outcome()
        except RunInterrupted as interrupted:
            self._outcome = interrupted.outcome
            raise
