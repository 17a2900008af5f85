"""How a run shows itself: what is in force, the bar or its plain lines, failures, and records as JSON.

A terminal gets a tqdm bar. Anything else gets few plain lines: at each quarter of the items, and
otherwise at most one every ten seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from joyedit.cli import console, run_events
from joyedit.cli.download_meter import DownloadMeter
from joyedit.cli.passed_over_text import tell_passed_over
from joyedit.cli.record_lines import printed_line
from joyedit.cli.settings_in_force import in_force
from joyedit.cli.streams import Pump
from joyedit.job.results.records import line_of, output_of
from joyedit.job.results.report import seconds_text
from joyedit.job.results.resume import Decision
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import ItemResult
from joyedit.options import JsonName
from joyedit.printable import printable
from joyedit.request import Request, shown_place
from joyedit.runtime.protocol import BackendInfo
from joyedit.weights.hub import Download
from joyedit.weights.wanted import Wanted

if TYPE_CHECKING:
    from tqdm import tqdm

    from joyedit.job.source.sources import SourceSummary

_SKIPPED: dict[Decision, tuple[str, str]] = {
    "done": ("is already done", "are already done"),
    "changed": (
        "is already done; somebody changed its picture since, and it stays so (--update edits it again)",
        "are already done; somebody changed their pictures since, and they stay so (--update edits them again)",
    ),
    "leave": (
        "did not fail in an earlier run and is left (it needs a run without --retry-failed)",
        "did not fail in an earlier run and are left (they need a run without --retry-failed)",
    ),
    "keep": (
        "has a finished picture that differs from what is asked, and keeps it (--update replaces it)",
        "have finished pictures that differ from what is asked, and keep them (--update replaces them)",
    ),
    "given up": (
        "is passed over: the process died while it was in work (change its line or picture, or add --retry-failed)",
        "are passed over: the process died while they were in work (change lines or pictures, or add --retry-failed)",
    ),
}
"""Why items are not edited: of one item, of several."""

PLAIN_SECONDS = 10.0
FAILURES_SHOWN = 20


class Meter(Protocol):
    """Shows how far the run is. Calls do not overlap, but for `step`, which comes from the main thread."""

    def item(self) -> None:
        """One more item is finished."""

    def skipped(self, count: int = 1) -> None:
        """So many items less to do."""

    def step(self, done: int, total: int) -> None:
        """A step of the running batch is done."""

    def message(self, text: str) -> None:
        """A message that must not tear the display."""

    def close(self) -> None:
        """The last state stays on the screen."""


class NoMeter:
    """For --quiet: messages pass, nothing else shows."""

    def item(self) -> None:
        """Nothing."""

    def skipped(self, count: int = 1) -> None:
        """Nothing."""

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """To stderr."""
        console.message(text)

    def close(self) -> None:
        """Nothing."""


class BarMeter:
    """A tqdm bar on a terminal: items done, rate, time left, and the step inside the batch.

    `what` stands in front of it; `stays`: whether it is left on the screen.
    """

    def __init__(self, total: int | None, what: str = "", *, stays: bool = True) -> None:
        from tqdm import tqdm

        # A terminal that does not tell its size gets 80 by 24; tqdm would show nothing there.
        known = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
        self._bar: tqdm[Any] = tqdm(
            total=total,
            desc=what or None,
            leave=stays,
            unit=" items",
            file=sys.stderr,
            dynamic_ncols=known,
            ncols=None if known else 80,
            nrows=None if known else 24,
        )

    def item(self) -> None:
        """Moves the bar."""
        self._bar.update()

    def skipped(self, count: int = 1) -> None:
        """Moves the start of the bar, so that the rate is that of the edits."""
        self._bar.initial += count
        self._bar.update(count)

    def step(self, done: int, total: int) -> None:
        """Shown behind the bar; tqdm itself limits how often it draws."""
        self._bar.set_postfix_str(f"step {done}/{total}", refresh=False)
        self._bar.update(0)
        if done == 1 or done == total or time.monotonic() - self._bar.last_print_t > 0.2:
            self._bar.refresh()

    def message(self, text: str) -> None:
        """Above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar standing."""
        self._bar.set_postfix_str("", refresh=False)
        self._bar.close()


class PlainMeter:
    """Sparse lines for logs and pipes."""

    def __init__(self, total: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._now = now
        self._start = self._told = now()
        self._done = 0
        self._skipped = 0
        self._lock = threading.Lock()

    def item(self) -> None:
        """A line when a quarter of the items is reached, or after ten silent seconds."""
        with self._lock:
            self._done += 1
            total = None if self._total is None else self._total - self._skipped
            quarter = bool(total) and total is not None and self._done * 4 // total > (self._done - 1) * 4 // total
            if quarter or self._now() - self._told >= PLAIN_SECONDS:
                self._tell()

    def skipped(self, count: int = 1) -> None:
        """A line after ten silent seconds."""
        with self._lock:
            self._skipped += count
            self._start = self._now()  # the rate is that of the edits
            if self._start - self._told >= PLAIN_SECONDS:
                self._told = self._start
                told = f"checked {self._skipped} items: they need no edit"
                console.message(told, "progress", done=self._skipped)

    def step(self, done: int, total: int) -> None:
        """A line after ten silent seconds."""
        with self._lock:
            if self._now() - self._told >= PLAIN_SECONDS:
                self._tell((done, total))

    def message(self, text: str) -> None:
        """To stderr."""
        console.message(text)

    def close(self) -> None:
        """Nothing is left to say."""

    def _tell(self, step: tuple[int, int] | None = None) -> None:
        now = self._now()
        self._told = now
        rate = self._done / (now - self._start) if now > self._start else 0.0
        done = self._done + self._skipped
        text = f"{done} items" if self._total is None else f"{done}/{self._total} items"
        left = None
        if rate > 0:
            text += f", {rate:.2g} a second"
            if self._total is not None and self._total > done:
                left = (self._total - done) / rate
                text += f", {seconds_text(left)} left"
        at, steps = step or (None, None)
        text += "" if step is None else f", step {at}/{steps}"
        console.message(
            text,
            "progress",
            done=done,
            total=self._total,
            items_per_second=rate,
            seconds_left=left,
            step=at,
            steps=steps,
        )


class RunProgress:
    """What the user of `joyedit run` sees while it runs; fills `runtime.progress.Progress`."""

    def __init__(
        self, request: Request, *, json: JsonName | None, quiet: bool, verbose: bool, pump: Pump | None = None
    ) -> None:
        self._request = request
        self._pump = pump
        self._json = json
        self._quiet = quiet
        self._verbose = verbose
        self._meter: Meter = NoMeter()
        self._download: DownloadMeter | None = None
        self._failures = 0
        self._skipped: Counter[Decision] = Counter()
        self._all_skipped = 0
        self._loading_at = time.monotonic()
        self._output: str | None = None  # of the item that was finished last
        self._held: str | None = None  # the record of a picture that is not in its place yet

    def begin(self, stopped: Callable[[], bool]) -> None:
        """A reader that does not read holds up no run that is to stop."""
        if self._pump is not None:
            self._pump.stopped = stopped

    def checking(self) -> None:
        """A bar of its own, or plain lines, for the items that are already done."""
        if not self._quiet:
            self._meter = (
                BarMeter(None, "checking which items are done", stays=False)
                if sys.stderr.isatty()
                else PlainMeter(None)
            )

    def downloading(self, download: Download, here: int) -> None:
        """To a meter of its own, which begins with the first call."""
        if self._quiet:
            return
        if self._download is None:
            self._download = DownloadMeter(download)
        self._download.at(here)
        if here == download.bytes:
            self._download.close()

    def loading(self, config: RunConfig) -> None:
        """Names the model."""
        self._meter.close()
        self._meter = NoMeter()
        self._loading_at = time.monotonic()
        if not self._quiet:
            label = Wanted.of(config).label
            console.message(f"loading {label}", "loading", model=label)

    def started(self, info: BackendInfo, summary: SourceSummary) -> None:
        """Prints what is in force, with its origin where that is not a flag; then the meter starts."""
        if self._quiet:
            return
        config = self._request.config
        rows = [("model", f"{info.model} ({info.layout} layout)")]
        for label, value, asked in (
            ("device", info.device, config.device),
            ("dtype", info.dtype, config.dtype),
            ("attention", info.attention, config.attention),
            ("schedule", info.schedule, config.schedule),
        ):
            rows.append((label, f"{value} (auto)" if asked == "auto" else value))
        if info.placement:
            rows.append(("weights", info.placement))
        rows += in_force(self._request, summary)
        rows.append(("batch size", str(config.batch_size or "auto")))
        rows += [("note", note) for note in info.notes]
        run_events.tell_loaded(config, info, summary.items, time.monotonic() - self._loading_at)
        console.settings(rows)
        tell_passed_over(summary.passed, by_name=self._verbose)
        self._meter = BarMeter(summary.items) if sys.stderr.isatty() else PlainMeter(summary.items)
        if self._all_skipped:
            self._meter.skipped(self._all_skipped)

    def step(self, done: int, total: int) -> None:
        """To the meter."""
        self._meter.step(done, total)

    def result(self, result: ItemResult, line: str) -> None:
        """The record to stdout with --json; a failure to stderr, the first few of them."""
        self._record(line, result.output)
        self._meter.item()
        if console.is_json():
            if result.error is not None or not self._quiet:
                run_events.tell_result(result)
        elif result.error is not None:
            self._failures += 1
            if self._failures <= FAILURES_SHOWN or self._verbose:
                told = f"{result.id}: {result.error['code']}: {result.error['message']}"
                self._meter.message(f"failed: {printable(told)}")
            elif self._failures == FAILURES_SHOWN + 1:
                self._meter.message("more items failed; use -v to see all of them here")
        elif self._verbose:
            self._meter.message(f"ok: {printable(f'{result.id}: {result.output}')}")

    def skipped(self, decision: Decision, finished: Callable[[], dict[str, Any] | None]) -> None:
        """To the meter; how many they were is said once, at the end. With --json=all, records of what is done."""
        if decision in ("done", "changed") and (self._json == "all" or not self._all_skipped):
            record = finished()
            if record is not None:
                self._record(line_of(record), output_of(record), is_new=False)
        self._skipped[decision] += 1
        self._all_skipped += 1
        self._meter.skipped()

    def note(self, text: str) -> None:
        """A message."""
        if console.is_json() and not self._quiet:
            console.note(text)
        elif not self._quiet:
            self._meter.message(f"note: {text}")

    def stopping(self, reason: str) -> None:
        """Said at once, so that nobody presses again without need."""
        message = "out of time" if reason == "out_of_time" else "interrupted"
        again = "" if reason == "out_of_time" else " (press Ctrl-C again to stop at once)"
        told = f"{message}: no new batch starts; the running batch is finished and written{again}"
        if console.is_json():
            console.message(told, "stopping", "warning", reason=reason)
        else:
            self._meter.message(told)

    def _tell_skipped(self) -> None:
        if not self._quiet:
            for decision, count in self._skipped.items():
                one, many = _SKIPPED[decision]
                told = f"1 item {one}" if count == 1 else f"{count} items {many}"
                console.message(told, "skipped", reason=decision, count=count)

    def _record(self, line: str, output: str | None, *, is_new: bool = True) -> None:
        """Print a record with --json. That of a single file waits until the file is in its place."""
        self._output = output or self._output
        if not self._json or not (is_new or self._json == "all"):
            return
        if self._request.picture is None:
            config = self._request.config
            console.result(printed_line(line, config.objects or config.output))
        else:
            self._held = line

    def tell_picture(self) -> None:
        """The only picture of a run, which is in its place now: its record with --json, otherwise its path."""
        picture = self._request.picture
        if self._held is not None and picture is not None:
            console.result(printed_line(self._held, picture.path.parent))
        elif self._output is not None and not self._json:
            config = self._request.config
            place = shown_place(config.output, config.objects, self._output)
            console.result(printable(str(picture.path) if picture else place))

    def close(self) -> None:
        """Ends the meter, and says how many items were not edited."""
        if self._download is not None:
            self._download.close()
        self._meter.close()
        self._tell_skipped()
