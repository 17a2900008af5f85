"""Opens all that one run holds: signals, lock, output folder, model. What cannot work is refused before anything is
written, and leaving the session gives everything back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from joyedit.job.pictures.decode import allow_pixels
from joyedit.job.results.lock import OutputLock
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import SourceStoppedError
from joyedit.runtime.lazy_model import LazyModel
from joyedit.runtime.metrics_file import figures_of, metrics_of
from joyedit.runtime.model import DescribeModel, FetchModel, LoadModel
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.progress import Progress
from joyedit.runtime.pipeline.stats import RunStats
from joyedit.runtime.pipeline.stop import Stop
from joyedit.runtime.session import RunSession

if TYPE_CHECKING:
    from joyedit.job.source.sources import Source


@contextmanager
def open_session(
    source: Source,
    config: RunConfig,
    *,
    load_backend: LoadModel,
    describe: DescribeModel | None,
    fetch: FetchModel | None,
    progress: Progress,
    clock: StageClock,
) -> Iterator[RunSession]:
    """Check the output folder, lock it, and load the model, except where `describe` allows to wait with that.

    Raises UsageError or OutputError for an output folder that cannot be used, ManifestError for a source with
    faults, and whatever `load_backend` raises.
    """
    stats = RunStats(clock)
    stop = Stop(config.max_duration)
    progress.begin(stop)
    source.stopped = stop
    folder = OutputFolder(config.output)
    with ExitStack() as stack:
        stack.enter_context(stop.signals(progress.stopping))
        folder.check()
        lock = stack.enter_context(OutputLock(config.output))
        if config.output.is_dir():  # whoever comes second is refused before the model loads
            lock.acquire()
        allow_pixels(config.max_pixels)
        try:
            model = LazyModel(
                source,
                config,
                load_backend=load_backend,
                describe=describe,
                fetch=fetch,
                progress=progress,
                clock=clock,
            )
        except SourceStoppedError as error:  # nothing is written
            if stop.reason == "interrupted":
                raise KeyboardInterrupt from error
            raise
        stack.callback(model.close)
        stats.loaded = clock.now()
        folder.prepare()
        stack.callback(folder.close)
        lock.acquire()
        if lock.note is not None:
            progress.note(lock.note)
        session = RunSession(
            source, config, folder=folder, model=model, progress=progress, clock=clock, stats=stats, stop=stop
        )
        figures = partial(figures_of, session.tally, source, config, model, stats)
        stack.enter_context(metrics_of(config.metrics, figures, stats, progress.note))
        yield session
