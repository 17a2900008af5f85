"""A worker that makes each picture with several devices: rank 0, and the processes of the other ranks.

The group is one to the parent of the worker: when a rank is gone, the worker ends too, and the parent starts a new one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyedit.errors import JoyeditError, os_reason
from joyedit.job.run_config import RunConfig
from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.protocol import Backend
from joyedit.runtime.workers.entry import command
from joyedit.runtime.workers.follower import TOLD
from joyedit.runtime.workers.shared_weights import inherited
from joyedit.runtime.workers.wire import send

if TYPE_CHECKING:
    from joyedit.runtime.joyimage.backend import JoyImageBackend

PATIENCE = 10.0
"""Seconds in which rank 0 may find out by itself what became of a rank that ended with an error."""

ENDING = 1.0
"""Seconds to wait for the other ranks to end, so that whoever ran joyedit finds the devices free."""


class Group:
    """The ranks of one start. `leave` ends this process with an exit code; it is called where a rank is gone."""

    def __init__(self, config: RunConfig, layout: Layout, leave: Callable[[int], None]) -> None:
        self._config = config
        self._layout = layout
        self._leave = leave
        self._folder = Path(tempfile.mkdtemp(prefix="joyedit-group-"))
        self._are_linked = False
        self._is_over = False
        self._others: list[subprocess.Popen[bytes]] = []

    def lead(self) -> Backend:
        """Start the other ranks, and load the model with them. Raises JoyeditError where no process can be started, and
        what `runtime.parallel.lead.lead` raises.
        """
        for rank in range(1, self._layout.world):
            self._start(rank)
        from joyedit.runtime.joyimage.loading import load_backend
        from joyedit.runtime.parallel.lead import lead

        def load(config: RunConfig) -> JoyImageBackend:
            self._are_linked = True
            return load_backend(config)

        return lead(self._config, self._place(0), load)

    def end(self) -> None:
        """Let the other ranks end, and remove what they met by. Any thread may call this, more than once."""
        self._is_over = True
        for other in self._others:
            assert other.stdin is not None
            with suppress(OSError):
                other.stdin.close()
        until = time.monotonic() + ENDING
        for other in self._others:
            with suppress(subprocess.TimeoutExpired):  # it ends by itself
                other.wait(max(0.0, until - time.monotonic()))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, rank: int) -> Place:
        device = None if self._config.device == "cpu" else rank
        return Place(rank=rank, layout=self._layout, folder=self._folder, device=device)

    def _start(self, rank: int) -> None:
        try:
            other = subprocess.Popen(
                command("follower"),
                stdin=subprocess.PIPE,
                start_new_session=True,
                pass_fds=inherited(self._config.shared_weights),
            )
        except OSError as error:
            raise JoyeditError(f"cannot start rank {rank} of a group: {os_reason(error)}") from error
        self._others.append(other)
        pipe: Any = other.stdin
        with suppress(OSError):  # it is gone, which `_watch` sees
            send(pipe, (self._config, self._place(rank)))
        threading.Thread(target=self._watch, args=(rank, other), name=f"joyedit-rank-{rank}", daemon=True).start()

    def _watch(self, rank: int, other: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a rank. This process then ends too: at once where the rank was killed, or had not come
        to the group; otherwise after a while, as it may tell its parent more.
        """
        code = other.wait()
        if code == TOLD:  # what it said ends the loading here
            return
        if self._are_linked and code >= 0:
            time.sleep(PATIENCE)
        if not self._is_over:
            how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
            print(f"rank {rank} of the group died ({how})", file=sys.stderr, flush=True)
            self.end()
            self._leave(1)
