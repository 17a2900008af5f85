"""What the parent needs to know before there are workers, and only torch can tell: a process is started for it.

The parent itself loads no torch, and takes no memory of a GPU.
"""

from __future__ import annotations

import queue
from typing import Any, Literal, overload

from joyedit.job.run_config import RunConfig
from joyedit.runtime.protocol import BackendInfo
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.faults import InWorkerError
from joyedit.runtime.workers.place import Place
from joyedit.runtime.workers.process import WorkerProcess


@overload
def ask_worker(purpose: Literal["count"]) -> int: ...
@overload
def ask_worker(purpose: Literal["describe"], place: Place, config: RunConfig) -> BackendInfo: ...
def ask_worker(purpose: messages.Purpose, place: Place | None = None, config: RunConfig | None = None) -> Any:
    """How many GPUs torch sees, or what loading would tell of the model. Raises what finding that out raises."""
    events: queue.SimpleQueue[tuple[WorkerProcess, object] | None] = queue.SimpleQueue()
    process = WorkerProcess(place or Place(number=0), messages.Start(purpose, config), events)
    try:
        while True:
            event = events.get()
            message = None if event is None else event[1]
            if isinstance(message, messages.Told):
                return message.value
            if isinstance(message, messages.NotLoaded):
                raise message.fault.of_run()
            if isinstance(message, messages.Ended):
                printed = "\n".join(process.printed)
                raise InWorkerError(f"a process that was to look at the model died ({message.how})\n{printed}".rstrip())
    finally:
        process.close()
