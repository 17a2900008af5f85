"""Takes the run's batches through all its workers. `edit`, `finish` and `drain` are for the main thread.

A thread of its own hands batches to workers and takes what they send, so a finished picture is written at once,
whatever the main thread waits for. What a worker's death leaves is tried again; see `dispatch`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.results.given_up import KILLED_WORKERS
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import Edited
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.stats import RunStats
from joyedit.runtime.pipeline.worker_stats import FleetStats
from joyedit.runtime.protocol import LoadedModel, ReadyBatch, ReadyItem
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.dispatch import DEATHS, Dispatch
from joyedit.runtime.workers.faults import InWorkerError
from joyedit.runtime.workers.fleet import Fleet, Member
from joyedit.runtime.workers.process import WorkerProcess

_POLL = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedItem:
    """An item that came back from a worker: with its picture, or with what it has instead."""

    ready: ReadyItem
    result: messages.Made | messages.Broken

    def seconds(self) -> dict[str, float]:
        """Its share of each stage."""
        return {"read": self.ready.seconds, **self.result.seconds}

    def work(self) -> BlockSteps | None:
        """What ran of its steps; None where nothing was left out."""
        return self.result.work if isinstance(self.result, messages.Made) else None

    def picture(self) -> Image.Image:
        """RGB, of the target's size. Raises the ItemError that its record tells."""
        if isinstance(self.result, messages.Broken):
            raise self.result.fault.of_item()
        return self.result.pixels.picture()


class FleetEditor:
    """A context around that thread. `give` gets each finished item, to write it; `dropped` as in `BatchEditor`.

    The methods raise what ended the run: an error of a worker that concerns all items, DeviceError where no worker is
    left, or what `give` raises.
    """

    def __init__(
        self,
        fleet: Fleet,
        recorder: Recorder,
        clock: StageClock,
        stats: FleetStats,
        *,
        give: Callable[[Edited], None],
        progress: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        self.dropped = False
        self._fleet = fleet
        self._recorder = recorder
        self._clock = clock
        self._stats = stats
        self._give = give
        self._progress = progress
        self._stopped = stopped
        self._has_told_stop = False
        self._fatal: BaseException | None = None
        self._left = False
        self._dispatch = Dispatch(max(2, fleet.encode_ahead + 1))
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._conduct, name="joyedit-workers", daemon=True)
        for member in fleet.ready():
            self._joined(member)

    def __enter__(self) -> FleetEditor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._left = True
        self._wake()
        self._thread.join()

    def is_broken(self) -> bool:
        """Whether something ended the run, which the next call of another method raises."""
        return self._fatal is not None

    def edit(self, batch: ReadyBatch) -> Iterator[Edited]:
        """Take one planned batch, and wait until there is room for another. The items are written by themselves."""
        with self._changed:
            if batch.items:
                self._dispatch.finishing = False
                self._dispatch.add(batch)
                self._wake()
        self._wait(lambda: self._dispatch.has_room or self._stopped())
        return iter(())

    def flush(self) -> Iterator[Edited]:
        """Let no batch wait in a worker for others."""
        with self._changed:
            self._dispatch.finishing = True
            for worker in self._dispatch.busy():
                self._fleet.members[worker].process.send(messages.Flush())
            self._wake()
        return iter(())

    def finish(self) -> Iterator[Edited]:
        """Wait until all batches are edited, or the run is to stop."""
        self.flush()
        self._wait(lambda: not self._is_at_work() or self._stopped())
        return iter(())

    def drain(self) -> None:
        """Wait until no worker has an item any more."""
        self._wake()
        self._wait(lambda: not self._is_at_work())

    def _is_at_work(self) -> bool:
        return self._dispatch.is_running or self._dispatch.waiting > 0

    def _wait(self, until: Callable[[], bool]) -> None:
        with self._changed:
            while self._fatal is None and not until():
                self._changed.wait(_POLL)
        if self._fatal is not None:
            raise self._fatal

    def _wake(self) -> None:
        self._fleet.wake()

    def _conduct(self) -> None:
        """The thread."""
        try:
            while not self._left:
                with self._changed:
                    self._send()
                    self._changed.notify_all()
                for process, message in self._heard():
                    self._take(process, message)
                    del message  # no picture is held while the next one is waited for
                self._tell_notes()
        except BaseException as error:  # whoever waits must hear of all of them
            with self._changed:
                self._fatal = error
                self._changed.notify_all()

    def _heard(self) -> Iterator[tuple[WorkerProcess, object]]:
        """What the workers have sent; waits a moment where there is nothing."""
        events = self._fleet.events
        try:
            event = events.get(timeout=_POLL)
            while True:
                if event is not None:
                    yield event
                event = events.get_nowait()
        except queue.Empty:
            self._fleet.look()

    def _send(self) -> None:
        """Hand out batches; or, where the run is to stop, call them back."""
        members = self._fleet.members
        if not self._stopped():
            self._dispatch.loading = sum(not (one.is_ready or one.is_given_up) for one in members)
            for task in self._dispatch.tasks():
                make = partial(messages.EditBatch.of, task.batch, at_once=task.at_once)
                members[task.worker].process.send_made(make)
            for worker in self._dispatch.flushes():
                members[worker].process.send(messages.Flush())
            return
        self.dropped = self._dispatch.drop() or self.dropped
        if not self._has_told_stop:
            self._has_told_stop = True
            for worker in self._dispatch.busy():
                members[worker].process.send(messages.StopWork())

    def _take(self, process: WorkerProcess, message: object) -> None:
        """One message of a worker."""
        member = self._fleet.member(process)
        number = member.place.number
        if isinstance(message, (messages.Made, messages.Broken)):
            ready = self._result(number, message.id)
            if ready is not None:
                self._give(FinishedItem(ready=ready, result=message))
        elif isinstance(message, messages.Failed):
            ready = self._result(number, message.id)
            if ready is not None:
                fault = message.fault
                self._recorder.failed(ready.sized, fault.of_item(), fault.code, notes=ready.notes)
        elif isinstance(message, messages.Step):
            self._progress.step(message.done, message.total)
        elif isinstance(message, messages.Log):
            error = InWorkerError(message.trace) if message.trace else None
            self._recorder.log(f"{member.place.name}: {message.text}", error)
        elif isinstance(message, (messages.BatchDone, messages.AllThere)):
            self._count(member, message)
        elif isinstance(message, messages.Returned):
            self._count_stages(message.stages)
            with self._changed:
                left = [name for name in message.ids if self._dispatch.result(number, name) is not None]
            self.dropped = self.dropped or bool(left)
        elif isinstance(message, messages.RunFault):
            raise message.fault.of_run()
        elif isinstance(message, messages.Ended):
            self._ended(member, message)
        elif self._fleet.heard(member, message) and member.is_ready:
            self._joined(member)

    def _result(self, worker: int, name: str) -> ReadyItem | None:
        """The item of which a worker tells; None if nobody waits for it."""
        with self._changed:
            ready = self._dispatch.result(worker, name)
        if ready is not None:
            self._fleet.members[worker].barren_deaths = 0
            self._stats.workers[worker].items += 1
        return ready

    def _joined(self, member: Member) -> None:
        assert member.loaded is not None
        with self._changed:
            self._dispatch.join(member.place.number)
        self._stats.workers[member.place.number].device = member.loaded.info.device

    def _count(self, member: Member, message: messages.BatchDone | messages.AllThere) -> None:
        number, process = member.place.number, member.process
        stages = dict(message.stages)
        if isinstance(message, messages.AllThere):
            if self._stats.loaded is not None:
                stages.pop("load", None)  # they load side by side
            self._count_stages(stages)
            self._stats.loaded_at(number, process.at(message.at))
            return
        self._count_stages(stages)
        member.peak, member.predicted = message.peak, message.predicted
        spans = {stage: (process.at(begin), process.at(end)) for stage, (begin, end) in message.spans.items()}
        worker = self._stats.workers[number]
        worker.exchanged_at(message.exchanged)
        busy = self._stats.batch(number, spans, message.operations, message.peak)
        first = worker.batches == 1
        self._recorder.tally.batch(message.images, busy, spans["decode"][1], warms_up=first)

    def _count_stages(self, stages: Mapping[str, float]) -> None:
        for stage, seconds in stages.items():
            self._clock.add(stage, seconds)

    def _ended(self, member: Member, message: messages.Ended) -> None:
        """A worker died. While the run stops, what it had is left for the next run."""
        with self._changed:
            lost = self._dispatch.died(member.place.number)
        self._stats.workers[member.place.number].deaths += not member.is_given_up
        is_blamed = bool(lost.given_up) and lost.was_alone
        for ready in lost.given_up:
            self._recorder.failed(ready.sized, _killed(ready), KILLED_WORKERS, notes=ready.notes)
        if self._stopped():
            self.dropped = self.dropped or lost.again > 0
            member.loaded = None
            return
        if lost.again:
            what = "1 item" if lost.again == 1 else f"{lost.again} items"
            self._fleet.notes.append(f"{member.place.name} had {what} when it died: tried again, each alone")
        for line in member.process.printed:
            self._recorder.log(f"{member.place.name}: {line}")
        self._fleet.ended(member, message, is_blamed=is_blamed)

    def _tell_notes(self) -> None:
        while self._fleet.notes:
            note = self._fleet.notes.popleft()
            self._recorder.log(note)
            self._progress.note(note)


def _killed(ready: ReadyItem) -> ItemError:
    return ItemError(
        KILLED_WORKERS,
        f"{DEATHS} worker processes died with this item, the last time with it alone (--retry-failed, or a change of"
        " its line or picture, lets it be tried again)",
    )


def fleet_editor(
    model: LoadedModel,
    recorder: Recorder,
    clock: StageClock,
    stats: RunStats,
    *,
    give: Callable[[Edited], None],
    progress: Progress,
    stopped: Callable[[], bool],
) -> FleetEditor:
    """The editor of a run whose model is a `Fleet`. The run's figures of its device become those of all workers."""
    assert isinstance(model, Fleet), "a run with several workers has them for its model"
    stats.device = devices = FleetStats(len(model.members))
    return FleetEditor(model, recorder, clock, devices, give=give, progress=progress, stopped=stopped)
