"""A run that is told to stop while its last shards are written: it begins no other one, and says how it ended."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command

from joyedit.job.writing.shard_writing import ShardWriting
from joyedit.runtime.pipeline.stop import Stop
from support import datasets

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "--no-page", "-o", "out")
SHARDS = ("--write", "webdataset", "--shard-size", "2")


def with_turns() -> str:
    """Items of which one begins with the result of another: all shards are written at the end."""
    for number in range(7):
        datasets.save(Path(f"in{number}.png"), number)
    lines = [{"image": f"in{n}.png", "instruction": "Make it blue.", "id": f"a{n}"} for n in range(7)]
    lines.append({"image": "@a0", "instruction": "And then?", "id": "later"})
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "m.jsonl"


def shards() -> list[str]:
    return sorted(path.name for path in Path("out").glob("edited-*"))


@pytest.mark.parametrize(("how", "code", "state"), [("signal", 130, "interrupted"), ("time", 10, "out_of_time")])
def test_no_shard_begins_after_the_stop(
    joyedit: Command, monkeypatch: pytest.MonkeyPatch, how: str, code: int, state: str
) -> None:
    source = with_turns()
    real, is_stopped = ShardWriting.write, threading.Event()
    clock, jump = time.monotonic, [0.0]

    def write(self: ShardWriting, *argv: Any, **more: Any) -> str:
        if not is_stopped.is_set():
            is_stopped.set()
            if how == "time":
                jump[0] = 7200.0
            else:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                waited_until(lambda: signalled.is_set())
        return real(self, *argv, **more)

    signalled, interrupt = threading.Event(), Stop.interrupt

    def interrupted(self: Stop) -> None:
        interrupt(self)
        signalled.set()

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriting, "write", write)
        patched.setattr(Stop, "interrupt", interrupted)
        patched.setattr(Stop.__init__, "__defaults__", (None, lambda: clock() + jump[0]))
        ended = joyedit("run", source, *RUN, *SHARDS, "--max-duration", "1h")
    assert ended.code == code, ended.err
    assert shards() == ["edited-000000.tar"], "the one in work is written to its end"
    assert json.loads(Path("out/report.json").read_text())["state"] == state
    assert joyedit("verify", "out").code == 0
    ended = joyedit("run", source, *RUN, *SHARDS)
    assert ended.code == 0, ended.err
    assert "8 items are already done" in ended.err
    assert shards() == [f"edited-00000{number}.tar" for number in range(4)]
    assert joyedit("verify", "out").out == "records 8, ok 8, failed 0, left 0, files 4, off 0\n"


def waited_until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_stop_when_all_is_written_is_no_interruption(joyedit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    source = with_turns()
    real = ShardWriting.write

    def write(self: ShardWriting, number: int, *argv: Any, **more: Any) -> str:
        name = real(self, number, *argv, **more)
        if number == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        return name

    monkeypatch.setattr(ShardWriting, "write", write)
    ended = joyedit("run", source, *RUN, *SHARDS)
    assert ended.code == 0, ended.err
    assert len(shards()) == 4
