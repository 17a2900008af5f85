"""`--metrics FILE`: the figures of a run in Prometheus' text format, for the textfile collector of node_exporter.

A thread replaces the file every few seconds, and the end of the run does once more. Nothing that happens to it changes
the run: the first fault is a note.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from joyedit.errors import OutputError, UsageError, first_line, os_reason
from joyedit.job.results.report import State, host_peak_memory, joyedit_version
from joyedit.job.results.run_counts import Tally
from joyedit.job.results.shard_folders import whole_of
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import Source
from joyedit.runtime.lazy_model import LazyModel
from joyedit.runtime.metric_families import Figures, FiguresCollector
from joyedit.runtime.pipeline.stats import RunStats

SECONDS = 10.0
"""So often the file is written."""
NEEDS = 'metrics need an extra: pip install "joyedit[metrics]"'
_BEGIN = b"# HELP joyedit_"
_SUFFIX = ".prom"


def refuse_metrics(path: Path) -> None:
    """Raises UsageError for a name that cannot be such a file, for a file of somebody else, and without the extra."""
    if path.suffix != _SUFFIX:
        raise UsageError(f"--metrics {path}: Prometheus reads files that end with {_SUFFIX} (give such a name)")
    if path.is_dir():
        raise UsageError(f"--metrics {path}: this is a folder (give the name of a file)")
    if os.path.lexists(path) and not _is_own(path):
        raise UsageError(f"--metrics {path}: this file is not from joyedit, and stays (give another name)")
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise UsageError(NEEDS) from error


@contextmanager
def metrics_of(
    path: Path | None, figures: Callable[[], Figures], stats: RunStats, note: Callable[[str], None]
) -> Iterator[None]:
    """Write the file while this lasts, and when the run has its last state; nothing without a path."""
    if path is None:
        yield
        return
    file = _MetricsFile(path, figures, note)
    stats.on_report = file.reported
    thread = threading.Thread(target=file.work, name="joyedit-metrics", daemon=True)
    thread.start()
    try:
        yield
    except BaseException as error:  # nothing may have been recorded yet, and then there is no report
        if stats.state == "running":
            stats.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
        raise
    finally:
        stats.on_report = lambda state: None
        file.ended.set()
        thread.join(SECONDS)
        file.write()


def figures_of(tally: Tally, source: Source, config: RunConfig, model: LazyModel, stats: RunStats) -> Figures:
    """The figures as they stand now. Any thread may ask."""
    seconds = stats.seconds()
    shard = source.shard_counts()
    since = stats.since_loading()
    idle = stats.idle()
    items = None if model.backend is None else model.summary.items
    return Figures(
        output=_label(config.objects or os.path.abspath(whole_of(config.output))),
        shard="" if shard is None else f"{shard['number']}/{shard['of']}",
        state=stats.state,
        started=time.time() - seconds,
        seconds=seconds,
        done=tally.ok,
        skipped=tally.skipped + tally.left,
        failed=dict(tally.failed),
        left=None if items is None else max(0, items - tally.recorded - tally.left),
        rate=tally.ok / since if tally.ok and since > 0 else None,
        stages=stats.stages(),
        batches=tally.batches,
        batch_size=tally.last_batch,
        busy=None if idle is None else 1 - idle.share,
        device_peak=None if model.backend is None else model.backend.peak_memory(),
        host_peak=host_peak_memory(),
        count_workers=config.workers,
        workers=stats.workers(),
        info={
            "version": joyedit_version(),
            "model": _label(model.info.model),
            "device": model.info.device,
            "dtype": model.info.dtype,
        },
    )


class _MetricsFile:
    """Writes the file; a fault is told once."""

    def __init__(self, path: Path, figures: Callable[[], Figures], note: Callable[[str], None]) -> None:
        self.ended = threading.Event()
        self._path = path
        self._figures = figures
        self._note = note
        self._lock = threading.Lock()
        self._has_told = False

    def work(self) -> None:
        """Write every few seconds, until the run has ended."""
        self.write()
        while not self.ended.wait(SECONDS):
            self.write()

    def reported(self, state: State) -> None:
        """A report was made. The last one is the end, also where the process ends at once."""
        if state != "running":
            self.write()

    def write(self) -> None:
        """Replace the file by one with the figures as they are."""
        if not self._lock.acquire(timeout=1.0):  # a disk that does not answer
            return
        try:
            self._write()
        except Exception as error:  # the run goes on, whatever it is
            if not self._has_told:
                self._has_told = True
                reason = os_reason(error) if isinstance(error, OSError) else first_line(error)
                self._note(f"cannot write {self._path}: {reason} (the run goes on without it, and tries again)")
        finally:
            self._lock.release()

    def _write(self) -> None:
        from prometheus_client import CollectorRegistry, write_to_textfile

        if os.path.lexists(self._path) and not _is_own(self._path):  # somebody put it there during the run
            raise OutputError("this file is not from joyedit, and stays")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FiguresCollector(self._figures()))
        write_to_textfile(os.fspath(self._path), registry)


def _label(text: str) -> str:
    """The text in UTF-8: a byte of a file name that is none is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_own(path: Path) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            head = file.read(len(_BEGIN))
    except OSError:
        return False
    return head in (b"", _BEGIN)
