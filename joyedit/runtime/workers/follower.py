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

from joyedit.job.run_config import RunConfig
from joyedit.runtime.workers.entry import begin
from joyedit.runtime.workers.wire import receive

if TYPE_CHECKING:
    from joyedit.runtime.joyimage.backend import JoyImageBackend

TOLD = 3
"""The exit code where the model could not be loaded: rank 0 has heard why."""


def main() -> None:
    """The process."""
    inbox, outbox = begin()
    outbox.close()  # nothing is said on this way
    following, code = Following(), 0
    try:
        following.serve(inbox)
    except BaseException:
        code = TOLD if following.could_not_load else 1
        if code != TOLD:
            traceback.print_exc()
    os._exit(code)  # as a worker does: a thread waits in `inbox`


class Following:
    """What the process does. `could_not_load`: rank 0 has heard of an error of loading."""

    def __init__(self) -> None:
        self.could_not_load = False

    def serve(self, inbox: BinaryIO) -> None:
        """Follow rank 0, which says in `inbox` where. Raises what `runtime.parallel.follow.follow` raises."""
        given = receive(inbox)
        if given is None:
            return
        config, place = given
        threading.Thread(target=_wait, args=(inbox, place.folder), name="joyedit-inbox", daemon=True).start()
        from joyedit.runtime.parallel.follow import follow

        follow(config, place, self.load)

    def load(self, config: RunConfig) -> JoyImageBackend:
        """As `load_backend`. It is called after rank 0 was met, and the error of it is sent there."""
        from joyedit.runtime.joyimage.loading import load_backend

        try:
            return load_backend(config)
        except Exception:
            self.could_not_load = True
            raise


def _wait(inbox: BinaryIO, folder: Path) -> None:
    """End with rank 0, whatever this process computes or waits for."""
    inbox.read(1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
