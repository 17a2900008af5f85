"""Rank 0 hears what becomes of the other ranks while it takes part itself in what all of them do. No torch here."""

from __future__ import annotations

import threading
from collections.abc import Callable

from joyedit.runtime.parallel.links import Links
from joyedit.runtime.parallel.outcome import OK, Outcome
from joyedit.runtime.protocol import GroupLost

PAUSE = 0.2
"""Seconds until it sees that nobody wants to know any more."""


class Watch:
    """A thread that takes the other ranks' outcomes. It calls `broken` once if one fails or is gone: the exchanges that
    rank 0 waits for then never come.
    """

    def __init__(self, links: Links, ranks: int, broken: Callable[[], None]) -> None:
        """`ranks`: how many others there are."""
        self._links = links
        self._count = ranks
        self._broken = broken
        self._found: dict[int, Outcome] = {}
        self._lost: GroupLost | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="joyedit-watch", daemon=True)
        self._thread.start()

    def failed(self) -> Exception | None:
        """Wait for all outcomes, or for the first that is none; gives its error."""
        self._thread.join()
        return self._error()

    def why(self) -> Exception | None:
        """Stop, and give what was heard so far of an error."""
        self._stopped.set()
        self._thread.join()
        if self._error() is None:
            self._look(0.0)  # what was said in the last moment
        return self._error()

    def _error(self) -> Exception | None:
        for rank, outcome in self._found.items():
            if outcome != OK:
                return outcome.error(rank)
        return self._lost

    def _watch(self) -> None:
        while len(self._found) < self._count and self._error() is None and not self._stopped.is_set():
            self._look(PAUSE)
        if self._error() is not None:
            self._broken()

    def _look(self, seconds: float) -> None:
        try:
            self._found |= self._links.hear_some(self._found, seconds)
        except GroupLost as error:
            self._lost = error
