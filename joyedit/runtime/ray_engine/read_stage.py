"""The readers: Ray tasks that read the pictures of one batch each, as the threads of a plain run do."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from joyedit.errors import ItemError, JoyeditError
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.decode import allow_pixels
from joyedit.runtime.pipeline.read import ReadAhead, UnreadItem, read_picture
from joyedit.runtime.pipeline.read_mask import read_mask
from joyedit.runtime.pipeline.scene_check import SceneCheck
from joyedit.runtime.protocol import ReadyBatch
from joyedit.runtime.ray_engine import environment
from joyedit.runtime.ray_engine.earlier_results import EarlierResults
from joyedit.runtime.ray_engine.feed import begins
from joyedit.runtime.ray_engine.rows import Job, Outcome, PlannedRow, ReadRow, packed, unpacked
from joyedit.runtime.workers.faults import Fault
from joyedit.runtime.workers.relay import RelayClock

_HASHES = HashCache()
"""Of this process: the same picture may come in several batches."""


def read(table: Any, job: Job) -> Any:
    """What Ray calls: a `PlannedRow` becomes a `ReadRow`. Raises nothing, so Ray tries again only what it lost."""
    row = unpacked(table)
    if row is None:
        return table
    environment.take(job.environment)
    answer = begins(job.feed, "read", row.number)
    if answer != "begin":
        none = ReadRow(number=row.number, batch=None, outcomes=(), stages={}, died=answer == "died")
        return packed(none)
    made = packed(read_row(row, job))
    job.feed.ended.remote("read", row.number)
    return made


def read_row(row: PlannedRow, job: Job) -> ReadRow:
    """Items whose pictures cannot be read have an outcome already."""
    config, clock = job.config, RelayClock()
    outcomes: list[Outcome] = []
    notes: list[str] = []
    batch: ReadyBatch | None = None
    fault: Fault | None = None
    allow_pixels(config.max_pixels)
    scenes = SceneCheck(config.model, notes.append)
    results = EarlierResults(config)
    ahead = ReadAhead(
        iter([row.batch]),
        results.reading(partial(read_picture, clock=clock, hashes=_HASHES, max_pixels=config.max_pixels)),
        partial(read_mask, clock=clock, hashes=_HASHES, max_pixels=config.max_pixels),
        timeout=config.read_timeout,
    )
    try:
        with results, ahead:
            for entry in ahead:
                if isinstance(entry, ReadyBatch):
                    scenes.look(entry)
                    batch = entry
                elif isinstance(entry, UnreadItem):
                    told = Fault.of(entry.error, "unreadable_picture")
                    outcomes.append(Outcome(id=entry.sized.item.id, seconds={}, fault=told))
    except Exception as error:
        if isinstance(error, ItemError) or not isinstance(error, JoyeditError):
            error = RuntimeError(f"reading a batch failed: {error!r}")
        fault = Fault.of(error)
    return ReadRow(
        number=row.number,
        batch=batch,
        outcomes=tuple(outcomes),
        stages=clock.take(),
        notes=tuple(notes),
        fault=fault,
        node=socket.gethostname(),
        replaceable=row.replaceable,
    )
