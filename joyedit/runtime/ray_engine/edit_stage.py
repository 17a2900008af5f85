"""The editor: a Ray actor with a GPU of its own, which takes batches through the networks as a worker process does."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.pictures import machine_memory
from joyedit.job.run_config import RunConfig
from joyedit.runtime.model import backend_loader
from joyedit.runtime.pipeline.edit import BatchEditor, EditedItem
from joyedit.runtime.protocol import Backend, ReadyBatch
from joyedit.runtime.ray_engine import environment
from joyedit.runtime.ray_engine.feed import begins
from joyedit.runtime.ray_engine.rows import ActorSays, EditedRow, Job, Outcome, ReadRow, packed, unpacked
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.relay import DeviceLostError, Outbox, Relay, RelayClock, made_or_broken
from joyedit.weights.wanted import Wanted

_ASK_SECONDS = 0.2
"""An actor asks at most so often whether the run stops."""
_LOST = 1
"""The exit code of an actor whose device answers nothing any more: Ray starts it again."""


class Collected(Outbox):
    """Keeps what a worker would send, until the row takes it along."""

    def __init__(self) -> None:
        self.messages: list[object] = []

    def send(self, message: object) -> None:
        """Keep it. Steps are of no use to anybody after the batch."""
        if not isinstance(message, messages.Step):
            self.messages.append(message)

    def take(self) -> list[object]:
        """What came since the last call."""
        found, self.messages = self.messages, []
        return found


class EditPictures:
    """What Ray makes once in each actor, and calls with each row.

    A model that cannot be loaded ends the run with its message: it is kept, and told by the first row. It is not
    raised, because Ray would start the actor again and again.
    """

    def __init__(self, job: Job) -> None:
        environment.take(job.environment)
        self._job = job
        self._fault: Fault | None = None
        self._out = Collected()
        self._clock = RelayClock()
        self._open: set[str] = set()
        self._asked = 0.0
        self._is_stopped = False
        try:
            config = here(job)
            with self._clock.stage("load"):
                self._backend: Backend = backend_loader(Wanted.of(config))(config)
        except Exception as error:
            self._fault = Fault.of(error)
            return
        self._relay = Relay(self._out, self._clock, self._open, self._backend)
        self._editor = BatchEditor(
            self._backend,
            self._relay,
            self._clock,
            self._relay,
            encode_ahead=self._backend.encode_ahead,
            on_step=self._relay.step,
            stopped=self._stopped,
        )

    def __call__(self, table: Any) -> Any:
        """A `ReadRow` becomes an `EditedRow`."""
        row = unpacked(table)
        return table if row is None else packed(self.edit(row))

    def edit(self, row: ReadRow) -> EditedRow:
        """Edit one batch. Items that are not begun, because the run stops, are left out."""
        fault = row.fault or self._fault
        items: tuple[Any, ...] = ()
        outcomes = row.outcomes
        says, died, answer = None, row.died, "none"
        if fault is None and row.batch is not None:
            answer = begins(self._job.feed, "edit", row.number)
            died = answer == "died"
            outcomes = () if died else outcomes
        if answer == "begin" and row.batch is not None:
            try:
                items, failed, says = self._edited(row.batch)
                outcomes += failed
                self._job.feed.ended.remote("edit", row.number)
            except DeviceLostError:
                traceback.print_exc()
                os._exit(_LOST)  # Ray starts the actor again, and tries the batch there
            except Exception as error:
                if isinstance(error, ItemError) or not isinstance(error, JoyeditError):
                    traceback.print_exc(file=sys.stderr)
                fault = Fault.of(error)
        return EditedRow(
            number=row.number,
            items=items,
            outcomes=outcomes,
            stages=row.stages,
            notes=row.notes,
            fault=fault,
            died=died,
            node=socket.gethostname(),
            says=says,
            replaceable=row.replaceable,
        )

    def _edited(self, batch: ReadyBatch) -> tuple[tuple[Any, ...], tuple[Outcome, ...], ActorSays]:
        size = self._job.config.batch_size or self._backend.auto_batch_size(batch.target)
        self._open.update(ready.sized.key for ready in batch.items)
        edited: list[EditedItem] = []
        for part in _parts(batch, size):
            edited += self._editor.edit(part)
        edited += self._editor.finish()
        items = tuple((one.ready, made_or_broken(one, self._backend)) for one in edited)
        self._editor.drain()
        self._open.clear()
        known = {ready.sized.key: ready for ready in batch.items}
        told = self._out.take()
        failed = tuple(
            Outcome(
                id=known[one.id].sized.item.id,
                seconds={"read": known[one.id].seconds},
                notes=known[one.id].notes,
                fault=one.fault,
            )
            for one in told
            if isinstance(one, messages.Failed)
        )
        others = tuple(one for one in told if not isinstance(one, messages.Failed))
        return items, failed, self._says(others)

    def _says(self, told: tuple[object, ...]) -> ActorSays:
        import ray

        context = ray.get_runtime_context()
        return ActorSays(
            actor=context.get_actor_id() or "",
            process=f"{context.get_node_id()}:{os.getpid()}",
            node=socket.gethostname(),
            info=self._backend.info,
            offset=time.time() - time.perf_counter(),
            messages=told,
        )

    def _stopped(self) -> bool:
        import ray

        now = time.monotonic()
        if not self._is_stopped and now - self._asked >= _ASK_SECONDS:
            self._asked = now
            self._is_stopped = ray.get(self._job.feed.is_stopped.remote())
        return self._is_stopped


def here(job: Job) -> RunConfig:
    """The configuration of one actor: all of its node share the memory of the machine."""
    free = machine_memory.available_bytes()
    spare = machine_memory.SPARE
    share = None if free is None else max(0, free - spare) // _actors_of_this_node(job) + spare
    device = "cuda" if job.is_gpu else job.config.device
    return replace(job.config, device=device, host_memory=share)


def _actors_of_this_node(job: Job) -> int:
    """How many actors this node may have at once."""
    import ray

    context = ray.get_runtime_context()
    key = "GPU" if job.is_gpu else "CPU"
    mine = float(context.get_assigned_resources().get(key) or 1)
    found: dict[str, Any] = next((node for node in ray.nodes() if node["NodeID"] == context.get_node_id()), {})
    return max(1, int(found.get("Resources", {}).get(key, 1) / mine))


def _parts(batch: ReadyBatch, size: int) -> Iterator[ReadyBatch]:
    """The batch in parts of at most so many items."""
    for first in range(0, len(batch.items), size):
        yield replace(batch, items=batch.items[first : first + size])
