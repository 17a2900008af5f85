"""One run from source to report: the whole flow on one screen.

source -> turns -> check (threads) -> plan -> read (threads) -> encode, denoise, decode (given to the device by this
       thread) -> write (threads, which wait for the device) -> record

Every queue is bounded, the device waits for no disk, and each item ends in exactly one record. Items that an
earlier run has finished leave the flow at the check. No torch here: the networks are behind `Backend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from joyedit.errors import JoyeditError, OutputError, system_limit
from joyedit.job.results.report import Report
from joyedit.job.run_config import RunConfig
from joyedit.runtime.model import DescribeModel, FetchModel, LoadModel
from joyedit.runtime.open_session import open_session
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.edit import Edited, Editor
from joyedit.runtime.pipeline.interrupts import INTERRUPTS
from joyedit.runtime.pipeline.progress import NoProgress, Progress
from joyedit.runtime.pipeline.stats import Ending
from joyedit.runtime.pipeline.threads import StoppedError
from joyedit.runtime.pipeline.write import Writers
from joyedit.runtime.session import Planned, RunSession

if TYPE_CHECKING:
    from joyedit.job.source.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How a run ended. `error` is what stopped it, if something did; the report holds in any case.

    `page` is the HTML file that shows the run; None if there is none.
    """

    exit_code: int
    report: Report
    error: JoyeditError | None = None
    page: Path | None = None


def run(
    source: Source,
    config: RunConfig,
    *,
    load_backend: LoadModel,
    describe: DescribeModel | None = None,
    fetch: FetchModel | None = None,
    progress: Progress | None = None,
    clock: StageClock | None = None,
) -> RunOutcome:
    """Edit every item of `source` that is not finished in `config.output`.

    Raises, before anything is edited, ManifestError or UsageError for a source or an output folder that
    cannot work, OutputError where another run holds the folder, and whatever `load_backend` raises.
    After that the outcome tells every error: of single items (exit code 3), an interruption (130), the end of
    the time (10), what stopped the run (1). With `describe`, no model is loaded where all items are finished.
    `fetch` sees to it that the checkpoint is here before anything needs it.
    """
    with open_session(
        source,
        config,
        load_backend=load_backend,
        describe=describe,
        fetch=fetch,
        progress=progress or NoProgress(),
        clock=clock or StageClock(),
    ) as session:
        ending = Ending("running")
        try:
            with session.records():
                ending = edit_all(session)
        except OutputError as error:
            ending = Ending("stopped", ending.error or error)
        except BaseException as error:
            limit = system_limit(error)
            if limit is None:
                session.failed(error)
                if session.stop.reason == "interrupted" and isinstance(error, RuntimeError):
                    # A signal in the middle of Python's own waiting leaves a lock that is released twice.
                    raise KeyboardInterrupt from error
                raise
            ending = Ending("stopped", limit)
        ending, report = session.close(ending)
        return RunOutcome(exit_code=report.exit_code, report=report, error=ending.error)


def edit_all(session: RunSession) -> Ending:
    """Everything between the start and the report. Raises what loading the model raises."""
    all_came = False
    try:
        with session.checkers() as checkers, session.writers() as writers:
            checker = session.unfinished(checkers)
            entries = session.load_model_if_needed(iter(checker))
            if entries is None:
                return session.complete()
            if session.is_on_cluster:
                all_came = session.on_cluster(entries, checker)
                return session.complete() if all_came or session.stop.reason is None else session.stopped_early()
            with session.editor(writers) as editor:
                for planned in session.parts(entries, checker):
                    all_came = edit_part(session, planned, editor, writers)
                    if not all_came:
                        break
    except StoppedError:  # before there was anything to edit
        return session.stopped_early()
    except JoyeditError as error:
        if session.model.backend is None:
            raise
        return Ending("stopped", error)
    if session.stop.reason is not None and not all_came:
        return session.stopped_early()
    return session.complete()


def edit_part(session: RunSession, planned: Planned, editor: Editor, writers: Writers[Edited]) -> bool:
    """Edit the planned batches, and wait until they are written. Whether all came, and none was left out."""
    with session.read_ahead(planned) as ready:
        try:
            for batch in session.batches(ready):
                writers.check()
                writers.put_all(editor.flush() if batch is None else editor.edit(batch))
            if ready.finished:
                writers.put_all(editor.finish())
        except KeyboardInterrupt:
            INTERRUPTS.take()
            editor.dropped = True
            session.interrupt()
        editor.drain()
    writers.flush()
    return ready.finished and not editor.dropped
