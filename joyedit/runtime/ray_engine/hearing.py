"""What actors tell becomes the figures of the run, lines of its log, and remarks for its user."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.worker_stats import FleetStats, WorkerStats
from joyedit.runtime.protocol import BackendInfo
from joyedit.runtime.ray_engine.engine import RayModel
from joyedit.runtime.ray_engine.rows import ActorSays, WrittenRow
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.faults import InWorkerError
from joyedit.runtime.workers.fleet import of_several


class Hearing:
    """One thread calls `row`. Each actor is a worker of the report, in the order in which they are heard of.

    `loaded` hears once what an actor says of the model, which names the kernels.
    """

    def __init__(
        self,
        model: RayModel,
        recorder: Recorder,
        clock: StageClock,
        stats: FleetStats,
        progress: Progress,
        loaded: Callable[[BackendInfo], None],
    ) -> None:
        self._model = model
        self._recorder = recorder
        self._clock = clock
        self._stats = stats
        self._progress = progress
        self._loaded = loaded
        self._has_loaded = False
        self._numbers: dict[str, int] = {}
        self._processes: dict[str, str] = {}
        self._told: set[str] = set()
        self._offset = time.time() - time.perf_counter()

    def note(self, text: str) -> None:
        """For the user, and for joyedit.log."""
        self._recorder.log(text)
        self._progress.note(text)

    def row(self, row: WrittenRow) -> None:
        """Take the figures of one row."""
        self._count(row.stages)
        for note in row.notes:
            kind = note.partition(" looks ")[2] or note  # nano's remark comes from each reader, and is told once
            if kind not in self._told:
                self._told.add(kind)
                self._progress.note(note)
        if row.says is not None:
            self._actor(row.says, len(row.outcomes))

    def _count(self, stages: object) -> None:
        for stage, seconds in dict(stages).items():  # type: ignore[call-overload]
            self._clock.add(stage, seconds)

    def _actor(self, says: ActorSays, items: int) -> None:
        number = self._number(says)
        worker = self._stats.workers[number]
        worker.device = f"{says.node}: {says.info.device}"
        worker.items += items
        if not self._has_loaded:
            self._has_loaded = True
            device = of_several(says.info.device, self._model.actors.count)
            self._loaded(replace(says.info, model=self._model.info.model, device=device))
        name = f"worker {number} ({says.node})"
        for message in says.messages:
            if isinstance(message, messages.Log):
                self._recorder.log(f"{name}: {message.text}", InWorkerError(message.trace) if message.trace else None)
            elif isinstance(message, messages.AllThere):
                stages = dict(message.stages)
                if self._stats.loaded is not None:
                    stages.pop("load", None)  # they load side by side
                self._count(stages)
                self._stats.loaded_at(number, self._at(says, message.at))
            elif isinstance(message, messages.BatchDone):
                self._batch(number, says, message)

    def _number(self, says: ActorSays) -> int:
        """The number of an actor; one that was started again has its old one."""
        number = self._numbers.setdefault(says.actor, len(self._numbers))
        if number == len(self._stats.workers):
            self._stats.workers.append(WorkerStats())
        before = self._processes.get(says.actor)
        if before not in (None, says.process):
            self._stats.workers[number].deaths += 1
            self.note(f"worker {number} died, and Ray started it again on {says.node}")
        self._processes[says.actor] = says.process
        return number

    def _batch(self, number: int, says: ActorSays, done: messages.BatchDone) -> None:
        self._count(done.stages)
        spans = {stage: (self._at(says, begin), self._at(says, end)) for stage, (begin, end) in done.spans.items()}
        busy = self._stats.batch(number, spans, done.operations, done.peak)
        model = self._model
        model.peak = max((n for n in (model.peak, done.peak) if n is not None), default=None)
        model.predicted = max((n for n in (model.predicted, done.predicted) if n is not None), default=None)
        first = self._stats.workers[number].batches == 1
        self._recorder.tally.batch(done.images, busy, spans["decode"][1], warms_up=first)

    def _at(self, says: ActorSays, seconds: float) -> float:
        """A time of the actor's clock on that of this process."""
        return seconds + says.offset - self._offset
