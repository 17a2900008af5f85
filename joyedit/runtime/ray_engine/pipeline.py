"""The Ray Data pipeline of a run, and what Ray is asked to do about lost machines.

Ray tries a batch again whose machine or process died, once; it starts the actor again, on another machine if need be. A
batch that is lost twice does not stop the others: Ray drops its block, and the driver sees in the end which items have
no outcome. See `flow`.
"""

from __future__ import annotations

from typing import Any

from joyedit.runtime.ray_engine.cluster import TASK_CPUS, Actors
from joyedit.runtime.ray_engine.edit_stage import EditPictures
from joyedit.runtime.ray_engine.feed import feed_source
from joyedit.runtime.ray_engine.read_stage import read
from joyedit.runtime.ray_engine.rows import Job
from joyedit.runtime.ray_engine.write_stage import write

RETRIES = 1
"""So often Ray tries a batch again with which an actor died."""
_TASK_RETRIES = 3
"""So often it tries one again with which a reader or writer died."""
_AHEAD = 2
"""Batches that an actor has: one that it edits, and one whose pictures are on the way to it."""


def pipeline(job: Job, actors: Actors, *, alone: bool) -> Any:
    """The dataset of written rows; nothing runs before somebody iterates over it.

    With `alone` nothing is tried again, and an actor has one batch at a time: so whatever is lost was with its killer.
    """
    from ray.data import ActorPoolStrategy, DataContext, read_datasource

    with DataContext.current(_context()):
        rows = read_datasource(feed_source(job.feed), override_num_blocks=1, num_cpus=0)
        shared: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "udf_modifying_row_count": False}
        retries = 0 if alone else _TASK_RETRIES
        rows = rows.map_batches(read, fn_kwargs={"job": job}, num_cpus=TASK_CPUS, max_retries=retries, **shared)
        rows = rows.map_batches(
            EditPictures,
            fn_constructor_kwargs={"job": job},
            compute=ActorPoolStrategy(size=actors.count, max_tasks_in_flight_per_actor=1 if alone else _AHEAD),
            max_restarts=-1,
            max_task_retries=0 if alone else RETRIES,
            **actors.resources(),
            **shared,
        )
        return rows.map_batches(write, fn_kwargs={"job": job}, num_cpus=TASK_CPUS, max_retries=retries, **shared)


def _context() -> Any:
    """Ray Data's options, for this pipeline alone."""
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # bytes: each row is a block of its own, and leaves its task at once
    context.max_errored_blocks = -1  # what has no outcome is seen in the end
    context.max_consecutive_actor_init_deaths = 8
    context.execution_no_progress_timeout_s = -1  # a batch may take long, and a cluster may have to grow
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
