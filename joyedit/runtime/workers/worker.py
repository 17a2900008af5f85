"""The worker's side: it loads the model as one process does, edits what its parent sends, and sends back what came.

The main thread loads and edits, as `BatchEditor` has it. One thread reads from the parent, one waits for the device
and sends pictures. When the parent is gone, however that was, the worker ends at once: nothing holds a GPU.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.model import describe_without_loading, loader_of
from joyedit.runtime.pipeline.edit import BatchEditor
from joyedit.runtime.protocol import Backend, GroupLost, ReadyBatch
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.entry import begin
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.group import Group
from joyedit.runtime.workers.relay import Outbox, Outgoing, Relay, RelayClock
from joyedit.runtime.workers.wire import receive

POLL = 0.02
"""Seconds between two looks at a batch on the device, while nothing else is to be done."""


def serve(inbox: BinaryIO, outbox: BinaryIO, leave: Callable[[int], None] = os._exit) -> None:
    """Do what the parent says, until it is gone; then `leave` is called, in the thread that reads."""
    out = Outbox(outbox)
    start = receive(inbox)
    if start is None:
        return
    out.send(messages.Started(time.perf_counter()))
    worker = Worker(out, start, leave)
    threading.Thread(target=worker.read, args=(inbox,), name="joyedit-inbox", daemon=True).start()
    worker.run()


class Worker:
    """One worker, from `Start` on."""

    def __init__(self, out: Outbox, start: messages.Start, leave: Callable[[int], None]) -> None:
        self._out = out
        self._leave = leave
        self._start = start
        self._group: Group | None = None
        self._largest = 1  # items of a batch so far
        self._commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._backend: Backend | None = None
        self._open: set[str] = set()  # ids of items that came, and have not gone back

    def read(self, inbox: BinaryIO) -> None:
        """The thread that reads from the parent."""
        while (message := receive(inbox)) is not None:
            if isinstance(message, messages.Ask):
                threading.Thread(target=self._answer, args=(message,), name="joyedit-answer", daemon=True).start()
                continue
            if isinstance(message, messages.StopWork):
                self._stopped.set()
            self._commands.put(message)
        self._commands.put(None)
        self._end_group()
        self._leave(0)

    def run(self) -> None:
        """Load, and edit until the parent is gone. Errors that are one item's, or the run's, go to the parent.

        Raises DeviceLostError, GroupLost, and what nobody expected.
        """
        try:
            self._run()
        except GroupLost as error:
            if error.out_of_memory:
                self._out.send(messages.TooLarge(self._largest))
            raise
        finally:
            self._end_group()

    def _run(self) -> None:
        start = self._start
        try:
            if start.purpose != "edit":
                self._out.send(messages.Told(_told(start)))
                return
            assert start.config is not None
            backend = self._backend = self._load(start.config)
        except GroupLost:  # a new group may find together
            raise
        except Exception as error:
            self._out.send(messages.NotLoaded(Fault.of(error)))
            return
        ahead = 1 if start.one_by_one else backend.encode_ahead
        self._out.send(messages.Loaded(backend.info, ahead))
        clock = RelayClock()
        relay = Relay(self._out, clock, self._open, backend)
        outgoing = Outgoing(self._out, self._open, backend, self._leave)
        editor = BatchEditor(
            backend, relay, clock, relay, encode_ahead=ahead, on_step=relay.step, stopped=self._stopped.is_set
        )
        try:
            while (message := self._next(editor)) is not None:
                self._do(message, editor, outgoing, clock)
            outgoing.flush()  # for whoever calls `serve` in a thread; a process has ended by now
        except Exception as error:
            if not isinstance(error, JoyeditError) or isinstance(error, (ItemError, GroupLost)):
                raise
            self._out.send(messages.RunFault(Fault.of(error)))
            while self._commands.get() is not None:  # the parent ends the run, and this process
                pass

    def _load(self, config: RunConfig) -> Backend:
        """The model, in this process or in all of its group."""
        if self._start.layout.world == 1:
            return loader_of(config)(config)
        self._group = Group(config, self._start.layout, self._leave)
        return self._group.lead()

    def _end_group(self) -> None:
        if self._group is not None:
            self._group.end()

    def _next(self, editor: BatchEditor) -> Any:
        """The next command; None when the parent is gone. Meanwhile the times of finished batches are counted."""
        while True:
            try:
                return self._commands.get(timeout=POLL if editor.is_busy else None)
            except queue.Empty:
                editor.collect()

    def _do(self, message: object, editor: BatchEditor, outgoing: Outgoing, clock: RelayClock) -> None:
        if isinstance(message, messages.EditBatch):
            batch = message.batch()
            self._open.update(ready.sized.key for ready in batch.items)
            for part in _parts(batch, self._start.most):
                self._largest = max(self._largest, len(part.items))
                outgoing.put_all(editor.edit(part))
            if message.at_once:
                outgoing.put_all(editor.finish())
        elif isinstance(message, messages.Flush):
            outgoing.put_all(editor.finish())
        elif isinstance(message, messages.StopWork):
            outgoing.put_all(editor.finish())
            editor.drain()
            outgoing.flush()
            self._out.send(messages.Returned(tuple(self._open), clock.take()))
            self._open.clear()

    def _answer(self, ask: messages.Ask) -> None:
        """In a thread of its own: the device may be measured while it edits."""
        backend = self._backend
        assert backend is not None, "only a worker that has loaded is asked"
        value: float | None = None
        fault: Fault | None = None
        try:
            value = backend.matmul_tflops() if ask.question == "matmul" else backend.auto_batch_size(ask.target)
        except Exception as error:
            fault = Fault.of(error)
        self._out.send(messages.Answer(ask.number, value, fault))


def _parts(batch: ReadyBatch, most: int | None) -> Iterator[ReadyBatch]:
    """The batch in parts of at most so many items."""
    size = most or len(batch.items) or 1
    for first in range(0, len(batch.items), size):
        yield replace(batch, items=batch.items[first : first + size])


def _told(start: messages.Start) -> Any:
    """The answer of a worker that is to tell one thing."""
    if start.purpose == "count":
        from joyedit.runtime.tuning.device import gpu_count

        return gpu_count()
    assert isinstance(start.config, RunConfig)
    return describe_without_loading(start.config)


def main() -> None:
    """The process."""
    inbox, outbox = begin()
    code = 0
    try:
        serve(inbox, outbox)
    except BaseException:
        code = 1
        traceback.print_exc()
    os._exit(code)  # a thread still waits for the parent in `inbox`, and Python would stumble over its lock
