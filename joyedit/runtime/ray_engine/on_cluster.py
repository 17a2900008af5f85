"""The whole middle of a run over Ray: see that all machines can do it, then let the flow go."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from joyedit.job.own_files import LOCK
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.picture_place import objects_of
from joyedit.job.spec import Batch
from joyedit.runtime.lazy_model import LazyModel
from joyedit.runtime.pipeline.admission import Admission
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.stats import RunStats
from joyedit.runtime.pipeline.worker_stats import FleetStats
from joyedit.runtime.pipeline.write import Placing
from joyedit.runtime.protocol import BackendInfo
from joyedit.runtime.ray_engine.delivery import Delivery, FolderDelivery, ObjectDelivery
from joyedit.runtime.ray_engine.engine import RayModel, needed_paths
from joyedit.runtime.ray_engine.flow import RayFlow
from joyedit.runtime.ray_engine.hearing import Hearing
from joyedit.runtime.ray_engine.parts import Planned


class Records(NamedTuple):
    """Where pictures and records go."""

    folder: OutputFolder
    recorder: Recorder
    placing: Placing
    admission: Admission


class Figures(NamedTuple):
    """Where times and remarks go."""

    clock: StageClock
    stats: RunStats
    progress: Progress


def edit_on_cluster(
    lazy: LazyModel,
    planned: Planned,
    records: Records,
    figures: Figures,
    *,
    stopped: Callable[[], bool],
    on_batch: Callable[[Batch], None],
) -> bool:
    """Edit all planned batches; whether all items have a record. The run's figures of its device become those of all
    actors.

    Raises UsageError where a machine lacks what the run needs, and what ended the run.
    """
    model = lazy.open()
    assert isinstance(model, RayModel), "a run over Ray has the cluster for its model"
    folder, recorder, placing, admission = records
    clock, stats, progress = figures

    def loaded(info: BackendInfo) -> None:
        recorder.info = lazy.info = info  # records name the kernels, which an actor knows

    delivery: Delivery = FolderDelivery(folder)
    objects = objects_of(folder.path)
    if objects is not None and model.uploader is not None:
        delivery = ObjectDelivery(objects, model.uploader, admission)
        output, token = str(model.config.objects), model.uploader.token.encode()
    else:
        output = os.path.abspath(folder.path)
        with open(folder.path / LOCK, "rb") as file:
            token = file.read(4096)
    model.cluster.check(output, token, needed_paths(model.config))
    stats.device = fleet = FleetStats(model.actors.count)
    flow = RayFlow(
        model,
        folder=folder,
        recorder=recorder,
        placing=placing,
        delivery=delivery,
        admission=admission,
        hearing=Hearing(model, recorder, clock, fleet, progress, loaded),
        stopped=stopped,
        on_batch=on_batch,
    )
    return flow.run(planned)
