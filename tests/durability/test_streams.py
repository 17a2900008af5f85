"""Standard streams that are closed, full, gone, or that nobody reads: none ends a run or changes its exit code."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from durability.harness import FAKE, environment, make_manifest, records

ITEMS = 12
COMMAND = [sys.executable, "-m", "joyedit"]
RUN = [*COMMAND, "run", "m.jsonl", "-m", "fake", "--basesize", "256", "--steps", "1", "--batch-size", "1", "-o", "out"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_manifest(tmp_path, ITEMS)
    return tmp_path


def report(place: Path) -> dict[str, object]:
    found = json.loads((place / "out" / "report.json").read_text())
    assert isinstance(found, dict)
    return found


def slow_items(place: Path) -> None:
    """The fake takes half a second for each of these."""
    text = (place / "m.jsonl").read_text()
    for number in range(1, ITEMS):
        text = text.replace(f'"edit {number}"', f'"SLEEP {number}"')
    (place / "m.jsonl").write_text(text)


def ended(process: subprocess.Popen[bytes], seconds: float = 60) -> int:
    try:
        return process.wait(timeout=seconds)
    finally:
        process.kill()


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_closed_streams(place: Path, closed: str, flags: list[str]) -> None:
    command = " ".join([*RUN, *flags, closed])
    done = subprocess.run(["sh", "-c", command], cwd=place, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert len(records(place / "out")) == ITEMS  # and nothing else stands in the journal
    assert report(place)["exit_code"] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("flags", [["--json"], ["-v"]])
def test_full_streams(place: Path, flags: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*RUN, *flags], cwd=place, env=environment(), stdout=full, stderr=full, check=False)
    assert done.returncode == 0
    assert len(records(place / "out")) == ITEMS
    assert report(place)["state"] == "complete"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_stream_keeps_the_exit_code_of_other_commands(place: Path) -> None:
    assert subprocess.run([*RUN, "-q"], cwd=place, env=environment(), check=False).returncode == 0
    (place / "out" / "item3.png").unlink()
    with open("/dev/full", "wb") as full:
        for command in (["verify", "out"], ["verify", "out", "--json"]):
            done = subprocess.run([*COMMAND, *command], cwd=place, env=environment(), stdout=full, check=False)
            assert done.returncode == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    "command", [["export", "out", "--to", "csv"], ["export", "out", "--to", "jsonl"], ["schema", "manifest"]]
)
def test_a_table_or_a_schema_that_finds_no_room_is_told(place: Path, command: list[str]) -> None:
    assert subprocess.run([*RUN, "-q"], cwd=place, env=environment(), check=False).returncode == 0
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *command], cwd=place, env=environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.endswith(b"is not complete: standard output cannot be written: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does when it has enough
    done = subprocess.run([*COMMAND, *command], cwd=place, env=environment(), stdout=writer, check=False)
    os.close(writer)
    assert done.returncode == 0


def on_a_terminal(place: Path, *flags: str, hang_up: bool) -> subprocess.Popen[bytes]:
    """A run on a terminal of its own, which goes away when the first items are recorded."""
    own, other = pty.openpty()

    def take_it() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL if hang_up else signal.SIG_IGN)

    process = subprocess.Popen(
        [*RUN, *flags], cwd=place, env=environment(), stdin=other, stdout=other, stderr=other, preexec_fn=take_it
    )
    os.close(other)
    until = time.monotonic() + 60
    results = place / "out" / "results.jsonl"
    while time.monotonic() < until and not (results.exists() and results.stat().st_size):
        if select.select([own], [], [], 0.02)[0]:
            os.read(own, 65536)
    os.close(own)
    return process


@pytest.mark.parametrize("flags", [[], ["--json", "-v"]])
def test_a_terminal_that_goes_away_from_a_disowned_run(place: Path, flags: list[str]) -> None:
    slow_items(place)
    assert ended(on_a_terminal(place, *flags, hang_up=False)) == 0
    assert len(records(place / "out")) == ITEMS
    assert report(place)["state"] == "complete"


def test_a_terminal_that_hangs_up(place: Path) -> None:
    slow_items(place)
    assert ended(on_a_terminal(place, hang_up=True)) == 130
    found = report(place)
    assert (found["state"], found["exit_code"]) == ("interrupted", 130)
    assert found["items"] == len(records(place / "out")) < ITEMS


@pytest.fixture
def unread(place: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a run whose streams are a pipe that is full already and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)

    def start(*flags: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*RUN, *flags], cwd=place, env=environment(), stdout=writer, stderr=writer)

    yield start
    os.close(reader)
    os.close(writer)


def test_out_of_time_with_a_pipe_that_nobody_reads(place: Path, unread: Callable[..., subprocess.Popen[bytes]]) -> None:
    slow_items(place)
    assert ended(unread("--json", "-v", "--max-duration", "1s")) == 10
    assert report(place)["state"] == "out_of_time"


def test_a_signal_with_a_pipe_that_nobody_reads(place: Path, unread: Callable[..., subprocess.Popen[bytes]]) -> None:
    slow_items(place)
    process = unread("--json", "-v")
    until = time.monotonic() + 60
    while not (place / "out" / "item0.png").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 130
    assert report(place)["state"] == "interrupted"


def test_a_slow_reader_gets_every_line(place: Path) -> None:
    process = subprocess.Popen([*RUN, "--json", "-q"], cwd=place, env=environment(), stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    first = process.stdout.readline()
    until = time.monotonic() + 60
    while time.monotonic() < until and len((place / "out" / "results.jsonl").read_bytes().splitlines()) < ITEMS:
        time.sleep(0.02)  # it reads nothing until the run has nothing left to do but to print
    rest = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert {json.loads(line)["id"] for line in [first, *rest]} == set(records(place / "out"))


def test_much_that_nobody_reads_is_kept_for_a_reader_that_comes_late(tmp_path: Path) -> None:
    """More than a pipe holds: the run waits for its reader, and loses no line."""
    make_manifest(tmp_path, 400)
    process = subprocess.Popen(
        [*COMMAND, "run", "m.jsonl", *FAKE, "-o", "out", "--json"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not (tmp_path / "out" / "item8.png").exists():
        time.sleep(0.02)
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 400
