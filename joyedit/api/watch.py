"""What a run tells while it goes on, for a caller in another thread: counts, results, and the way to stop it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from joyedit.api.spelling import in_python
from joyedit.job.results.records import line_of, parse
from joyedit.job.results.resume import Decision
from joyedit.job.run_config import RunConfig
from joyedit.job.source.source import SourceSummary
from joyedit.job.spec import EditItem, FailedItem, ItemResult
from joyedit.runtime.pipeline.stop import Stop
from joyedit.runtime.protocol import BackendInfo
from joyedit.weights.hub import Download

MOST_WAITING = 256
"""Where results are taken one by one, the run takes no further items while so many results wait."""
FINISHED = "finished"
_POLL = 0.1
_KEPT = 64


class RunWatch:
    """A `Progress`. The methods of that are for the run; the others are for the caller.

    `with_results`: the caller takes each result out of `events`, as a line of results.jsonl and whether an earlier run
    made it. Whatever else is in `events` only wakes the caller.
    """

    def __init__(self, *, with_results: bool) -> None:
        self.events: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
        self.ids: dict[str, bool] = {}
        """The items that have a result, in the order in which they came; whether an earlier run finished them."""
        self.held: dict[str, dict[str, Any]] = {}
        """The first few records, for a run whose records do not stay."""
        self.phase = "checking the source"
        self.detail = ""
        self.total: int | None = None
        self.done = self.failed = self.before = self.left = 0
        self.started_at: float | None = None
        self.notes: list[str] = []
        self._with_results = with_results
        self._order: dict[str, None] = {}
        self._stop: Stop | None = None
        self._stop_wanted = False
        self._drops = False
        self._page_stopped = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # for the caller

    def interrupt(self) -> bool:
        """Stop as on a first Ctrl-C; any thread may call. Whether the run comes to its end by itself: not while the
        model loads.
        """
        self._stop_wanted = self._page_stopped = True
        self.phase = "stopping after the batch in work"
        if self._stop is None:
            return False
        self._stop.interrupt()
        return self._stop.started

    def drop(self) -> None:
        """Drop the batch in work, at its next step."""
        self._drops = True
        self.phase = "stopping, the batch in work is dropped"

    def is_page_stopped(self) -> bool:
        """Whether the page is not to be made any more."""
        return self._page_stopped

    def sorted_ids(self) -> dict[str, bool]:
        """`ids` in the order of the source."""
        with self._lock:
            known = {name: self.ids[name] for name in self._order if name in self.ids}
            return known | self.ids

    def end(self, phase: str) -> None:
        """The run has ended, in this way."""
        self.phase, self.detail = phase, ""
        if phase == FINISHED:
            self.total = self.done + self.failed + self.before + self.left

    def item(self, entry: EditItem | FailedItem) -> None:
        """The run takes an item from the source. It waits here while the caller has many results to take."""
        self._order[entry.id] = None
        while self._with_results and self.events.qsize() > MOST_WAITING and not self._is_stopped():
            time.sleep(_POLL)

    # for the run

    def begin(self, stopped: Callable[[], bool]) -> None:
        """As in `Progress`."""
        self._thread = threading.current_thread()
        if isinstance(stopped, Stop):
            self._stop = stopped
            if self._stop_wanted:
                stopped.interrupt()

    def checking(self) -> None:
        """As in `Progress`."""
        self.phase = "checking what is done"

    def downloading(self, download: Download, here: int) -> None:
        """As in `Progress`."""
        self.phase, self.detail = "downloading the model", f"{here / 1e9:.1f} of {download.bytes / 1e9:.1f} GB"

    def loading(self, config: RunConfig) -> None:
        """As in `Progress`."""
        self.phase, self.detail = "loading the model", ""

    def started(self, info: BackendInfo, summary: SourceSummary) -> None:
        """As in `Progress`."""
        self.phase, self.total, self.started_at = "editing", summary.items, time.monotonic()

    def step(self, done: int, total: int) -> None:
        """As in `Progress`. Raises KeyboardInterrupt where the batch is to be dropped, as a signal would."""
        self.detail = f"step {done} of {total}"
        if self._drops and threading.current_thread() is self._thread:
            self._drops = False
            raise KeyboardInterrupt

    def result(self, result: ItemResult, line: str) -> None:
        """As in `Progress`."""
        if result.status == "ok":
            self.done += 1
        else:
            self.failed += 1
        self._add(result.id, line, was_done=False)

    def skipped(self, decision: Decision, finished: Callable[[], dict[str, Any] | None]) -> None:
        """As in `Progress`."""
        if decision in ("leave", "keep"):
            self.left += 1
        elif decision == "given up":
            self.failed += 1
        else:
            self.before += 1
        record = finished()
        if record is not None:
            self._add(str(record["id"]), line_of(record) if self._needs_line() else "", was_done=True)

    def note(self, text: str) -> None:
        """As in `Progress`."""
        self.notes.append(in_python(text))

    def stopping(self, reason: str) -> None:
        """As in `Progress`."""
        if not self._stop_wanted:
            self.phase = "stopping, out of time" if reason == "out_of_time" else "stopping, interrupted"

    def _add(self, name: str, line: str, *, was_done: bool) -> None:
        with self._lock:
            self.ids[name] = was_done
        if len(self.held) < _KEPT and line:
            self.held[name] = parse(line.encode()) or {}
        if self._with_results and line:
            self.events.put((line, was_done))

    def _needs_line(self) -> bool:
        return self._with_results or len(self.held) < _KEPT

    def _is_stopped(self) -> bool:
        return self._stop_wanted or (self._stop is not None and self._stop())
