"""One run from source to report: the whole data flow on one screen.

source -> plan -> read (threads) -> encode, denoise, decode (this thread) -> write (threads) -> record

Every queue is bounded, the device waits for no disk, and each item ends in exactly one record. No
torch here: the networks are behind `Backend`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from joyedit.errors import EXIT_FATAL, EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, JoyeditError, OutputError
from joyedit.job.output import OutputFolder
from joyedit.job.plan import plan
from joyedit.job.report import REPORT, Report, State, Tally, host_peak_memory, versions
from joyedit.job.spec import EditItem, FailedItem, RunConfig
from joyedit.runtime.backend import Backend, LoadBackend
from joyedit.runtime.editing import Editor
from joyedit.runtime.progress import Progress, Silence
from joyedit.runtime.reading import ReadAhead, ReadyBatch, read_picture
from joyedit.runtime.records import Recorder
from joyedit.runtime.timing import StageClock
from joyedit.runtime.writing import PictureWriter, Writers

if TYPE_CHECKING:
    from joyedit.job.manifest import Source, SourceSummary


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
    progress: Progress | None = None,
    clock: StageClock | None = None,
) -> RunOutcome:
    """Edit every item of `source` into `config.output`.

    Raises, before anything is written, `ManifestError` or `UsageError` for a source or an output that
    cannot work, and whatever `load_backend` raises. From then on every fault is in the outcome: those
    of single items (exit code 3), an interruption from the keyboard (130), what stops a run (1).
    """
    progress, clock = progress or Silence(), clock or StageClock()
    about = _About(start=clock.now())
    folder = OutputFolder(config.output)
    folder.check()
    summary = source.check()
    progress.loading(config)
    with clock.stage("load"):
        backend = load_backend(config)
    try:
        about.loaded = clock.now()
        progress.started(backend.info, summary)
        folder.prepare()
        with Recorder(folder.path, backend.info, progress.result) as recorder:
            about.tally = recorder.tally
            about.state, about.error = _flow(source, config, folder, backend, recorder, progress, clock, about)
        report = _report(source.name, summary, config, backend, clock, about)
        try:
            folder.write_text(REPORT, report.to_json())
        except OutputError as error:  # a disk that stopped the run may have no room for the report either
            return RunOutcome(exit_code=EXIT_FATAL, report=report, error=about.error or error)
        return RunOutcome(exit_code=report.exit_code, report=report, error=about.error)
    finally:
        backend.close()


def _flow(
    source: Source,
    config: RunConfig,
    folder: OutputFolder,
    backend: Backend,
    recorder: Recorder,
    progress: Progress,
    clock: StageClock,
    about: _About,
) -> tuple[State, JoyeditError | None]:
    """Everything between the loaded model and the report; gives the state it ended in, and why."""
    editor = Editor(backend, recorder, clock, progress.step)
    write = PictureWriter(folder=folder, config=config, info=backend.info, recorder=recorder, clock=clock)
    items = _counted(source.items(), about)
    planned = plan(items, config.batch_size or backend.auto_batch_size, config.window)
    try:
        with Writers(write) as writers, ReadAhead(planned, partial(read_picture, clock=clock)) as ready:
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
            except KeyboardInterrupt:
                progress.stopping()
                return "interrupted", None
    except JoyeditError as error:
        return "stopped", error
    assert about.taken == recorder.tally.recorded, "an item was lost, or recorded twice"
    return "complete", None


@dataclass(kw_only=True, slots=True)
class _About:
    """What a run gathers about itself for its report. Times are on the run's clock."""

    start: float
    loaded: float = 0.0
    started: str = field(default_factory=lambda: _utc())
    taken: int = 0
    waited: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "write": 0.0})
    tally: Tally = field(default_factory=Tally)
    state: State = "stopped"
    error: JoyeditError | None = None


def _counted(items: Iterable[EditItem | FailedItem], about: _About) -> Iterator[EditItem | FailedItem]:
    for item in items:
        about.taken += 1
        yield item


def _timed(ready: ReadAhead, clock: StageClock, about: _About) -> Iterator[FailedItem | ReadyBatch]:
    """`ready`, with the time for which the device stood still for it."""
    entries = iter(ready)
    while True:
        start = clock.now()
        entry = next(entries, None)
        about.waited["read"] += clock.now() - start
        if entry is None:
            return
        yield entry


def _report(
    name: str, summary: SourceSummary, config: RunConfig, backend: Backend, clock: StageClock, about: _About
) -> Report:
    tally, info, now = about.tally, backend.info, clock.now()
    failed = tally.failed.total()
    exit_codes = {
        "complete": EXIT_SOME_FAILED if failed else EXIT_OK,
        "interrupted": EXIT_INTERRUPTED,
        "stopped": EXIT_FATAL,
    }
    return Report(
        state=about.state,
        exit_code=exit_codes[about.state],
        started=about.started,
        ended=_utc(),
        seconds=now - about.start,
        source=name,
        output=str(config.output),
        items=tally.recorded,
        ok=tally.ok,
        failed=failed,
        failed_by_code=dict(tally.failed),
        passed_over=summary.passed_over,
        batches=tally.batches,
        stages=clock.seconds(),
        waited=about.waited,
        images_per_second=tally.ok / (now - about.loaded) if tally.ok and now > about.loaded else None,
        warm_up=tally.warm_up(),
        steady=tally.steady(),
        peak_memory={"device": backend.peak_memory(), "host": host_peak_memory()},
        model=info.model,
        layout=info.layout,
        device=info.device,
        dtype=info.dtype,
        attention=info.attention,
        schedule=info.schedule,
        compile=config.compile,
        batch_size=config.batch_size or "auto",
        settings=summary.settings,
        notes=info.notes,
        versions=versions(),
    )


def _utc() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
