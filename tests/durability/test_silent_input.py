"""Standard input that sends nothing: the end of the time and a signal end the command all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durability.harness import FAKE, environment
from joyedit.cli.main import main
from joyedit.job.source.stoppable_stream import StoppableStream

RUN = ("run", "-", *FAKE, "-p", "edit", "-o", "out")


@contextmanager
def silent(place: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command, with a standard input that stays open and sends nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "joyedit", *RUN, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=place,
        env=environment(),
    )
    try:
        yield process
        assert process.stdout is not None
        message = process.stdout.read()
        process.wait(timeout=60)
        assert "Traceback" not in message
        assert "unexpected" not in message
    finally:
        process.kill()
        process.communicate()


def test_the_end_of_the_time_without_an_output_folder(tmp_path: Path) -> None:
    with silent(tmp_path, "--max-duration", "1s") as process:
        assert process.wait(timeout=60) == 10
    assert os.listdir(tmp_path) == []


def test_the_end_of_the_time_with_an_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with silent(tmp_path, "--max-duration", "1s") as process:
        assert process.wait(timeout=60) == 10
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["state"], report["exit_code"], report["items"]) == ("out_of_time", 10, 0)


def test_a_signal_in_the_middle_of_reading_is_no_end_of_the_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was read of the first lines is gone then; the next ones are not edited in their place."""
    lines = tmp_path / "lines"
    lines.write_text("".join(f'{{"id": "{n}", "image": "gone{n}.png", "instruction": "x"}}\n' for n in range(3)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    (tmp_path / "out").mkdir()
    read_more = StoppableStream._read_more
    calls = 0

    def interrupted(stream: StoppableStream) -> None:
        nonlocal calls
        calls += 1
        read_more(stream)
        if calls == 1:
            stream.readline(1 << 20)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StoppableStream, "_read_more", interrupted)
    with lines.open("rb") as file:
        monkeypatch.setattr("joyedit.request.build._stdin", lambda: file)
        with pytest.raises(SystemExit) as end:
            main(RUN)
    assert end.value.code == 130, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["state"], report["items"]) == ("interrupted", 0)
    assert not (tmp_path / "out" / "failed.jsonl").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "out").mkdir()
    with silent(tmp_path) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / ".joyedit.lock").exists():  # it has taken the signals before
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)  # it takes the lock a moment before it begins to wait
        process.send_signal(number)
        assert process.wait(timeout=60) == 130
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["state"], report["exit_code"], report["items"]) == ("interrupted", 130, 0)
