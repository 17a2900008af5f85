"""Runs with several workers, seen from their parent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import joyedit
from joyedit.errors import CheckpointError, UsageError
from joyedit.job.results.records import final_records
from joyedit.runtime.pipeline.worker_stats import FleetStats
from joyedit.runtime.run import RunOutcome


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    monkeypatch.delenv("JOYEDIT_MODEL", raising=False)
    Image.new("RGB", (24, 24), (9, 80, 200)).save("in.png")


def run(*instructions: str, gpus: Any = 2, **options: Any) -> RunOutcome:
    lines = [{"image": "in.png", "instruction": text, "id": str(n)} for n, text in enumerate(instructions)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"basesize": 256, "steps": 1, "output": "out", "page": False} | options
    return joyedit.run("m.jsonl", model="fake", gpus=gpus, **options)


def codes() -> dict[str, str | None]:
    return {one["id"]: (one["error"] or {}).get("code") for one in final_records(Path("out/results.jsonl"))}


@pytest.mark.parametrize("options", [{}, {"offload": "none"}, {"batch_size": 1}])
def test_all_items_are_edited_and_each_worker_is_in_the_report(options: dict[str, Any]) -> None:
    outcome = run("a", "FAIL-NAN", "FAIL-BATCH", "b", "c", "d", "e", "f", **options)
    assert outcome.exit_code == 3
    assert codes() == dict.fromkeys("034567") | {"1": "not_finite", "2": "edit_failed"}
    report = outcome.report
    assert sum(work.items for work in report.workers) == 8
    assert sum(work.batches for work in report.workers) == report.batches
    assert report.device == "cpu (2 workers)"
    labels = [label for label, _ in report.rows()]
    assert ("worker 0" in labels, "worker 1" in labels) == (True, True)


def test_an_item_that_kills_two_workers_fails_alone() -> None:
    outcome = run("a", "SIGKILL", "b", "c", "d")
    assert codes() == dict.fromkeys("0234") | {"1": "killed_workers"}
    assert sum(work.deaths for work in outcome.report.workers) == 2
    assert "died" in " ".join(text for _, text in outcome.report.rows())
    assert run("a", "SIGKILL", "b", "c", "d").report.failed_by_code == {"killed_workers": 1}
    assert run("a", "fine", "b", "c", "d").exit_code == 0, "its line has changed"


def test_an_error_of_the_run_that_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", "late")
    with pytest.raises(CheckpointError, match="the fake checkpoint is damaged"):
        run("a", "b")


def test_the_end_of_the_time_calls_back_what_was_not_begun() -> None:
    outcome = run(*["SLEEP"] * 12, batch_size=1, max_duration="1s")
    assert outcome.report.state == "out_of_time"
    assert outcome.report.left
    assert run(*["SLEEP"] * 12, batch_size=4).exit_code == 0
    assert len(codes()) == 12


def test_a_disk_that_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.job import failpoints

    failpoints.arm("file.create:2:enospc")
    try:
        outcome = run("a", "b", "c", "d", batch_size=1)
    finally:
        failpoints.arm(None)
    assert outcome.exit_code == 1
    assert outcome.report.state == "stopped"


@pytest.mark.parametrize("gpus", [2, "2"])
def test_gpus_from_python(gpus: Any) -> None:
    assert run("a", "b", gpus=gpus).report.device == "cpu (2 workers)"


@pytest.mark.parametrize("gpus", [[0, 1], range(2)])
def test_a_list_of_gpus_needs_gpus(gpus: Any) -> None:
    with pytest.raises(UsageError, match="gpus 0,1: on the CPU it takes a number"):
        run("a", gpus=gpus)


def test_one_gpu_is_a_plain_run() -> None:
    outcome = run("a", "b", gpus=1)
    assert outcome.report.device == "cpu"
    assert outcome.report.workers == ()


def test_the_idle_share_is_that_of_all_devices() -> None:
    stats = FleetStats(3)
    assert stats.idle(10.0) is None
    stats.loaded_at(0, 0.0)
    stats.loaded_at(1, 2.0)
    stats.loaded_at(1, 5.0)  # started again
    stats.batch(0, {"denoise": (0.0, 10.0)}, {"denoise": 10}, 7)
    stats.batch(1, {"denoise": (4.0, 8.0)}, {"denoise": 5}, None)
    idle = stats.idle(10.0)
    assert idle is not None
    assert (idle.seconds, idle.of_seconds) == (4.0, 18.0)
    assert stats.loaded == 0.0
    assert stats.work(None)["denoise"].seconds == 14.0
    first, second, third = stats.by_worker(10.0)
    assert (first.batches, first.busy, first.peak_memory) == (1, 10.0, 7)
    assert (second.busy, second.peak_memory) == (4.0, None)
    assert third.idle is None
    assert third.text() == "was never ready: 0 items in 0 batches, busy 0.000 s"
