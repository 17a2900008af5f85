"""The process of any rank but the first of a group. A worker, which is rank 0, starts it.

It ends when rank 0 closes the group or is gone, however that was: nothing holds a GPU.
"""

from __future__ import annotations

import os
import shutil
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from joyedit.job.spec import RunConfig
from joyedit.runtime.workers.entry import begin
from joyedit.runtime.workers.wire import receive

if TYPE_CHECKING:
    from joyedit.runtime.joyimage.backend import JoyImageBackend

TOLD = 3
"""The exit code where the model could not be loaded: rank 0 has heard why."""


class LoadingFailed(Exception):  # noqa: N818 - it is what happened, and no fault here
    """Rank 0 has heard of the error that is its cause."""


def main() -> None:
    """The process."""
    inbox, outbox = begin()
    outbox.close()  # nothing is said on this way
    code = 0
    try:
        serve(inbox)
    except LoadingFailed:
        code = TOLD
    except BaseException:
        code = 1
        traceback.print_exc()
    os._exit(code)  # as a worker does: a thread waits in `inbox`


def serve(inbox: BinaryIO) -> None:
    """Follow rank 0, which says in `inbox` where. Raises what `follow` raises; LoadingFailed where that was loading."""
    given = receive(inbox)
    if given is None:
        return
    config, place = given
    threading.Thread(target=_wait, args=(inbox, place.folder), name="joyedit-inbox", daemon=True).start()
    from joyedit.runtime.parallel.follow import follow

    follow(config, place, _load)


def _load(config: RunConfig) -> JoyImageBackend:
    from joyedit.runtime.joyimage.loading import load_backend

    try:
        return load_backend(config)
    except Exception as error:
        raise LoadingFailed from error


def _wait(inbox: BinaryIO, folder: Path) -> None:
    """End with rank 0, whatever this process computes or waits for."""
    inbox.read(1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
