"""A bound on the memory of all pictures that are decoded at one time, whoever decodes them.

A picture is admitted before its first pixel is read. Whoever comes first is admitted first, so many small
pictures cannot hold up a large one. A picture that is larger than the whole budget is decoded alone, if the
machine has the memory at all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import TracebackType
from typing import Protocol

from joyedit.errors import ItemError
from joyedit.job.pictures.machine_memory import available_bytes
from joyedit.job.pictures.memory import Need
from joyedit.job.sizes import Size

SHARE = 4
"""One part in so many of the memory that is available at the first picture is for decoding."""
LEAST = 512 << 20
UNKNOWN = 2 << 30
"""The budget where the system does not tell what is available."""
SMALL = 32 << 20
"""For pictures that take less than this, nobody looks at the machine's memory."""

_POLL = 0.1


class NobodyWaits(Exception):  # noqa: N818 - no error: the picture is not wanted any more
    """The run stops, or the reading was given up: the picture is not to be decoded."""


class Caller(Protocol):
    """Who has a picture decoded, and may give it up."""

    def check(self) -> None:
        """Raises `NobodyWaits` if the picture is not wanted any more. Called from time to time while it waits."""

    def waiting(self) -> AbstractContextManager[None]:
        """A block in which the picture waits for others. Its time is not the picture's own."""

    def when_given_up(self, give_back: Callable[[], None]) -> None:
        """Have `give_back` called if the picture is given up while it is decoded."""


class PlainCaller:
    """A caller that waits as long as it takes."""

    def check(self) -> None:
        """The picture is always wanted."""

    def waiting(self) -> AbstractContextManager[None]:
        """No time is kept."""
        return nullcontext()

    def when_given_up(self, give_back: Callable[[], None]) -> None:
        """Nobody gives it up."""


class DecodeBudget:
    """At most `total` bytes for all pictures that are decoded now. `available` tells what the machine still has."""

    def __init__(self, total: int, available: Callable[[], int | None] = available_bytes) -> None:
        self.total = total
        self._available = available
        self._used = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes that are given out."""
        return self._used

    def admit(self, name: str, need: int, caller: Caller, *, work: str = "decoding it takes") -> Callable[[], None]:
        """Wait until there is room for `need` bytes; gives the call that gives them back. `work` is what they are for.

        Raises `ItemError("picture_too_large")` if the machine does not have them, and `NobodyWaits`.
        """
        ticket = object()
        caller.check()
        with self._changed:
            if self._queue or not self._is_room(name, need, work):
                self._queue.append(ticket)
                try:
                    self._wait(ticket, name, need, work, caller=caller)
                finally:
                    self._queue.remove(ticket)
                    self._changed.notify_all()
            self._used += need
        return self._give_back_once(need)

    def _wait(self, ticket: object, name: str, need: int, work: str, *, caller: Caller) -> None:
        with caller.waiting():
            while self._queue[0] is not ticket or not self._is_room(name, need, work):
                self._changed.wait(_POLL)
                caller.check()

    def _is_room(self, name: str, need: int, work: str) -> bool:
        """Raises ItemError if the picture has everything to itself, and it is not enough."""
        if self._used and self._used + need > self.total:
            return False
        available = self._available() if need > SMALL else None
        if available is None or need <= available:
            return True
        if not self._used:
            raise ItemError("picture_too_large", f"{name}: {_too_large(work, need, available)}")
        return False

    def _give_back_once(self, need: int) -> Callable[[], None]:
        held = [need]

        def give_back() -> None:
            with self._changed:
                if held:
                    self._used -= held.pop()
                    self._changed.notify_all()

        return give_back


def _too_large(work: str, need: int, available: int) -> str:
    return (
        f"{work} {need:,} bytes of memory, and {available:,} are available"
        " (make it smaller, or give this machine, container or process more memory)"
    )


class Reading:
    """A context for one picture: what it takes of the budget is given back at the end.

    With `bucket` (height, width) it also takes what fitting the picture to that size needs.
    """

    def __init__(self, budget: DecodeBudget, caller: Caller | None = None, bucket: Size | None = None) -> None:
        self.caller: Caller = PlainCaller() if caller is None else caller
        self._budget = budget
        self._bucket = bucket
        self._give_back: Callable[[], None] | None = None

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._give_back is not None:
            self._give_back()

    def admit(self, name: str, need: Need) -> None:
        """See `DecodeBudget.admit`."""
        taken = need.peak if self._bucket is None else need.with_fit(self._bucket)
        self._give_back = self._budget.admit(name, taken, self.caller)
        self.caller.when_given_up(self._give_back)


@lru_cache(maxsize=1)
def shared_budget() -> DecodeBudget:
    """The budget of this process."""
    available = available_bytes()
    return DecodeBudget(UNKNOWN if available is None else max(LEAST, available // SHARE))
