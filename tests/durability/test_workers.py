"""Several worker processes under one parent: the same pictures and records, whoever dies, and no process is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from durability.harness import FAKE, check_after_kill, check_whole, make_manifest, pictures, program, records, start
from joyedit.job.results.records import read_journal

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find processes")

PATIENCE = 60.0
"""Seconds for what must come; a test never passes because of them."""


def until(what: Callable[[], Any]) -> Any:
    """Wait until this is true, and give it."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


def children(pid: int) -> list[int]:
    """The processes that this one has started, and that run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):  # it ended meanwhile
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def is_gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def finished(out: Path) -> int:
    journal = out / "results.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def without_times(out: Path) -> dict[str, dict[str, Any]]:
    """The last record of each id, without what is never the same."""
    return {name: {k: v for k, v in one.items() if k not in ("at", "seconds")} for name, one in records(out).items()}


def make(folder: Path, count: int, *more: str, instruction: str = "edit") -> tuple[Path, dict[str, bytes], set[str]]:
    """A manifest with some more instructions, and the pictures and ids of an undisturbed run in one process."""
    manifest = make_manifest(folder, count, instruction=instruction)
    with manifest.open("a") as file:
        for number, text in enumerate(more):
            file.write(json.dumps({"instruction": text, "id": f"more{number}"}) + "\n")
    whole = folder / "whole"
    done = program("run", manifest, *FAKE, "-o", whole, cwd=folder)
    assert done.code in (0, 3), done.message
    return manifest, pictures(whole), set(records(whole))


def test_pictures_and_records_are_those_of_one_process(tmp_path: Path) -> None:
    manifest, whole, ids = make(tmp_path, 11, "FAIL-NAN", "FAIL-BATCH", "FAIL-ENCODE", "FAIL-OOM")
    done = program("run", manifest, *FAKE, "--gpus", "3", "-o", "three", cwd=tmp_path)
    assert done.code == 3, done.message
    check_whole(tmp_path / "three", whole, ids)
    assert without_times(tmp_path / "three") == without_times(tmp_path / "whole")
    for name, record in records(tmp_path / "three").items():
        assert set(record["seconds"]) == set(records(tmp_path / "whole")[name]["seconds"])
    report = json.loads((tmp_path / "three/report.json").read_text())
    assert report["device"] == "cpu (3 workers)"
    assert sum(worker["items"] for worker in report["workers"]) == 15
    assert report["batches"] == sum(worker["batches"] for worker in report["workers"])
    log = (tmp_path / "three/joyedit.log").read_text()
    assert "RuntimeError: the fake device failed, as the instruction asked" in log
    assert log.count("Traceback") >= 2, "the worker's own traceback is in the log"


def test_panoramas_in_parts_and_masks(tmp_path: Path) -> None:
    """The parts of one picture go to several workers, and belong to one item."""
    noise = random.Random(5)
    for name, size in (("wide.png", (1500, 200)), ("tall.png", (100, 900)), ("plain.png", (300, 200))):
        Image.frombytes("RGB", size, noise.randbytes(size[0] * size[1] * 3)).save(tmp_path / name)
    mask = Image.new("L", (300, 200))
    mask.paste(255, (50, 50, 150, 150))
    mask.save(tmp_path / "mask.png")
    lines: list[dict[str, str]] = [{"image": name} for name in ("wide.png", "tall.png", "plain.png")]
    lines += [{"image": "plain.png", "mask": "mask.png", "id": "masked"}, {"image": "wide.png", "id": "FAIL"}]
    (tmp_path / "m.jsonl").write_text(
        "".join(json.dumps({"instruction": line.get("id", "edit"), **line}) + "\n" for line in lines).replace(
            '"instruction": "FAIL"', '"instruction": "FAIL-ENCODE"'
        )
    )
    run = ("run", "m.jsonl", *FAKE, "--panorama", "parts", "--batch-size", "2")
    for gpus in ("1", "3"):
        done = program(*run, "--gpus", gpus, "-o", gpus, cwd=tmp_path)
        assert done.code == 3, done.message
    assert pictures(tmp_path / "3") == pictures(tmp_path / "1")
    assert len(pictures(tmp_path / "3")) == 4
    assert without_times(tmp_path / "3") == without_times(tmp_path / "1")


def test_one_worker_after_three_after_one(tmp_path: Path) -> None:
    manifest, whole, ids = make(tmp_path, 12)
    for gpus, limit in (("1", 4), ("3", 9), ("1", 12)):
        done = program("run", manifest, *FAKE, "--gpus", gpus, "--limit", str(limit), "-o", "out", cwd=tmp_path)
        assert done.code == 0, done.message
        assert len(records(tmp_path / "out")) == limit
    check_whole(tmp_path / "out", whole, ids)
    done = program("run", manifest, *FAKE, "--gpus", "3", "-o", "out", cwd=tmp_path, JOYEDIT_FAKE_LOAD="checkpoint:0")
    assert done.code == 0, "nothing is to be done, so no worker loads"


@pytest.mark.parametrize("seed", [1, 2])
def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    manifest, whole, ids = make(tmp_path, 14, instruction="SLEEP")
    out = tmp_path / "out"
    argv = ("run", manifest, *FAKE, "--gpus", "3", "--batch-size", "2", "-o", out)
    process = start(*argv, cwd=tmp_path)
    for kills in range(4):
        until(lambda: finished(out) > 2 * kills or process.poll() is not None)  # noqa: B023
        workers = children(process.pid)
        if workers:
            os.kill(dice.choice(workers), signal.SIGKILL)
    message, _ = process.communicate(timeout=100)
    assert process.returncode in (0, 3), message
    check_after_kill(out, whole)
    failed = [one["error"]["code"] for one in records(out).values() if one["error"]]
    assert set(failed) <= {"killed_workers"}, "only an item that was hit twice"
    assert set(records(out)) == ids
    if failed:
        assert program(*argv, "--retry-failed", cwd=tmp_path).code == 0
    check_whole(out, whole, ids)


def test_an_item_that_kills_its_worker_fails_alone(tmp_path: Path) -> None:
    manifest, whole, ids = make(tmp_path, 8)
    with manifest.open("a") as file:
        file.write(json.dumps({"instruction": "SIGKILL", "id": "guilty", "images": ["in0.png"]}) + "\n")
    argv = ("run", manifest, *FAKE, "--gpus", "2", "-o", "out")
    for attempt in ("first", "again", "retry"):
        more = ("--retry-failed",) if attempt == "retry" else ()
        done = program(*argv, *more, cwd=tmp_path)
        assert done.code == 3, done.message
        found = records(tmp_path / "out")
        assert set(found) == ids | {"guilty"}
        assert [name for name, one in found.items() if one["error"]] == ["guilty"]
        assert found["guilty"]["error"]["code"] == "killed_workers"
        assert "2 worker processes died with this item" in found["guilty"]["error"]["message"]
        report = json.loads((tmp_path / "out/report.json").read_text())
        assert report["failed_by_code"] == {"killed_workers": 1}
        deaths = sum(worker["deaths"] for worker in report["workers"])
        assert deaths == (0 if attempt == "again" else 2), "without --retry-failed it is passed over"
    tried = [one["id"] for one in read_journal(tmp_path / "out/results.jsonl")].count("guilty")
    assert tried == 2
    made = pictures(tmp_path / "out")
    assert made == whole
    log = (tmp_path / "out/joyedit.log").read_text()
    assert "died (killed by SIGKILL) and starts again" in log


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("checkpoint", 2, "error: the fake checkpoint is not there"),
        ("device", 2, "error: the fake device is not there"),
        ("late", 2, "error: the fake checkpoint is damaged"),
        ("kill", 2, "it died 2 times while it loaded (killed by SIGKILL)"),
        ("bug", 1, "the fake has a bug"),
    ],
)
def test_what_goes_wrong_with_loading_ends_as_in_one_process(
    tmp_path: Path, fault: str, code: int, message: str
) -> None:
    manifest = make_manifest(tmp_path, 3)
    done = program("run", manifest, *FAKE, "--gpus", "2", "-o", "out", cwd=tmp_path, JOYEDIT_FAKE_LOAD=fault)
    assert message in done.message
    assert done.code == code
    if fault not in ("kill", "bug"):
        plain = program("run", manifest, *FAKE, "-o", "plain", cwd=tmp_path, JOYEDIT_FAKE_LOAD=fault)
        assert (plain.code, plain.message) == (done.code, done.message)
    done = program("run", manifest, *FAKE, "--gpus", "2", "-o", "out", cwd=tmp_path)
    assert done.code == 0, done.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: int) -> None:
    manifest, whole, ids = make(tmp_path, 12, instruction="SLEEP")
    out = tmp_path / "out"
    argv = ("run", manifest, *FAKE, "--gpus", "3", "--batch-size", "2", "-o", out)
    process = start(*argv, cwd=tmp_path)
    until(lambda: finished(out))
    workers = children(process.pid)
    assert len(workers) == 3
    process.send_signal(number)
    message, _ = process.communicate(timeout=100)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), message
    for pid in workers:
        until(lambda: is_gone(pid))  # noqa: B023
    check_after_kill(out, whole)
    if number != signal.SIGKILL:
        report = json.loads((out / "report.json").read_text())
        assert report["state"] == "interrupted"
        assert report["items"] + report["left"] == 12
        assert report["left"] > 0
    assert program(*argv, cwd=tmp_path).code == 0
    check_whole(out, whole, ids)


def test_the_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 6, instruction="SLEEP")
    out = tmp_path / "out"
    argv = ("run", manifest, "-m", "fake", "--basesize", "256", "--steps", "1", "--gpus", "2", "-o", out)
    process = start(*argv, cwd=tmp_path)
    until(lambda: finished(out))
    workers = children(process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # what they have never comes back, so the first signal waits for ever
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "press Ctrl-C again" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
        until(lambda: is_gone(pid))  # noqa: B023


def test_out_of_time(tmp_path: Path) -> None:
    manifest, whole, ids = make(tmp_path, 10, instruction="SLEEP")
    argv = ("run", manifest, *FAKE, "--gpus", "2", "--batch-size", "1", "-o", "out")
    done = program(*argv, "--max-duration", "1s", cwd=tmp_path)
    assert done.code == 10, done.message
    assert program(*argv, cwd=tmp_path).code == 0
    check_whole(tmp_path / "out", whole, ids)


def test_a_sender_that_waits_for_each_result(tmp_path: Path) -> None:
    make_manifest(tmp_path, 4)
    argv = ["run", "-", *FAKE, "--gpus", "2", "--batch-size", "1", "-o", "out", "--json"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "JOYEDIT_FAKE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "joyedit", *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for number in range(4):
        process.stdin.write(json.dumps({"image": f"in{number}.png", "instruction": "x", "id": str(number)}) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == str(number)
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


def test_a_worker_that_cannot_load_is_left_out_while_a_sender_waits(tmp_path: Path) -> None:
    """The end of all workers ends a run that waits for its next item."""
    make_manifest(tmp_path, 1)
    argv = ["run", "-", *FAKE, "--gpus", "2", "--batch-size", "1", "-o", "out"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "JOYEDIT_FAKE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "joyedit", *argv],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env | {"JOYEDIT_FAKE_LOAD": "late"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(json.dumps({"image": "in0.png", "instruction": "x", "id": "0"}) + "\n")
    process.stdin.flush()
    assert process.wait(60) == 2
    assert "the fake checkpoint is damaged" in process.stderr.read()
    process.stdin.close()
    process.stderr.close()


def test_one_picture_into_one_file(tmp_path: Path) -> None:
    make_manifest(tmp_path, 1)
    for name, gpus in (("one.png", "1"), ("two.png", "2")):
        done = program("run", "in0.png", "-p", "x", *FAKE, "--gpus", gpus, "-o", name, cwd=tmp_path)
        assert done.code == 0, done.message
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_disk_that_is_full_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    manifest, whole, ids = make(tmp_path, 8)
    argv = ("run", manifest, *FAKE, "--gpus", "2", "-o", "out")
    done = program(*argv, cwd=tmp_path, JOYEDIT_FAULT="file.create:3:enospc")
    assert done.code == 1, done.message
    check_after_kill(tmp_path / "out", whole)
    assert program(*argv, cwd=tmp_path).code == 0
    check_whole(tmp_path / "out", whole, ids)


def test_what_is_refused_is_refused_before_anything(tmp_path: Path) -> None:
    make_manifest(tmp_path, 1)
    for gpus in ("0", "x", "0,0", "all"):
        done = program("run", "in0.png", "-p", "x", *FAKE, "--gpus", gpus, "-o", "out", cwd=tmp_path)
        assert done.code == 2
        assert "--gpus" in done.message
        assert not (tmp_path / "out").exists()
