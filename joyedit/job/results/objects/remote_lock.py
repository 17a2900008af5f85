"""One driver at a time below an address: an object that names its holder, and is renewed while that lives.

Stores have no locks of a kernel, so this is the best that can be: a store that can refuse a taken name gives the lock
to one driver alone; on others two that begin in the same moment may both have it. Whoever finds its lock taken over
stops.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from joyedit.errors import OutputError
from joyedit.job.results.lock import holder_text, myself
from joyedit.job.results.objects.names import LOCK_OBJECT
from joyedit.job.results.objects.store import ObjectStore

RENEW_SECONDS = 20.0
STALE_SECONDS = 120.0
"""A lock that was not renewed for so long is that of a dead driver."""
SETTLE_SECONDS = 2.0
"""Two drivers that find such a lock in the same moment both write theirs; so much later each finds the last one."""


class RemoteLock:
    """The lock of one prefix. `dead` is the token of a driver that is known to be gone; its lock counts for nothing.

    `note` says whose lock was taken over.
    """

    def __init__(self, store: ObjectStore, *, dead: str = "", now: Callable[[], float] = time.time) -> None:
        self.token = secrets.token_hex(8)
        self.note: str | None = None
        self._store = store
        self._dead = dead
        self._now = now
        self._renewed = 0.0
        self._me = myself()
        self._held = False

    def acquire(self) -> None:
        """Take the lock. Raises OutputError where another driver has it, or the store cannot be written."""
        try:
            self._write(is_new=True)
        except FileExistsError:
            found = read_lock(self._store)
            if found is not None and found.get("token") != self._dead and self._is_fresh(found):
                raise OutputError(self._taken(found)) from None
            is_of_another = found is not None and found.get("token") != self._dead
            if found is not None and is_of_another:
                ago = f"not renewed for {STALE_SECONDS:g} s and more"
                self.note = f"took over the lock of {holder_text(found)}, {ago}"
            self._write(is_new=False)
            if is_of_another:
                time.sleep(SETTLE_SECONDS)
            self.check()
        self._held = True

    def renew(self) -> None:
        """Renew the lock if it is time. Raises OutputError where another driver has taken it over."""
        if self._held and self._now() - self._renewed >= RENEW_SECONDS:
            self.check()
            self._write(is_new=False)

    def check(self) -> None:
        """Raises OutputError where the lock is not this driver's."""
        found = read_lock(self._store)
        if found is None or found.get("token") != self.token:
            who = "nobody" if found is None else holder_text(found)
            raise OutputError(f"{self._store.shown}: the lock of this run was taken away, {who} has it now")

    def release(self) -> None:
        """Remove the lock, if it is still this driver's. A second call does nothing."""
        if self._held:
            self._held = False
            found = read_lock(self._store)
            if found is not None and found.get("token") == self.token:
                self._store.remove(LOCK_OBJECT)

    def _write(self, *, is_new: bool) -> None:
        self._renewed = self._now()
        data = json.dumps({**self._me, "token": self.token, "renewed": self._renewed}).encode()
        self._store.write(LOCK_OBJECT, data, is_new=is_new)

    def _is_fresh(self, found: dict[str, Any]) -> bool:
        return is_fresh(found, self._now())

    def _taken(self, found: dict[str, Any]) -> str:
        ago = max(0.0, self._now() - float(found["renewed"]))
        return (
            f"another run writes to {self._store.shown}: {holder_text(found)}; wait for it, or stop it (if it is dead:"
            f" its last sign of life is {ago:.0f} s old, and after {STALE_SECONDS:g} s the same command takes over)"
        )


def read_lock(store: ObjectStore) -> dict[str, Any] | None:
    """What the lock says: pid, user, host, since, token, renewed; None where there is none."""
    data = store.read(LOCK_OBJECT)
    if data is None:
        return None
    try:
        read = json.loads(data)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def is_fresh(found: dict[str, Any], now: float | None = None) -> bool:
    """Whether a lock was renewed lately; by the clocks of two machines, so a difference of theirs counts."""
    renewed = found.get("renewed")
    now = time.time() if now is None else now
    return isinstance(renewed, (int, float)) and abs(now - renewed) < STALE_SECONDS
