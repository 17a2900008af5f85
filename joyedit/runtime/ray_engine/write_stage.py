"""The writers: Ray tasks that make the file of each picture, and put it where the run has its output."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from typing import Any

from joyedit.errors import JoyeditError, concerns_the_run
from joyedit.job.spec import EditItem
from joyedit.runtime.pipeline.join import EditedPart, Joiner
from joyedit.runtime.pipeline.write import PictureEncoder
from joyedit.runtime.protocol import ReadyItem
from joyedit.runtime.ray_engine import environment
from joyedit.runtime.ray_engine.feed import begins
from joyedit.runtime.ray_engine.leaving import Leave, open_output
from joyedit.runtime.ray_engine.rows import EditedRow, Job, LeftFile, Outcome, WrittenRow, packed, unpacked
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.messages import Broken, Made
from joyedit.runtime.workers.relay import RelayClock


def write(table: Any, job: Job) -> Any:
    """What Ray calls: an `EditedRow` becomes a `WrittenRow`. Raises nothing, so Ray tries again only what it lost."""
    row = unpacked(table)
    if row is None:
        return table
    environment.take(job.environment)
    if not row.items:
        return packed(write_row(row, job))
    if begins(job.feed, "write", row.number) == "died":
        return packed(write_row(replace(row, items=(), outcomes=(), died=True), job))
    made = packed(write_row(row, job))  # also when the run stops: the picture is made
    job.feed.ended.remote("write", row.number)
    return made


def write_row(row: EditedRow, job: Job) -> WrittenRow:
    """Encode and leave the pictures of one batch. An item in parts is joined here: all its parts are in one row."""
    clock, fault = RelayClock(), row.fault
    outcomes = {one.id: one for one in row.outcomes}
    if fault is None and row.items:
        try:
            with open_output(job.config, row.replaceable) as leave:
                left = _Leaving(leave, PictureEncoder(job.config, job.info), clock, outcomes)
                for ready, result in row.items:
                    left.add(ready, result)
        except JoyeditError as error:
            fault = Fault.of(error)
    stages = dict(row.stages)
    for stage, seconds in clock.take().items():
        stages[stage] = stages.get(stage, 0.0) + seconds
    return WrittenRow(
        number=row.number,
        outcomes=tuple(outcomes.values()),
        stages=stages,
        notes=row.notes,
        fault=fault,
        died=row.died,
        node=socket.gethostname(),
        says=row.says,
    )


class _Leaving:
    """The outcomes of one row. A part that fails fails its item, whose other parts are dropped then."""

    def __init__(self, leave: Leave, encode: PictureEncoder, clock: RelayClock, outcomes: dict[str, Outcome]) -> None:
        self._leave = leave
        self._encode = encode
        self._clock = clock
        self._outcomes = outcomes
        self._joiner = Joiner(self._has_failed)

    def _has_failed(self, item: EditItem) -> bool:
        return item.id in self._outcomes

    def add(self, ready: ReadyItem, result: Made | Broken) -> None:
        """One item, or one part of one. Raises `JoyeditError` if it concerns the run."""
        item, notes = ready.item, ready.notes
        seconds: dict[str, float] = {"read": ready.seconds, **result.seconds}
        code = "edit_failed"
        try:
            if isinstance(result, Broken):
                raise result.fault.of_item()
            whole = self._joiner.add(EditedPart(ready, result.pixels.picture(), seconds, result.work))
            if whole is None:
                return
            ready, image, seconds, work = whole
            notes, code = ready.notes, "write_failed"
            with self._clock.stage("write") as lap:
                data, more, drift = self._encode(ready, image)
                notes += more
                temporary = self._leave(item.output, data)
            file = LeftFile(
                output=item.output,
                temporary=temporary,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                inputs=ready.seen,
                all_inputs=ready.all_seen,
                drift=drift,
                mask=ready.mask,
                work=work,
            )
            seconds = seconds | {"write": lap.seconds}
            self._outcomes[item.id] = Outcome(id=item.id, seconds=seconds, notes=notes, file=file)
        except Exception as error:
            if concerns_the_run(error):
                raise
            if code == "write_failed":
                seconds = seconds | {"write": lap.seconds}
            fault = Fault.of(error, code)
            self._outcomes.setdefault(item.id, Outcome(id=item.id, seconds=seconds, notes=notes, fault=fault))
