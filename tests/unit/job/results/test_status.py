"""The rate that `joyedit status` tells, by the times in the records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from joyedit.job.results.status import status

NOW = datetime.now(timezone.utc).replace(microsecond=0)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def rate(
    folder: Path, seconds: Iterable[float], *, holder: dict[str, object] | None = None, **report: object
) -> float | None:
    lines = [json.dumps({"id": str(n), "status": "ok", "at": ago(one)}) for n, one in enumerate(seconds)]
    (folder / "results.jsonl").write_text("".join(line + "\n" for line in lines))
    (folder / "report.json").write_text(json.dumps(report))
    return status(folder, lambda _: holder).rate


def test_the_first_batch_counts_from_the_time_when_the_model_was_loaded(tmp_path: Path) -> None:
    """All items of a batch are recorded at nearly the same time."""
    assert rate(tmp_path, [10, 10, 9, 9], state="running", ended=ago(49)) == pytest.approx(0.1)
    assert rate(tmp_path, [], state="running", ended=ago(49)) is None


def test_an_earlier_run_says_nothing(tmp_path: Path) -> None:
    yesterday = [86_400 + n for n in range(30, 0, -1)]
    assert rate(tmp_path, [*yesterday, 40, 20], state="running", ended=ago(60)) == pytest.approx(2 / 40)
    assert rate(tmp_path, yesterday, state="running", ended=ago(60)) is None


def test_of_a_long_run_the_last_items_count(tmp_path: Path) -> None:
    slow_then_fast = [*range(10_000, 1_000, -100), *range(400, 0, -2)]
    assert rate(tmp_path, slow_then_fast, state="running", ended=ago(20_000)) == pytest.approx(0.5)


def test_a_run_that_has_ended(tmp_path: Path) -> None:
    assert rate(tmp_path, [12, 11, 10], state="complete", ended=ago(9), images_per_second=0.1) == pytest.approx(0.1)
    assert rate(tmp_path, [30, 20, 10], state="complete", ended=ago(9)) == pytest.approx(0.1)
    assert rate(tmp_path, [10], state="complete", ended=ago(9)) is None


def test_a_run_whose_model_is_not_loaded_yet(tmp_path: Path) -> None:
    begun = {"state": "complete", "ended": ago(9), "images_per_second": 0.1}
    assert rate(tmp_path, [12, 11, 10], holder={"pid": 1}, **begun) is None


def test_times_that_say_nothing(tmp_path: Path) -> None:
    assert rate(tmp_path, [10, 5, -3600], state="running", ended=ago(40)) is None, "the clock was set back"
    assert rate(tmp_path, [10, 5], state="running", ended="at noon") is None
