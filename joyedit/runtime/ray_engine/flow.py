"""The driver's side of a run over Ray: batches go out, outcomes come back, pictures get names and records.

Each item of a batch that went out is open until its outcome came. An outcome of an item that is not open changes
nothing, so a batch that Ray ran twice is recorded once. The items of a batch with which an actor died go out once more,
each alone; one with which a second actor dies is given up. Items that are still open when the pipeline has ended were
lost on the way; they go through another one.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from joyedit.errors import ItemError, JoyeditError, concerns_the_run
from joyedit.job.pause import Pause
from joyedit.job.results.given_up import KILLED_WORKERS
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.spec import Batch, FailedItem, SizedItem
from joyedit.runtime.pipeline.admission import Admission
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.write import Placing, Writers
from joyedit.runtime.ray_engine import environment
from joyedit.runtime.ray_engine.cluster import why
from joyedit.runtime.ray_engine.delivery import Delivery
from joyedit.runtime.ray_engine.engine import RayModel, absolute, absolute_batch, model_path
from joyedit.runtime.ray_engine.feed import A_WORKER, Feed
from joyedit.runtime.ray_engine.hearing import Hearing
from joyedit.runtime.ray_engine.parts import Planned, whole_items
from joyedit.runtime.ray_engine.pipeline import pipeline
from joyedit.runtime.ray_engine.rows import Job, Outcome, PlannedRow, WrittenRow, unpacked
from joyedit.runtime.workers.dispatch import DEATHS
from joyedit.runtime.workers.faults import Fault

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
        delivery: Delivery,
        admission: Admission,
        hearing: Hearing,
        stopped: Callable[[], bool],
        on_batch: Callable[[Batch], None],
    ) -> None:
        self._model = model
        self._folder = folder
        self._recorder = recorder
        self._placing = placing
        self._delivery = delivery
        self._admission = admission
        self._hearing = hearing
        self._stopped = stopped
        self._on_batch = on_batch
        self._lock = threading.Lock()
        self._open: dict[int, dict[str, SizedItem]] = {}
        self._again: deque[SizedItem] = deque()
        self._deaths: dict[str, int] = {}  # of items that have no outcome yet
        self._all_planned = False
        self._pass_is_over = False
        self._plan_error: BaseException | None = None

    def run(self, planned: Planned) -> bool:
        """Edit these; whether all of them have a record. Raises what ended the run."""
        rest = iter(whole_items(planned))
        self._pass(rest)
        # Where Ray gives up the one task that hands out batches, a pipeline ends before its source.
        while (self._again or not self._all_planned) and not self._stopped():
            self._pass(rest)
        self._folder.clean()  # what tasks left that did not come back, or that Ray ran twice
        return self._all_planned and not self._open and not self._again

    def _pass(self, planned: Planned) -> None:
        """One pipeline from its first batch to its last one. What is lost on the way is in `_again` then."""
        import ray

        made = ray.remote(Feed).options(num_cpus=0, max_concurrency=1000, scheduling_strategy=_of_driver())
        feed = made.remote(A_WORKER * self._model.actors.count)
        config = absolute(self._model.config)
        info = replace(self._model.info, model=model_path(config.model) or self._model.info.model)
        job = Job(environment=environment.own(), config=config, info=info, feed=feed, is_gpu=self._model.actors.is_gpu)
        self._all_planned = self._pass_is_over = False
        self._plan_error, self._open = None, {}
        planner = threading.Thread(target=self._plan, args=(planned, feed), name="joyedit-plan", daemon=True)
        try:
            with Writers(self._place) as writers, self._told_to_stop(feed):
                planner.start()
                for row in _rows(pipeline(job, self._model.actors)):
                    writers.check()
                    for arrived in self._arrived(row):
                        writers.put(arrived)
                    feed.over.remote(row.number)
        except Exception as error:
            _raise(error)
        finally:
            self._pass_is_over = True
            with suppress(Exception):  # the connection may be gone
                ray.get(feed.stop.remote(), timeout=10)
            if planner.ident is not None:
                planner.join(timeout=10)
            with suppress(Exception):
                ray.kill(feed)
        if self._plan_error is not None:
            _raise(self._plan_error)
        if not self._stopped():
            for items in self._open.values():
                self._died(items.values())
            self._open = {}

    def _plan(self, planned: Planned, feed: Any) -> None:
        """The thread that gives out batches. Ray holds it up while there are enough on the way."""
        import ray

        number = 0
        try:
            for entry in self._with_again(planned):
                if isinstance(entry, FailedItem):
                    self._recorder.unplanned(entry)
                    continue
                with self._lock:
                    self._open[number] = {sized.item.id: sized.whole for sized in entry.items}
                may = self._delivery.before(entry)
                self._admission.in_work.pass_on(sized.item for sized in entry.items)
                row = PlannedRow(number=number, batch=absolute_batch(entry), replaceable=may)
                if not ray.get(feed.put.remote(pickle.dumps(row, pickle.HIGHEST_PROTOCOL))):
                    return
                number += 1
            self._all_planned = not self._pass_is_over
        except BaseException as error:  # whoever waits must hear of all of them
            self._plan_error = error
        finally:
            with suppress(Exception):
                ray.get(feed.end.remote())

    def _with_again(self, planned: Planned) -> Iterator[Batch | FailedItem]:
        """The planned batches, and those items alone that are to be tried again."""
        for entry in planned:
            yield from self._singles()
            if isinstance(entry, Pause):  # for the result of an item, which may be one that is to be tried again
                while not entry.wait(_POLL) and not self._stopped():
                    if self._pass_is_over:  # nobody waits for batches, and no result comes
                        return
                    yield from self._singles()
                continue
            if isinstance(entry, Batch):
                self._on_batch(entry)
            yield entry
        yield from self._singles()

    def _singles(self) -> Iterator[Batch]:
        with suppress(IndexError):
            while True:
                yield Batch(index=0, items=self._again.popleft().as_parts)

    def _died(self, items: Iterable[SizedItem]) -> None:
        """These were with a process that died, or got lost."""
        again = []
        for sized in items:
            name = sized.item.id
            self._deaths[name] = self._deaths.get(name, 0) + 1
            if self._deaths[name] < DEATHS:
                again.append(sized)
            else:
                del self._deaths[name]
                self._recorder.failed(sized, _killed(), KILLED_WORKERS)
        if again:
            what = "1 item was" if len(again) == 1 else f"{len(again)} items were"
            self._hearing.note(f"{what} with a process that died: tried again, each alone")
            self._again += again

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
        if row.died:
            self._died(items.values())
            return
        for outcome in row.outcomes:
            sized = items.pop(outcome.id, None)
            self._deaths.pop(outcome.id, None)
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
                raise _as_here(outcome.fault, sized).of_item()
            assert file is not None
            self._admission.take(Batch(index=0, items=(sized,)))
            begin = time.perf_counter()
            beside = self._placing.put(
                item, lambda may_replace: self._delivery.place(file, may_replace), file.all_inputs
            )
            written = self._placing.written(
                item,
                size=file.bytes,
                sha256=file.sha256,
                all_inputs=file.all_inputs,
                inputs=file.inputs,
                drift=file.drift,
                mask=file.mask,
                work=file.work,
                beside=beside,
            )
            seconds = dict(outcome.seconds)
            seconds["write"] = seconds.get("write", 0.0) + time.perf_counter() - begin
        except Exception as error:
            if concerns_the_run(error):
                raise
            self._recorder.failed(sized, error, "write_failed", seconds=outcome.seconds, notes=outcome.notes)
        else:
            self._recorder.ok(sized, written, seconds=seconds, notes=outcome.notes)


def _rows(dataset: Any) -> Iterator[WrittenRow]:
    """The rows as they come."""
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        row = unpacked(table)
        if row is not None:
            yield row


def _raise(error: BaseException) -> NoReturn:
    """Raise what ended the run: an error of Ray in words, any other as it is."""
    if isinstance(error, JoyeditError) or not type(error).__module__.startswith("ray."):
        raise error
    raise JoyeditError(f"Ray ended the run: {why(error)} (the same command goes on)") from error


def _of_driver() -> Any:
    """On this machine: while it lives, so does what was planned."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _as_here(fault: Fault, sized: SizedItem) -> Fault:
    """The fault with pictures as the source names them: elsewhere their paths were absolute."""
    message = fault.message
    for one in sized.item.inputs:
        if isinstance(one, Path):
            message = message.replace(os.path.abspath(one), str(one))
    return replace(fault, message=message)


def _killed() -> ItemError:
    return ItemError(
        KILLED_WORKERS,
        f"{DEATHS} worker processes died with this item, the last time with it alone (--retry-failed, or a change of"
        " its line or picture, lets it be tried again)",
    )
