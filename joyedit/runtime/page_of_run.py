"""The page at the end of a run. It can change nothing about the run: its faults are notes, and its time is bounded."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from joyedit.errors import first_line
from joyedit.job.own_files import PAGE, RESULTS
from joyedit.job.page.build import Building, BuiltPage, StoppedPage, build_page, is_current
from joyedit.runtime.pipeline.progress import NoProgress, Progress
from joyedit.runtime.run import RunOutcome

LEAST_SECONDS = 30.0
SHARE = 0.02
"""Small pictures for the page are made for so many seconds, or for this share of the run's time if that is more."""
REST_SECONDS = 120.0
"""After these seconds more, a page that is not done is given up: records of a million items take their time too."""


def with_page(
    outcome: RunOutcome, output: Path, progress: Progress | None, stopped: Callable[[], bool] = bool
) -> RunOutcome:
    """Make the page of a run that has ended; gives the outcome, with the page if there is one.

    A run that was interrupted or stopped gets none: nobody waits for it, or the disk is full. One that is out of time
    gets a page without new small pictures. A page that shows all records already stays as it is. Whatever goes wrong
    is told to `progress` as a note. `stopped` says at any time whether somebody wants no page any more.
    """
    report = outcome.report
    if report.state not in ("complete", "out_of_time") or not (output / RESULTS).is_file():
        return outcome
    if not report.batches and is_current(output):
        return replace(outcome, page=output / PAGE)
    progress = progress or NoProgress()
    least = 0.0 if report.state == "out_of_time" else max(LEAST_SECONDS, SHARE * report.seconds)
    again = f"joyedit view {output} makes it"
    try:
        built = _build(output, time.monotonic() + least, progress, stopped)
    except StoppedPage:
        progress.note(f"no page was made: {again}")
        return outcome
    except Exception as error:  # the run is done, and stays so
        progress.note(f"no page was made: {first_line(error, 500)}")
        return outcome
    if built.error is not None:
        progress.note(f"the page lacks {_pictures(built.left)}: {first_line(built.error, 500)}")
    elif built.left:
        progress.note(f"the page lacks {_pictures(built.left)}: joyedit view {output} makes them")
    return replace(outcome, page=built.path)


def _pictures(count: int) -> str:
    return "1 small picture" if count == 1 else f"{count} small pictures"


def _build(output: Path, until: float, progress: Progress, is_stopped: Callable[[], bool]) -> BuiltPage:
    stopped = threading.Event()
    try:
        with _signals(stopped.set):
            building = Building(
                hurry=lambda: time.monotonic() >= until,
                stopped=lambda: stopped.is_set() or is_stopped() or time.monotonic() >= until + REST_SECONDS,
                told=lambda done: progress.note(f"making the page: {done} items so far"),
            )
            return build_page(output, building)
    finally:
        if stopped.is_set():  # the signal was for the process: it waits for no reader of its output either
            progress.begin(stopped.is_set)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Signals that would end the process end the making of the page instead, which takes a moment.

    The run is done and its report is written: no signal changes how it ends. Only the main thread gets signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, lambda *_: stop()) for number in taken}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
