"""The driver's side of a run over Ray: batches go out, outcomes come back, pictures get names and records.

Each item of a batch that went out is open until its outcome came. An outcome of an item that is not open changes
nothing, so a batch that Ray ran twice is recorded once. Items that are open when the pipeline ends were with machines
or processes that died, each time that Ray tried: they go once more, each alone, and one that is lost again is given up.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

from joyedit.errors import ItemError, JoyeditError, OutputError
from joyedit.job.results.given_up import KILLED_WORKERS
from joyedit.job.results.hand_over import take
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.spec import Batch, FailedItem, SizedItem
from joyedit.runtime.pipeline.admission import Admission
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.write import Placing, Writers
from joyedit.runtime.ray_engine.cluster import why
from joyedit.runtime.ray_engine.engine import RayModel, absolute, absolute_batch, model_path
from joyedit.runtime.ray_engine.feed import Feed
from joyedit.runtime.ray_engine.hearing import Hearing
from joyedit.runtime.ray_engine.parts import whole_items
from joyedit.runtime.ray_engine.pipeline import pipeline
from joyedit.runtime.ray_engine.rows import Job, Outcome, PlannedRow, WrittenRow, unpacked

_POLL = 0.1


class Arrived(NamedTuple):
    """An outcome and its item."""

    sized: SizedItem
    outcome: Outcome


class RayFlow:
    """Edits all planned batches of a run over Ray. `stopped` says that the run is to stop.

    `on_batch` hears of each batch before it goes out.
    """

    def __init__(
        self,
        model: RayModel,
        *,
        folder: OutputFolder,
        recorder: Recorder,
        placing: Placing,
        admission: Admission,
        hearing: Hearing,
        stopped: Callable[[], bool],
        on_batch: Callable[[Batch], None],
    ) -> None:
        self._model = model
        self._folder = folder
        self._recorder = recorder
        self._placing = placing
        self._admission = admission
        self._hearing = hearing
        self._stopped = stopped
        self._on_batch = on_batch
        self._lock = threading.Lock()
        self._open: dict[int, dict[str, SizedItem]] = {}
        self._lost: dict[str, SizedItem] = {}
        self._all_planned = False
        self._plan_error: BaseException | None = None

    def run(self, planned: Iterable[Batch | FailedItem]) -> bool:
        """Edit these; whether all of them have a record. Raises what ended the run."""
        came_all = self._pass(whole_items(planned), alone=False)
        if self._lost and not self._stopped():
            again = list(self._lost.values())
            what = "1 item was" if len(again) == 1 else f"{len(again)} items were"
            self._hearing.note(f"{what} with workers that died: tried again, each alone")
            self._lost = {}
            self._pass((Batch(index=0, items=sized.as_parts) for sized in again), alone=True)
            for sized in () if self._stopped() else self._lost.values():
                self._recorder.failed(sized, _killed(), KILLED_WORKERS)
            self._folder.clean()  # what tasks left that did not come back
        return came_all and not self._stopped() and not self._open

    def _pass(self, planned: Iterable[Batch | FailedItem], *, alone: bool) -> bool:
        """One pipeline from its first batch to its last one; whether the plan came to its end."""
        import ray

        feed = ray.remote(Feed).options(num_cpus=0, max_concurrency=64, scheduling_strategy=_of_driver()).remote()
        config = absolute(self._model.config)
        info = replace(self._model.info, model=model_path(config.model) or self._model.info.model)
        job = Job(config=config, info=info, feed=feed, is_gpu=self._model.actors.is_gpu)
        self._all_planned, self._plan_error, self._open = False, None, {}
        planner = threading.Thread(target=self._plan, args=(planned, feed), name="joyedit-plan", daemon=True)
        try:
            with Writers(self._place) as writers, self._told_to_stop(feed):
                planner.start()
                for row in _rows(pipeline(job, self._model.actors, alone=alone)):
                    writers.check()
                    for arrived in self._arrived(row):
                        writers.put(arrived)
                    feed.over.remote(row.number)
        except ray.exceptions.RayError as error:
            raise JoyeditError(f"Ray ended the run: {why(error)}") from error
        finally:
            with suppress(Exception):  # the connection may be gone
                ray.get(feed.stop.remote(), timeout=10)
                ray.kill(feed)
            if planner.ident is not None:
                planner.join(timeout=10)
        if self._plan_error is not None:
            raise self._plan_error
        if not self._stopped():
            self._lost |= {name: sized for items in self._open.values() for name, sized in items.items()}
            self._open = {}
        return self._all_planned

    def _plan(self, planned: Iterable[Batch | FailedItem], feed: Any) -> None:
        """The thread that gives out batches. Ray holds it up while there are enough on the way."""
        import ray

        number = 0
        try:
            for entry in planned:
                if isinstance(entry, FailedItem):
                    self._recorder.unplanned(entry)
                    continue
                self._on_batch(entry)
                with self._lock:
                    self._open[number] = {sized.item.id: sized.whole for sized in entry.items}
                row = PlannedRow(number=number, batch=absolute_batch(entry))
                if not ray.get(feed.put.remote(pickle.dumps(row, pickle.HIGHEST_PROTOCOL))):
                    return
                number += 1
            self._all_planned = True
        except BaseException as error:  # whoever waits must hear of all of them
            self._plan_error = error
        finally:
            with suppress(Exception):
                ray.get(feed.end.remote())

    @contextmanager
    def _told_to_stop(self, feed: Any) -> Iterator[None]:
        """In the block the feed hears when the run is to stop: batches that run are finished, no other is begun."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_POLL):
                if self._stopped():
                    feed.stop.remote()
                    return

        thread = threading.Thread(target=watch, name="joyedit-stop", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _arrived(self, row: WrittenRow) -> Iterator[Arrived]:
        """The outcomes of a row that somebody waits for. Raises the fault that ends the run."""
        if row.fault is not None:
            raise replace(row.fault, message=f"{row.node}: {row.fault.message}").of_run()
        with self._lock:
            items = self._open.pop(row.number, None)
        if items is None:
            return
        for outcome in row.outcomes:
            sized = items.pop(outcome.id, None)
            if sized is not None:
                yield Arrived(sized, outcome)
        self._hearing.row(row)
        if items:  # they were not begun
            with self._lock:
                self._open[row.number] = items

    def _place(self, arrived: Arrived) -> None:
        """In a thread: the picture's final name, then its record."""
        sized, outcome = arrived
        item, file = sized.item, outcome.file
        try:
            if outcome.fault is not None:
                raise outcome.fault.of_item()
            assert file is not None
            self._admission.take(Batch(index=0, items=(sized,)))
            begin = time.perf_counter()
            self._placing.put(item, lambda may_replace: take(self._folder, file.temporary, item.output, may_replace))
            written = self._placing.written(
                item,
                size=file.bytes,
                sha256=file.sha256,
                all_inputs=file.all_inputs,
                inputs=file.inputs,
                drift=file.drift,
                mask=file.mask,
            )
            seconds = dict(outcome.seconds)
            seconds["write"] = seconds.get("write", 0.0) + time.perf_counter() - begin
        except OutputError:
            raise
        except Exception as error:
            self._recorder.failed(sized, error, "write_failed", seconds=outcome.seconds, notes=outcome.notes)
        else:
            self._recorder.ok(sized, written, seconds=seconds, notes=outcome.notes)


def _rows(dataset: Any) -> Iterator[WrittenRow]:
    """The rows as they come."""
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        row = unpacked(table)
        if row is not None:
            yield row


def _of_driver() -> Any:
    """On this machine: while it lives, so does what was planned."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _killed() -> ItemError:
    return ItemError(
        KILLED_WORKERS,
        "the worker processes that had this item died each time, the last time with it alone (--retry-failed, or a"
        " change of its line or picture, lets it be tried again)",
    )
