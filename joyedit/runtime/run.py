"""One run from source to report: the whole data flow on one screen.

source -> check (threads) -> plan -> read (threads) -> encode, denoise, decode (queued by this thread)
       -> write (threads, which wait for the device) -> record

Every queue is bounded, the device waits for no disk and no host, and each item ends in exactly one record.
What an earlier run has done leaves the stream at the check. No torch here: the networks are behind `Backend`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from joyedit.errors import (
    EXIT_FATAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_OUT_OF_TIME,
    EXIT_SOME_FAILED,
    CheckpointError,
    DeviceError,
    JoyeditError,
    OutputError,
)
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.decode import allow_pixels
from joyedit.job.pictures.encode import DEFAULT_QUALITY
from joyedit.job.plan import plan
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.lock import OutputLock
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.report import REPORT, Idle, Report, StageWork, State, host_peak_memory, versions
from joyedit.job.results.resume import Decision, Resume
from joyedit.job.results.retry import write_failed
from joyedit.job.results.run_counts import Tally
from joyedit.job.results.verify import asked_of
from joyedit.job.spec import EditItem, FailedItem, RunConfig
from joyedit.runtime.lazy_model import LazyModel
from joyedit.runtime.model import DescribeModel, LoadBackend
from joyedit.runtime.pipeline.check import AHEAD, Checker
from joyedit.runtime.pipeline.check import WORKERS as CHECKERS
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import Editor
from joyedit.runtime.pipeline.progress import NoProgress, Progress
from joyedit.runtime.pipeline.read import ReadAhead, ReadyBatch, read_picture
from joyedit.runtime.pipeline.record import Recorder
from joyedit.runtime.pipeline.stop import Stop
from joyedit.runtime.pipeline.threads import StoppedError, Workers
from joyedit.runtime.pipeline.write import PictureWriter, Writers

if TYPE_CHECKING:
    from joyedit.job.source.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How a run ended. `error` is what stopped it, if something did; the report stands all the same."""

    exit_code: int
    report: Report
    error: JoyeditError | None = None


def run(
    source: Source,
    config: RunConfig,
    *,
    load_backend: LoadBackend,
    describe: DescribeModel | None = None,
    progress: Progress | None = None,
    clock: StageClock | None = None,
) -> RunOutcome:
    """Edit every item of `source` into `config.output` that is not there already.

    Raises, before anything is edited, `ManifestError` or `UsageError` for a source or an output that
    cannot work, `OutputError` where another run holds the output, and whatever `load_backend` raises; also
    what loading raises that goes on behind the first batch, with no item edited.
    From then on every fault is in the outcome: those of single items (exit code 3), an interruption (130),
    the end of the time (10), what stops a run (1). With `describe`, no model is loaded where all is done.
    """
    progress, clock = progress or NoProgress(), clock or StageClock()
    about = RunStats(start=clock.now())
    stop = Stop(config.max_duration)
    folder = OutputFolder(config.output)
    with ExitStack() as stack:
        stack.enter_context(stop.signals(progress.stopping))
        folder.check()
        lock = stack.enter_context(OutputLock(config.output))
        if config.output.is_dir():  # whoever comes second hears it before the model loads
            lock.acquire()
        allow_pixels(config.max_pixels)
        opening = LazyModel(source, config, load_backend, describe, progress, clock)
        stack.callback(opening.close)
        about.loaded = clock.now()
        folder.prepare()
        lock.acquire()
        about.asked = asked_of(source, folder.path)
        report = partial(_report, source.name, config, opening, clock, about)
        try:
            if lock.note is not None:
                progress.note(lock.note)
            removed = folder.clean()
            with Recorder(folder.path, opening.info, progress.result) as recorder:
                about.tally = recorder.tally
                if removed:
                    recorder.log(f"{removed} unfinished files of an earlier run removed")
                if recorder.journal.repaired is not None:
                    progress.note(recorder.journal.repaired)
                about.state, about.error = _flow(
                    source, config, folder, opening, recorder, progress, clock, about, stop
                )
                write_failed(folder, recorder.journal)
        except OutputError as error:
            about.state, about.error = "stopped", about.error or error
        if about.tally.batches:
            assert opening.backend is not None
            about.matmul_tflops = opening.backend.matmul_tflops()
        try:
            folder.write_text(REPORT, report().to_json())
        except OutputError as error:  # a disk that stopped the run may have no room for the report either
            about.state, about.error = "stopped", about.error or error
        if isinstance(about.error, (CheckpointError, DeviceError)) and not about.is_loaded:
            raise about.error  # as if it had been found before the first batch
        return RunOutcome(exit_code=report().exit_code, report=report(), error=about.error)


def _flow(
    source: Source,
    config: RunConfig,
    folder: OutputFolder,
    opening: LazyModel,
    recorder: Recorder,
    progress: Progress,
    clock: StageClock,
    about: RunStats,
    stop: Stop,
) -> tuple[State, JoyeditError | None]:
    """Everything between the start and the report; gives the state it ended in, and why.

    Raises what `opening.open` raises.
    """
    info, hashes = opening.info, HashCache()
    fingerprints = Fingerprinter(
        model=opening.identity(),
        schedule=info.schedule,
        dtype=info.dtype,
        quality=DEFAULT_QUALITY if config.quality is None else config.quality,
    )
    resume = Resume(recorder.journal, folder.path, fingerprints, hashes, config.redo, config.trust_journal)
    waits = source.kind == "stdin"  # for a result, maybe, before it gives the next item
    write = PictureWriter(
        folder=folder, config=config, info=info, recorder=recorder, clock=clock, fingerprints=fingerprints
    )
    read = partial(read_picture, clock=clock, hashes=hashes, max_pixels=config.max_pixels)

    def passed_over(decision: Decision) -> None:
        if stop():
            raise StoppedError
        if decision == "done":
            recorder.skipped()
        else:
            recorder.left()
        progress.skipped()

    try:
        checkers = Workers(CHECKERS, "joyedit-check", timeout=config.read_timeout, stopped=stop)
        with checkers, Writers(write) as writers:
            ahead = 1 if waits else AHEAD
            checked = Checker(
                _counted(source.items(), about), resume, checkers, passed_over,
                max_pixels=config.max_pixels, ahead=ahead,
            )  # fmt: skip
            found: Iterator[EditItem | FailedItem] = iter(checked)
            if opening.backend is None:
                first = _first_to_edit(found, opening, recorder)
                if first is None:
                    return _complete(recorder.tally, about)
                found = chain([first], found)
            backend = opening.open()
            recorder.info = opening.info  # which kernels are in force is known now
            about.loaded, about.expected = clock.now(), opening.summary.items
            folder.write_text(REPORT, _report(source.name, config, opening, clock, about).to_json())
            window = 1 if waits else backend.window
            editor = about.editor = Editor(backend, recorder, clock, progress.step, stop, window)
            planned = plan(
                found, config.batch_size or backend.auto_batch_size, config.window, checked.size_of,
                look_ahead=not waits,
            )  # fmt: skip
            stop.started = True
            with ReadAhead(planned, read, timeout=config.read_timeout, stopped=stop) as ready:
                try:
                    for entry in _timed(ready, clock, about):
                        writers.check()
                        if isinstance(entry, FailedItem):
                            recorder.unplanned(entry)
                            continue
                        for sized, fault in entry.unread:
                            recorder.failed(sized, fault, "unreadable_picture")
                        for edited in editor.edit(entry.index, entry.items):
                            about.waited["write"] += writers.put(edited)
                    for edited in editor.finish() if ready.finished else ():
                        about.waited["write"] += writers.put(edited)
                except KeyboardInterrupt:
                    editor.dropped = True
                    stop.interrupt()
                    progress.stopping("interrupted")
                editor.drain()
        if stop.reason == "out_of_time" and (editor.dropped or not ready.finished):
            progress.stopping("out_of_time")
    except StoppedError:  # before there was anything to edit
        assert stop.reason is not None
        progress.stopping(stop.reason)
        return stop.reason, None
    except JoyeditError as error:
        if opening.backend is None:
            raise
        return "stopped", error
    if stop.reason is not None and (editor.dropped or not ready.finished):
        return stop.reason, None
    return _complete(recorder.tally, about)


def _first_to_edit(found: Iterator[EditItem | FailedItem], opening: LazyModel, recorder: Recorder) -> EditItem | None:
    """The first item that needs the model; None if there is none. Those that failed already are recorded."""
    for entry in found:
        opening.check()  # a faulty source is refused, and not recorded line by line
        if isinstance(entry, EditItem):
            return entry
        recorder.unplanned(entry)
    if not recorder.tally.recorded + recorder.tally.left:
        opening.check()
    return None


def _complete(tally: Tally, about: RunStats) -> tuple[State, None]:
    assert about.taken == tally.recorded + tally.left, "an item was lost, or recorded twice"
    return "complete", None


@dataclass(kw_only=True, slots=True)
class RunStats:
    """What a run gathers about itself for its report. Times are on the run's clock."""

    start: float
    loaded: float = 0.0
    started: str = field(default_factory=lambda: _utc())
    taken: int = 0
    expected: int | None = None
    waited: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})
    tally: Tally = field(default_factory=Tally)
    state: State = "running"
    error: JoyeditError | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    editor: Editor | None = None
    matmul_tflops: float | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether all networks were there at some time."""
        return self.editor is not None and self.editor.loaded is not None


def _counted(items: Iterable[EditItem | FailedItem], about: RunStats) -> Iterator[EditItem | FailedItem]:
    for item in items:
        about.taken += 1
        yield item


def _timed(ready: ReadAhead, clock: StageClock, about: RunStats) -> Iterator[FailedItem | ReadyBatch]:
    """`ready`, with the time for which the device stood still for it."""
    entries = iter(ready)
    while True:
        start = clock.now()
        entry = next(entries, None)
        about.waited["read"] += clock.now() - start
        if entry is None:
            return
        yield entry


def _report(name: str, config: RunConfig, opening: LazyModel, clock: StageClock, about: RunStats) -> Report:
    tally, info, summary, backend = about.tally, opening.info, opening.summary, opening.backend
    now = clock.now()
    failed = tally.failed.total()
    exit_codes = {
        "complete": EXIT_SOME_FAILED if failed else EXIT_OK,
        "interrupted": EXIT_INTERRUPTED,
        "out_of_time": EXIT_OUT_OF_TIME,
        "stopped": EXIT_FATAL,
        "running": EXIT_FATAL,
    }
    return Report(
        state=about.state,
        exit_code=exit_codes[about.state],
        started=about.started,
        ended=_utc(),
        seconds=now - about.start,
        source=name,
        asked=about.asked,
        output=str(config.output),
        items=tally.recorded,
        ok=tally.ok + tally.skipped,
        skipped=tally.skipped,
        failed=failed,
        left=_left(about),
        failed_by_code=dict(tally.failed),
        passed_over=summary.passed_over,
        batches=tally.batches,
        stages=clock.seconds(),
        waited=about.waited,
        device_work=_work(about),
        matmul_tflops=about.matmul_tflops,
        device_idle=_idle(about, now),
        images_per_second=tally.ok / (now - about.loaded) if tally.ok and now > about.loaded else None,
        warm_up=tally.warm_up(),
        steady=tally.steady(),
        peak_memory={"device": None if backend is None else backend.peak_memory(), "host": host_peak_memory()},
        predicted_peak=None if backend is None else backend.predicted_peak(),
        model=info.model,
        layout=info.layout,
        device=info.device,
        dtype=info.dtype,
        attention=info.attention,
        schedule=info.schedule,
        fused=info.fused,
        compile=info.compiled,
        compile_seconds=info.compile_seconds,
        batch_size=config.batch_size or "auto",
        settings=summary.settings,
        notes=info.notes,
        versions=versions(),
    )


def _work(about: RunStats) -> dict[str, StageWork]:
    """Operations of the batches that are done, where the backend counts them."""
    editor = about.editor
    if editor is None:
        return {}
    return {
        stage: StageWork.of(operations, editor.seconds[stage], about.matmul_tflops)
        for stage, operations in editor.operations.items()
    }


def _idle(about: RunStats, now: float) -> Idle | None:
    """What the device had nothing to do, of the time since all networks were loaded."""
    editor = about.editor
    if editor is None or editor.loaded is None or now <= editor.loaded:
        return None
    return Idle.of(now - editor.loaded, editor.busy.seconds)


def _left(about: RunStats) -> int | None:
    """How many items of the source have no record; None if the source does not tell its length."""
    if about.state == "complete":
        return about.tally.left
    return None if about.expected is None else max(0, about.expected - about.tally.recorded)


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
