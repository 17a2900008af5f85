"""Signals, the end of the time, a second run at once, and pictures that never come."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from durability.harness import (
    FAKE,
    Forks,
    check_whole,
    make_manifest,
    pictures,
    program,
    records,
    start,
)
from joyedit.job.own_files import UNFINISHED
from support.figures import FIGURES

SLOW = ("run", "m.jsonl", "-m", "fake", "--basesize", "256", "--steps", "1", "-o", "out", "--batch-size", "1")


def report(place: Path) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((place / "out" / "report.json").read_text())
    return message


def wait_for_records(place: Path, count: int) -> None:
    path, deadline = place / "out" / "results.jsonl", time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, forks: Forks) -> Path:
    make_manifest(tmp_path, 6, instruction="SLEEP")
    assert forks("run", "m.jsonl", *FAKE, "-o", "whole", "--batch-size", "6", cwd=tmp_path).code == 0
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_finishes_the_batch_in_flight(forks: Forks, place: Path, number: signal.Signals) -> None:
    process = start(*SLOW, cwd=place)
    wait_for_records(place, 2)
    process.send_signal(number)
    message, _ = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "interrupted: no new batch starts; the running batch is finished and written" in message
    assert "(press Ctrl-C again to stop at once)" in message
    assert "Traceback" not in message
    done = records(place / "out")
    assert 2 <= len(done) < 6
    assert {record["status"] for record in done.values()} == {"ok"}
    counts = report(place)
    assert (counts["state"], counts["exit_code"]) == ("interrupted", 130)
    assert (counts["items"], counts["left"]) == (len(done), 6 - len(done))
    assert not (place / "out" / ".joyedit.lock").exists()
    assert forks(*SLOW, "-q", cwd=place).code == 0
    check_whole(place / "out", pictures(place / "whole"), set(records(place / "whole")))
    assert report(place)["skipped"] == len(done)
    FIGURES["signals survived"] += 1


def test_the_batch_in_which_the_signal_comes_is_finished(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 6)
    lines = (tmp_path / "m.jsonl").read_text().replace('"edit 0"', '"SIGNAL"')
    (tmp_path / "m.jsonl").write_text(lines)
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", "--batch-size", "2", cwd=tmp_path)
    assert ended.code == 130
    mates = {name for name, record in records(tmp_path / "out").items() if record["status"] == "ok"}
    assert "item0" in mates
    assert len(mates) == 2


def test_the_second_signal_stops_now(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 6)
    lines = (tmp_path / "m.jsonl").read_text().replace('"edit 3"', '"TWICE"')
    (tmp_path / "m.jsonl").write_text(lines)
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", "--batch-size", "1", cwd=tmp_path)
    assert ended.code == 130
    assert "stopped at once" in ended.message
    assert "item3" not in records(tmp_path / "out")
    (tmp_path / "m.jsonl").write_text(lines.replace("TWICE", "edit 3"))
    assert forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path).code == 0
    assert len(records(tmp_path / "out")) == 6
    FIGURES["signals survived"] += 2


@pytest.mark.parametrize("point", ["lock", "file.renamed", "journal.open"])
def test_a_signal_that_python_drops_before_the_first_batch(forks: Forks, tmp_path: Path, point: str) -> None:
    make_manifest(tmp_path, 3)
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path, fault=f"{point}:1:drop")
    assert ended.code == 130, ended.message
    assert "Exception ignored" not in ended.message
    assert not (tmp_path / "out" / "results.jsonl").exists() or not records(tmp_path / "out")
    assert forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path).code == 0
    FIGURES["signals survived"] += 1


def test_a_dry_run_that_is_killed_leaves_nothing_behind(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 3)
    (tmp_path / "tmp").mkdir()
    run = ("run", "m.jsonl", *FAKE, "-o", "out")
    assert forks(*run, cwd=tmp_path).code == 0
    ended = forks(*run, "--dry-run", cwd=tmp_path, fault="journal.open:1:kill", TMPDIR=str(tmp_path / "tmp"))
    assert ended.code == -signal.SIGKILL
    assert os.listdir(tmp_path / "tmp") == []


def test_a_signal_that_python_drops_in_a_dry_run(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 3)
    run = ("run", "m.jsonl", *FAKE, "-o", "out")
    assert forks(*run, cwd=tmp_path).code == 0
    ended = forks(*run, "--dry-run", cwd=tmp_path, fault="journal.open:1:drop")
    assert (ended.code, ended.message) == (130, "")


def test_the_end_of_the_time(forks: Forks, place: Path) -> None:
    ended = forks(*SLOW, "--max-duration", "1s", cwd=place)
    assert ended.code == 10, ended.message
    assert "out of time: no new batch starts" in ended.message
    assert report(place)["state"] == "out_of_time"
    assert 1 <= len(records(place / "out")) < 6
    assert forks(*SLOW, "-q", "--max-duration", "1h", cwd=place).code == 0
    check_whole(place / "out", pictures(place / "whole"), set(records(place / "whole")))


@pytest.mark.parametrize("text", ["0", "-1", "8x", "h", "", "1h1h", "nan", "inf", "1e9", "٣h", "99999999999999999999h"])
def test_times_that_are_none(forks: Forks, tmp_path: Path, text: str) -> None:
    make_manifest(tmp_path, 1)
    ended = forks("run", "m.jsonl", *FAKE, "--max-duration", text, cwd=tmp_path)
    assert ended.code == 2
    assert "--max-duration must be a time such as 8h, 1h30m or 90s" in ended.message


@pytest.mark.parametrize("text", ["8h", "1h30m", "90s", "2d", "0.5s", "3600"])
def test_times(text: str) -> None:
    from joyedit.quantities import seconds_of

    wanted = {"8h": 28800, "1h30m": 5400, "90s": 90, "2d": 172800, "0.5s": 0.5, "3600": 3600}
    assert seconds_of("--max-duration", text) == wanted[text]


def test_two_runs_at_once(forks: Forks, place: Path) -> None:
    first = start(*SLOW, cwd=place)
    wait_for_records(place, 1)
    second = forks(*SLOW, "-q", cwd=place)
    assert second.code == 1
    pattern = r"another run writes to out: process (\d+) of \S+ on (.+), since (.+); wait for it, stop it, or choose"
    found = re.search(pattern, second.message)
    assert found is not None, second.message
    assert (int(found[1]), found[2]) == (first.pid, socket.gethostname())
    status = forks("status", "out", "--json", cwd=place)
    message = json.loads(status.message)
    assert (status.code, message["state"], message["holder"]["pid"]) == (0, "running", first.pid)
    assert message["done"] + message["left"] == 6
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    status = forks("status", "out", "--json", cwd=place)
    assert (status.code, json.loads(status.message)["state"]) == (3, "killed")
    assert forks(*SLOW, "-q", cwd=place).code == 0
    check_whole(place / "out", pictures(place / "whole"), set(records(place / "whole")))
    assert forks("status", "out", cwd=place).code == 0


def test_many_runs_at_once_and_one_of_them_edits(tmp_path: Path) -> None:
    make_manifest(tmp_path, 4, instruction="SLEEP")
    runs = [start(*SLOW, "-q", cwd=tmp_path) for _ in range(4)]
    codes = []
    for process in runs:
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert sorted(set(codes)) in ([0, 1], [0])  # one that comes after the end of another finds all done
    done = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(done) == 4


def test_a_picture_that_never_comes(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 6)
    run = ("run", "m.jsonl", *FAKE, "-o", "out", "--read-timeout", "1s", "--batch-size", "1")
    ended = program(*run, cwd=tmp_path, JOYEDIT_FAULT="read:2:hang")
    assert ended.code == 3, ended.message
    codes = [record["error"]["code"] for record in records(tmp_path / "out").values() if record["error"]]
    assert codes == ["picture_timeout"]
    assert "--read-timeout allows more" in ended.message
    assert forks(*run, cwd=tmp_path).code == 0
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}
    FIGURES["hung reads survived"] += 1


def test_a_header_that_hangs_once(tmp_path: Path) -> None:
    """The items that were looked at in one go with it are looked at again, each alone."""
    make_manifest(tmp_path, 6)
    run = ("run", "m.jsonl", *FAKE, "-o", "out", "--read-timeout", "1s")
    ended = program(*run, cwd=tmp_path, JOYEDIT_FAULT="header:2:hang")
    assert ended.code == 0, ended.message
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}
    FIGURES["hung reads survived"] += 1


def test_a_signal_while_a_picture_hangs(tmp_path: Path) -> None:
    make_manifest(tmp_path, 6)
    process = start(*SLOW, cwd=tmp_path, JOYEDIT_FAULT="read:3:hang")
    path, deadline = tmp_path / "out" / UNFINISHED, time.monotonic() + 60
    while not path.exists() or path.read_text().count('["take"') < 4:  # any of the first pictures may be the third read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    try:
        message, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 130, message


def test_a_pipe_in_place_of_a_picture(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 3)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "pipe.png")
    os.replace(tmp_path / "in0.png", tmp_path / "folder" / "a.png")
    ended = forks("run", "folder", "-p", "x", *FAKE, "-o", "out", cwd=tmp_path)
    assert ended.code == 3
    message = records(tmp_path / "out")
    assert message["pipe"]["error"]["code"] == "unreadable_picture"
    assert message["a"]["status"] == "ok"


def test_a_process_that_was_stopped_fails_no_item(tmp_path: Path) -> None:
    """SIGSTOP, or a laptop's sleep, for longer than --read-timeout: no disk was late."""
    make_manifest(tmp_path, 8, instruction="SLEEP")
    process = start(*SLOW, "--read-timeout", "2s", cwd=tmp_path)
    wait_for_records(tmp_path, 1)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    message, _ = process.communicate(timeout=60)
    assert process.returncode == 0, message
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}
