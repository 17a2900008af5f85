"""nano in a group of processes on the CPU that make each picture together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from joyedit.job.results.records import final_records
from nano.edits import sample_edit, split_rng

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds for what must come; a test never passes because of them."""
NANO = ("-m", "nano", "--device", "cpu", "--dtype", "fp32", "--basesize", "256", "--no-page")

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find processes")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A manifest of two drawn scenes, and one of the first alone."""
    (tmp_path / "tmp").mkdir()
    lines = []
    for number in range(2):
        pair = sample_edit(split_rng("heldout", 20 + number, 1), "recolour", "heldout")
        pair.source_image.save(tmp_path / f"{number}.png")
        lines.append(f'{{"image": "{number}.png", "id": "{number}", "instruction": "{pair.instruction}"}}\n')
    (tmp_path / "two.jsonl").write_text("".join(lines))
    (tmp_path / "one.jsonl").write_text(lines[0])
    return tmp_path


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    """Each process with one thread: with others, sums in fp32 have other roundings."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    env["JOYEDIT_CACHE"] = str(folder / "cache")
    return subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", *argv, *NANO], cwd=folder, env=env, stderr=subprocess.PIPE, text=True
    )


def run(folder: Path, *argv: str) -> dict[str, Any]:
    """The report of a run that did all its items."""
    process = start(folder, *argv)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, message
    report: dict[str, Any] = json.loads((folder / argv[-1] / "report.json").read_text())
    return report


def of_run(folder: Path, what: bytes = b"") -> list[int]:
    """The processes of a run in this folder whose command line has this."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_own = entry.name.isdigit() and f"TMPDIR={folder / 'tmp'}".encode() in (entry / "environ").read_bytes()
            if is_own and what in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def loaded(process: subprocess.Popen[str]) -> None:
    """Wait until the run tells what was loaded."""
    assert process.stderr is not None
    line = "device"
    while line and not line.startswith("device:"):
        line = process.stderr.readline()
    assert "1 group of 2 x cpu (guidance 2)" in line


def is_clean(folder: Path) -> bool:
    """Whether no process is left, and nothing by which ranks met."""
    return not of_run(folder) and not list((folder / "tmp").glob("joyedit-group-*"))


def without_times(folder: Path) -> dict[str, dict[str, Any]]:
    """The records, without what is never the same."""
    found = final_records(folder / "results.jsonl")
    return {one["id"]: {k: v for k, v in one.items() if k not in ("at", "seconds", "outputs_seen")} for one in found}


def test_guidance_makes_the_pixels_of_one_process_and_sequence_nearly(scenes: Path) -> None:
    share = ("two.jsonl", "-q", "--steps", "2", "--batch-size", "1")
    run(scenes, *share, "-o", "plain")
    report = run(scenes, *share, "--gpus", "2", "--parallel", "guidance", "-o", "guidance")
    assert report["device"] == "1 group of 2 x cpu (guidance 2)"
    (worker,) = report["workers"]
    assert (worker["items"], worker["deaths"]) == (2, 0)
    assert worker["exchanged"] > 0
    assert without_times(scenes / "guidance") == without_times(scenes / "plain")
    report = run(scenes, *share, "--gpus", "2", "--parallel", "sequence", "-o", "sequence")
    assert report["device"] == "1 group of 2 x cpu (sequence 2)"
    prints = [{k: v["fingerprint"] for k, v in without_times(scenes / n).items()} for n in ("plain", "sequence")]
    assert prints[0] == prints[1]
    for name in ("0.png", "1.png"):
        pictures = [Image.open(scenes / out / name).convert("RGB") for out in ("plain", "guidance", "sequence")]
        assert pictures[1].tobytes() == pictures[0].tobytes()
        worst = max(high for _, high in ImageChops.difference(pictures[0], pictures[2]).getextrema())
        assert worst <= 1
    if Path("/proc/self/environ").exists():
        until(lambda: is_clean(scenes))


@needs_proc
def test_an_item_is_done_although_a_rank_dies_and_nothing_is_left(scenes: Path) -> None:
    """The second item is with the worker as soon as the first one is done."""
    journal = scenes / "out/results.jsonl"
    more = ("--batch-size", "1", "--gpus", "2", "--parallel", "guidance")
    process = start(scenes, "two.jsonl", "--steps", "60", *more, "-o", "out")
    loaded(process)
    until(lambda: journal.exists() and b"\n" in journal.read_bytes())
    (follower,) = of_run(scenes, b"workers.follower")
    os.kill(follower, signal.SIGKILL)
    _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, message
    report = json.loads((scenes / "out/report.json").read_text())
    assert (report["ok"], report["workers"][0]["deaths"]) == (2, 1)
    log = (scenes / "out/joyedit.log").read_text()
    # Who notices first, the one that watches the processes or the one that waits for an answer, depends on the moment.
    assert "rank 1 of the group died (killed by signal 9)" in log or "rank 1 of the group is gone" in log
    assert "worker 0 had 1 item when it died: tried again, each alone" in log
    until(lambda: is_clean(scenes))


@needs_proc
def test_no_rank_outlives_the_run(scenes: Path) -> None:
    """One item for two workers: they make it together, which nobody has asked for."""
    process = start(scenes, "one.jsonl", "--steps", "200", "--gpus", "2", "-o", "out")
    loaded(process)
    assert len(of_run(scenes)) == 3
    process.kill()
    process.communicate(timeout=PATIENCE)
    until(lambda: is_clean(scenes))
