"""How a process that joyedit starts for itself begins: where its modules come from, its signals, and its pipes."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import BinaryIO

_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv.pop()); from joyedit.runtime.workers.{} import main; main()"
)
"""As `python -m joyedit.runtime.workers`, but for where modules come from: where the parent has them, and not from the
folder that somebody happens to stand in."""


def command(module: str) -> list[str]:
    """The command line of a process that runs `main` of this module of `runtime.workers`."""
    return [sys.executable, "-c", _CODE.format(module), json.dumps(sys.path)]


def begin() -> tuple[BinaryIO, BinaryIO]:
    """Its inbox was its stdin, its outbox its stdout; what anything prints goes to stderr from now on.

    Signals that end a run are ignored: the parent decides.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return inbox, outbox
