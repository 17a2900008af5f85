"""What one run does with all that it holds open: source, output folder, model, records. `run` calls it in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, cast

from joyedit.errors import CheckpointError, DeviceError, JoyeditError
from joyedit.job.hashing import HashCache
from joyedit.job.own_files import FAILED, REPORT
from joyedit.job.pause import Pause
from joyedit.job.pictures.decode import header_size
from joyedit.job.plan import planner
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.report import Report
from joyedit.job.results.resume import Decision
from joyedit.job.results.retry import write_failed
from joyedit.job.results.run_counts import Tally
from joyedit.job.results.shared import shared_by_all
from joyedit.job.results.verify import asked_of
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import SourceStoppedError
from joyedit.job.spec import Batch, EditItem, FailedItem, ItemResult
from joyedit.job.speed.bundles import speed_record
from joyedit.runtime.lazy_model import LazyModel
from joyedit.runtime.pipeline.admission import Admission
from joyedit.runtime.pipeline.check import AHEAD, WORKERS, Checker
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import BatchEditor, Edited, Editor
from joyedit.runtime.pipeline.endings import all_accounted_for, ending_of
from joyedit.runtime.pipeline.loss_check import LossCheck
from joyedit.runtime.pipeline.outputs import Outputs
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.pipeline.read import ReadAhead, UnreadItem, read_picture
from joyedit.runtime.pipeline.read_mask import read_mask
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.scene_check import SceneCheck
from joyedit.runtime.pipeline.stats import Ending, RunStats
from joyedit.runtime.pipeline.stop import Stop
from joyedit.runtime.pipeline.threads import StoppedError, Workers
from joyedit.runtime.pipeline.turn_results import TurnResults
from joyedit.runtime.pipeline.turn_stage import TurnStage
from joyedit.runtime.pipeline.write import PictureEncoder, PictureWriter, Placing, Writers
from joyedit.runtime.protocol import Backend, ReadyBatch

if TYPE_CHECKING:
    from joyedit.job.source.sources import Source

Entry = EditItem | FailedItem
Planned = Iterator[Batch | FailedItem | Pause]


class RunSession:
    """The open things of one run, and the steps that use them. `open_session` makes one."""

    def __init__(
        self,
        source: Source,
        config: RunConfig,
        *,
        folder: OutputFolder,
        model: LazyModel,
        progress: Progress,
        clock: StageClock,
        stats: RunStats,
        stop: Stop,
    ) -> None:
        self.model = model
        self.stop = stop
        self.is_on_cluster = config.engine == "ray"  # machines of a cluster read, edit and write
        self._source = source
        self._config = config
        self._folder = folder
        self._progress = progress
        self._clock = clock
        self._stats = stats
        self._hashes = HashCache()
        self.tally = self._tally = Tally()
        self._scenes = SceneCheck(config.model, progress.note)
        self._losses = LossCheck(progress.note)
        self._one_by_one = source.kind == "stdin"  # its sender may wait for a result before it sends the next item
        info = model.info
        self._fingerprints = Fingerprinter.for_run(config, model.identity(), info.schedule, info.dtype)
        self._shared = shared_by_all(source, folder.path, self._fingerprints)
        self._stats.asked = asked_of(source, folder.path) | {"shared": str(self._shared)}
        self._turns = TurnStage()
        self._is_broken: Callable[[], bool] = bool  # whether something ended the run that is still to be told

    @contextmanager
    def records(self) -> Iterator[None]:
        """Clean up behind a killed run, then keep journal and log open. Writes failed.jsonl at the end.

        Raises OutputError.
        """
        removed = self._folder.clean()
        speed = partial(speed_record, self._config, self.model.info.schedule)
        with Recorder(self._folder, self.model.info, self._tally, self._recorded, speed) as self.recorder:
            if removed:
                self.recorder.log(f"removed {removed} unfinished files of an earlier run")
            journal = self.recorder.journal
            for told in (journal.repaired, journal.damaged):
                if told is not None:
                    self._progress.note(told)
            with (
                closing(self._outputs_of(journal)) as self._outputs,
                closing(Admission(self._folder, journal, self._config, self._shared)) as self.admission,
            ):
                self.stop.before_exit = self._exit_at_once
                yield
                self._tally.unwritten = self._outputs.finish(stopped=self.stop)
            self._losses.tell()
            left_out = write_failed(self._folder, journal)
            if left_out:
                told = f"not in {FAILED}, because a picture stands in the line: {left_out} of the failed items"
                self._progress.note(f"{told} (add --retry-failed to the same command)")
        if self._folder.note is not None:
            self._progress.note(self._folder.note)

    def _outputs_of(self, journal: Journal) -> Outputs:
        asked, note = self._stats.asked, self._progress.note
        outputs = Outputs(self._folder, journal, self._config, self._source, note=note, asked=asked)
        self._stats.layout = outputs.told
        return outputs

    def _recorded(self, result: ItemResult, line: str) -> None:
        self._outputs.recorded(result)
        self._progress.result(result, line)
        self._turns.ended(result.id)

    def _exit_at_once(self) -> None:
        """The last words of a run that is stopped at once."""
        self.admission.in_work.stop()
        self._write_report(Ending("interrupted"))

    def checkers(self) -> Workers:
        """The threads that check ahead of the plan which items are done, and how large the pictures are."""
        return Workers(WORKERS, "joyedit-check", timeout=self._config.read_timeout, stopped=self.stop)

    def writers(self) -> Writers[Edited]:
        """The threads that write finished pictures and their records."""
        encode = PictureEncoder(self._config, self.model.info)
        write = PictureWriter(self._folder, encode, self._placing(), self.recorder, self._clock)
        return Writers(write, waiting=partial(self._stats.waiting, "write"))

    def _placing(self) -> Placing:
        return Placing(self._folder, self._config, self.recorder, self._fingerprints, self.admission, self._outputs)

    def unfinished(self, checkers: Workers) -> Checker:
        """The items of the source that are to be edited, and those that failed already.

        Raises UsageError if finished pictures would be replaced that nobody asked to replace.
        """
        self._resume = self.admission.resume(
            self._source,
            fingerprints=self._fingerprints,
            hashes=self._hashes,
            model=self.model.info.model,
            at_once=not self._source.comes_once,
        )
        self._folder.check_name()  # the pictures that were asked about are those beside the records
        referred = self._source.referred()
        return Checker(
            self._turns.begin(
                self._stats.count(self._given()),
                referred,
                TurnResults(self._folder.path, self.recorder.journal, self._resume, referred),
                one_by_one=self._one_by_one,
            ),
            self._resume,
            checkers,
            self._skip,
            admit=self._outputs.before(self.admission.admit),
            max_pixels=self._config.max_pixels,
            ahead=1 if self._source.comes_once else AHEAD,  # the next item of an iterator may take long
        )

    def _given(self) -> Iterator[Entry]:
        """The items of the source, until it is told to stop."""
        if self.stop():  # standard input may be in the middle of a line
            raise StoppedError
        try:
            for item in self._source.items():
                if self.stop():  # there are more; after the last one nothing is left to stop
                    raise StoppedError
                self._source.on_item(item)
                self._outputs.came(item)
                yield item
            self._outputs.all_came()
        except SourceStoppedError as error:
            raise StoppedError from error

    def _skip(self, item: EditItem, decision: Decision) -> None:
        if self.stop():
            raise StoppedError
        self._turns.skipped(item, decision)
        self._outputs.skipped(item, decision, self._resume.recorded_as)
        if decision in ("done", "changed"):
            self.recorder.skipped()
        elif decision == "given up":
            self.recorder.given_up(self._resume.given_up_code(item))
        else:
            self.recorder.left()
        self._progress.skipped(decision, partial(self._resume.finished, item))

    def load_model_if_needed(self, entries: Iterator[Entry | Pause]) -> Iterator[Entry | Pause] | None:
        """Load the model when there is an item to edit; gives all items again, or None where none needs the model.

        Raises ManifestError for a source with faults, and whatever loading raises.
        """
        model = self.model
        if model.backend is None:
            first = self._first_to_edit(entries)
            if first is None:
                return None
            entries = chain([first], entries)
        model.open(self._tally.recorded + self._tally.left)
        self.recorder.info = model.info  # names the kernels, which are known now
        self._stats.loaded = self._clock.now()
        self.stop.started = True  # first: from now on a signal leaves a final report
        self._write_report(Ending("running"))
        return entries

    def _first_to_edit(self, entries: Iterator[Entry | Pause]) -> EditItem | None:
        """The first item that needs the model. Items that failed before it are recorded."""
        for entry in entries:
            self.model.check()  # a source with faults is refused, and not recorded line by line
            if isinstance(entry, EditItem):
                return entry
            if isinstance(entry, FailedItem):
                self.recorder.unplanned(entry)
        if not self._tally.recorded + self._tally.left:
            self.model.check()
        return None

    def parts(self, entries: Iterator[Entry | Pause], checker: Checker) -> Iterator[Planned]:
        """The planned batches: of all items first, then one by one the items that may have killed an earlier run.

        Items that wait for results of these follow, in the same way.
        """
        config, backend = self._config, self.model.open()
        suspects: list[EditItem] = []

        others = partial(self._turns.without_last, comes_last=self.admission.comes_last, last=suspects)
        planned = planner(config, config.batch_size or backend.auto_batch_size)
        plan_others = partial(planned, size_of=checker.size_of, look_ahead=not self._source.comes_once)
        yield plan_others(others(entries))
        while suspects:
            last, suspects[:] = [*suspects], []
            for item in last:
                self.admission.in_work.look(item)
                yield planned(iter([item]), size_of=partial(header_size, max_pixels=config.max_pixels))
            if self._turns.is_waiting:
                yield plan_others(others(iter(checker)))

    def read_ahead(self, planned: Planned) -> ReadAhead:
        """Read the pictures of the planned batches in threads."""
        config = self._config
        read = partial(read_picture, clock=self._clock, hashes=self._hashes, max_pixels=config.max_pixels)
        look = partial(read_mask, clock=self._clock, hashes=self._hashes, max_pixels=config.max_pixels)
        take = self._losses.before(self._take)
        return ReadAhead(planned, read, look, timeout=config.read_timeout, stopped=self._has_ended, on_batch=take)

    def _take(self, batch: Batch) -> None:
        """The items of this batch are in work from now on."""
        self.admission.take(batch)
        self._turns.taken(batch)

    def _has_ended(self) -> bool:
        """Whether no further batch is to be read."""
        return self.stop() or self._is_broken()

    def editor(self, writers: Writers[Edited]) -> AbstractContextManager[Editor]:
        """What takes batches through the networks. With several workers, what they finish goes to `writers` itself."""
        model = self.model.open()
        if self._config.workers > 1:
            from joyedit.runtime.workers.editor import fleet_editor

            editor = fleet_editor(
                model,
                self.recorder,
                self._clock,
                self._stats,
                give=writers.put,
                progress=self._progress,
                stopped=self.stop,
            )
            self._is_broken = editor.is_broken
            return editor
        backend = cast(Backend, model)
        return nullcontext(
            BatchEditor(
                backend,
                self.recorder,
                self._clock,
                self._stats.device,
                encode_ahead=1 if self._one_by_one else backend.encode_ahead,
                on_step=self._progress.step,
                stopped=self.stop,
            )
        )

    def on_cluster(self, entries: Iterator[Entry | Pause], checker: Checker) -> bool:
        """Edit all items there; whether all have a record. Raises what ended the run."""
        from joyedit.runtime.ray_engine.on_cluster import Figures, Records, edit_on_cluster

        planned = chain.from_iterable(self.parts(entries, checker))
        records = Records(self._folder, self.recorder, self._placing(), self.admission)
        figures = Figures(self._clock, self._stats, self._progress)
        on_batch = self._losses.before(self._turns.taken)
        return edit_on_cluster(self.model, planned, records, figures, stopped=self.stop, on_batch=on_batch)

    def batches(self, ready: ReadAhead) -> Iterator[ReadyBatch | None]:
        """The batches whose pictures were read; None where more come only when some of them are done.

        Items that failed on the way are recorded.
        """
        entries = iter(ready)
        while True:
            with self._stats.waiting("read"):
                entry = next(entries, None)
            if entry is None:
                return
            if isinstance(entry, Pause):
                yield None
            elif isinstance(entry, FailedItem):
                self.recorder.unplanned(entry)
            elif isinstance(entry, UnreadItem):
                self.recorder.failed(entry.sized, entry.error, "unreadable_picture")
            else:
                self._scenes.look(entry)
                yield entry

    def interrupt(self) -> None:
        """Stop as on a first Ctrl-C."""
        self.stop.interrupt()
        self._progress.stopping("interrupted")

    def stopped_early(self) -> Ending:
        """The ending of a run that was told to stop."""
        assert self.stop.reason is not None
        if self.stop.reason == "out_of_time":  # an interruption is announced when it comes
            self._progress.stopping("out_of_time")
        return Ending(self.stop.reason)

    def complete(self) -> Ending:
        """The ending of a run that came to the end of its source."""
        tally, came, source, note = self._tally, self._stats.counted, self._source, self._progress.note
        again = self._resume.again
        update, log = self._config.update, self.recorder.log
        return all_accounted_for(tally, came, source, again=again, is_update=update, note=note, log=log)

    def close(self, ending: Ending) -> tuple[Ending, Report]:
        """Write the report; gives it, and the ending, which is another one where the report cannot be written.

        Raises what ended the run, where that is a fault of loading the model: nothing was edited then.
        """
        if self._tally.batches:
            self._stats.measure_ceiling(self.model.open())
        self.stop.end()
        ending = self.stopped_early() if ending.state == "complete" and self._outputs.is_cut_short else ending
        try:
            report = self._write_report(ending)
        except JoyeditError as error:  # a disk that stopped the run may have no room for the report either
            ending = Ending("stopped", ending.error or error)
            report = self._report(ending)
        if isinstance(ending.error, (CheckpointError, DeviceError)) and self._stats.device.loaded is None:
            raise ending.error
        return ending, report

    def failed(self, error: BaseException) -> None:
        """Let the report say that the run stopped, if it has begun or has recorded an item."""
        recorder: Recorder | None = getattr(self, "recorder", None)  # it may not have been opened
        if not self.stop.started and (recorder is None or not recorder.journal.has_grown):
            return
        self.stop.end()  # another signal must not interrupt this
        ending = ending_of(error, is_interrupted=self.stop.reason == "interrupted")  # before the model was loaded
        with suppress(JoyeditError):
            self._write_report(ending)

    def _write_report(self, ending: Ending) -> Report:
        report = self._report(ending)
        self._folder.write_text(REPORT, report.to_json())
        return report

    def _report(self, ending: Ending) -> Report:
        return self._stats.report(
            ending,
            source=self._source.name,
            config=self._config,
            info=self.model.info,
            summary=self.model.summary,
            tally=self._tally,
            backend=self.model.backend,
            shard=self._source.shard_counts(),
        )
