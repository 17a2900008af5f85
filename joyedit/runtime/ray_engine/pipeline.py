"""The Ray Data pipeline of a run. It is Ray's own: one map a stage, with what each needs of a machine.

Ray bounds what is on its way, starts an actor again whose process or machine died, on another machine if need be, and
runs again what was lost with it. How often that may be for one batch, `feed` says. A block that Ray gives up all the
same stops nothing: the driver sees in the end which items have no outcome. See `flow`.
"""

from __future__ import annotations

import warnings
from typing import Any

from joyedit.runtime.ray_engine.cluster import Actors
from joyedit.runtime.ray_engine.edit_stage import EditPictures
from joyedit.runtime.ray_engine.feed import A_WORKER, feed_source
from joyedit.runtime.ray_engine.read_stage import read
from joyedit.runtime.ray_engine.rows import Job
from joyedit.runtime.ray_engine.write_stage import write

_TASKS = 2
"""Tasks for each actor that read at the same time, and as many that write; each of them has threads. It must be more
than one: Ray would make one operator of readers and actors, so that a GPU waits while its actor reads."""
_AHEAD = 2
"""Batches that an actor has: one that it edits, and one whose pictures are on the way to it."""


def pipeline(job: Job, actors: Actors) -> Any:
    """The dataset of written rows; nothing runs before somebody iterates over it."""
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, read_datasource

    # Ray says them of every small job, and nobody who runs joyedit can set what it proposes.
    for named in ("maximum number of concurrent tasks", "minimum number of concurrent actors"):
        warnings.filterwarnings("ignore", message=f"The {named}", category=UserWarning)
    shared: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "udf_modifying_row_count": False}
    # Bounded by number. A share of the CPUs would keep them waiting for ever where actors have all that are left.
    tasks = TaskPoolStrategy(size=_TASKS * actors.count)
    task: dict[str, Any] = {"fn_kwargs": {"job": job}, "compute": tasks, "num_cpus": 0, **shared}
    pool = ActorPoolStrategy(size=actors.count, max_tasks_in_flight_per_actor=_AHEAD)
    with DataContext.current(_context(A_WORKER * actors.count // 2)):
        rows = read_datasource(feed_source(job.feed), override_num_blocks=1, num_cpus=0)
        rows = rows.map_batches(read, **task)
        rows = rows.map_batches(
            EditPictures, fn_constructor_kwargs={"job": job}, compute=pool, **actors.resources(), **shared
        )
        return rows.map_batches(write, **task)


def _context(most_lost: int) -> Any:
    """Ray Data's options, for this pipeline alone. After so many lost blocks Ray ends it: what fails everywhere must
    not take all places of the feed, which would wait for ever.
    """
    from ray.data import DataContext

    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # bytes: each row is a block of its own, and leaves its task at once
    context.max_errored_blocks = most_lost  # what has no outcome is seen in the end
    context.max_consecutive_actor_init_deaths = 8
    context.execution_no_progress_timeout_s = -1  # a batch may take long, and a cluster may have to grow
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
