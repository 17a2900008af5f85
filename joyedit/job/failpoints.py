"""Named points where a test can make this process fail. A point costs one comparison if no test uses it.

The environment variable `JOYEDIT_FAULT` arms one failpoint: `POINT:COUNT` or `POINT:COUNT:ACTION`. The action
happens when the process reaches POINT (or `any` point) for the COUNT-th time. An error (`enospc`, `eio`,
`erofs`) happens each time from then on, like that of a full disk.

    kill    SIGKILL to this process (the default)
    int     SIGINT; the process goes on
    term    SIGTERM; the process goes on
    drop    SIGINT where Python drops what a signal's handler raises; the process goes on
    stop    SIGSTOP to this process: whoever waits for it does something meanwhile, and sends SIGCONT
    hang    the thread that reached the point stops there for ever

Points: `lock`, `journal.open`, `journal.repair`, `journal.append`, `journal.half`, `journal.appended`, `journal.fsync`,
`journal.synced`, `file.create`, `file.half`, `file.fsync`, `file.synced`, `file.rename`, `file.renamed`,
`file.folder`, `file.done`, `read`, `header`, `merge.placed`, `merge.recorded`, `merge.removed`, `merge.emptied`,
`pack.written`, `pack.noted`, `pack.placed`, `pack.recorded`, `pack.removed`, `pack.done`.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from typing import Literal, NoReturn

SWITCH = "JOYEDIT_FAULT"

Point = Literal[
    "lock", "journal.open", "journal.repair", "journal.append", "journal.half", "journal.appended", "journal.fsync",
    "journal.synced", "file.create", "file.half", "file.fsync", "file.synced", "file.rename", "file.renamed",
    "file.folder", "file.done", "read", "header", "merge.placed", "merge.recorded", "merge.removed", "merge.emptied",
    "pack.written", "pack.noted", "pack.placed", "pack.recorded", "pack.removed", "pack.done",
]  # fmt: skip

_SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "stop": signal.SIGSTOP}
_ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO, "erofs": errno.EROFS}


class _Failpoint:
    def __init__(self, text: str) -> None:
        point, count, action, *_ = [*text.split(":"), "kill"]
        self.point = point
        self.count = int(count)
        self.action = action
        self.seen = 0
        self.lock = threading.Lock()

    def reached(self, point: str) -> None:
        if self.point not in (point, "any"):
            return
        with self.lock:
            self.seen += 1
            seen = self.seen
        if self.action in _ERRORS:
            if seen >= self.count:
                number = _ERRORS[self.action]
                raise OSError(number, os.strerror(number))
        elif seen == self.count:
            self.act()

    def act(self) -> None:
        if self.action == "hang":
            _hang()
        if self.action == "drop":
            _Interrupted()
            return
        os.kill(os.getpid(), _SIGNALS.get(self.action, signal.SIGKILL))


class _Interrupted:
    """Gets SIGINT while it is deleted."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def _hang() -> NoReturn:
    while True:
        threading.Event().wait(3600)


_armed: _Failpoint | None = None


def arm(text: str | None) -> None:
    """Arm the failpoint that `text` describes; None disarms. Raises ValueError for any other text."""
    global _armed
    _armed = _Failpoint(text) if text else None


def armed() -> bool:
    """Whether a failpoint is armed. A write is then done in two steps, with a point between them."""
    return _armed is not None


def reached(point: Point) -> None:
    """This thread reaches `point`."""
    if _armed is not None:
        _armed.reached(point)


arm(os.environ.get(SWITCH))
