"""How far a run is, from its output folder alone: also while it is going on, and after a kill."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from joyedit.job.own_files import RESULTS
from joyedit.job.results.lock import holder
from joyedit.job.results.records import error_code, final_records, packed_in
from joyedit.job.results.verify import expected_items, read_report, require_journal

_RATE_OVER = 200
"""The number of last items that give the rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """How far a run is.

    `state` is that of report.json, but `running` while a process holds the lock of the folder, and `killed` if
    the report says `running` and no process holds the lock. `left` is None if the length of the source is
    unknown, `rate` (items a second) if there are too few items. `packed` are the done items whose
    picture lies in a shard of `--write`.
    """

    state: str
    holder: dict[str, object] | None
    done: int
    failed: int
    failed_by_code: dict[str, int]
    left: int | None
    rate: float | None
    packed: int = 0

    @property
    def is_off(self) -> bool:
        """Whether items failed, or are left while no run edits them."""
        return bool(self.failed) or (bool(self.left) and self.holder is None)


def status(folder: Path, who_writes: Callable[[Path], dict[str, object] | None] = holder) -> Status:
    """How far the run of this folder is. `who_writes` tells who writes to it now.

    Raises `UsageError` if it is no output folder, `OutputError` if the journal cannot be read.
    """
    require_journal(folder)
    who, report = who_writes(folder), read_report(folder)
    done, packed, failed = 0, 0, Counter[str]()
    times: deque[object] = deque(maxlen=_RATE_OVER)
    for record in final_records(folder / RESULTS):
        code = error_code(record)
        if code is None:
            done += 1
            packed += packed_in(record) is not None
        else:
            failed[code] += 1
        times.append(record.get("at"))
    expected = expected_items(report)
    return Status(
        state=state_of(report, who),
        holder=who,
        done=done,
        failed=failed.total(),
        failed_by_code=dict(failed),
        left=None if expected is None else max(0, expected - done - failed.total()),
        rate=_rate(times, report, is_running=who is not None),
        packed=packed,
    )


def state_of(report: dict[str, Any], who: dict[str, object] | None) -> str:
    """The state of a run, by its report and by who writes to its folder now (see `Status`)."""
    if who is not None:
        return "running"
    state = str(report.get("state", "killed"))
    return "killed" if state == "running" else state


def _rate(times: Sequence[object], report: dict[str, Any], *, is_running: bool) -> float | None:
    """Items a second: of a run that has ended as its report says, else by the times of the last records.

    None if there are too few.
    """
    if report.get("state") != "running":
        told = report.get("images_per_second")
        if is_running:  # its model is not loaded yet, and the report is that of an earlier run
            return None
        if isinstance(told, (int, float)):
            return float(told)
    try:
        ended = sorted(_seconds(at) for at in times)
        # A run writes this report when its model is loaded. What was there before says nothing of its rate.
        begun = _seconds(report.get("ended")) if report.get("state") == "running" else None
    except ValueError:
        return None
    if ended and ended[-1] > time.time() + 1:  # somebody set the clock back
        return None
    own = ended if begun is None else [at for at in ended if at >= begun]
    if begun is not None and (len(own) < len(ended) or len(ended) < _RATE_OVER):
        return len(own) / (own[-1] - begun) if own and own[-1] > begun else None
    return (len(own) - 1) / (own[-1] - own[0]) if own and own[-1] > own[0] else None


def _seconds(at: object) -> float:
    return datetime.fromisoformat(str(at)).timestamp()
