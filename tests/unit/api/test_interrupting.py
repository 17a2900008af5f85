"""Ctrl-C and other signals during a run from Python: what is finished stays, and the same call goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import asyncio, json, os, signal, sys, threading, time
import joyedit
from PIL import Image

OPTIONS = dict(model="fake", output="out", steps=1, basesize=256, batch_size=1, progress=False)

def rows(count, text="SLEEP"):
    return [{"id": str(n), "image": Image.new("RGB", (60, 40), (n, 9, 9)), "instruction": text} for n in range(count)]

def records():
    try:
        with open("out/results.jsonl") as file:
            return len(file.readlines())
    except OSError:
        return 0

def send(number, when, times=1, between=0.0):
    def work():
        while not when():
            time.sleep(0.02)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(between)
    threading.Thread(target=work, daemon=True).start()

def interrupted(source, **options):
    try:
        joyedit.run(source, **(OPTIONS | options))
    except KeyboardInterrupt as error:
        assert type(error) is joyedit.RunInterrupted, error
        return error.outcome
    raise SystemExit("nothing was interrupted")
"""


def told(code: str, folder: Path, **environment: str) -> Any:
    """Run the code in a process of its own; gives the JSON of its last line."""
    script = HEAD + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        env=os.environ | {"JOYEDIT_FAKE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_batch_in_work_and_the_same_call_goes_on(tmp_path: Path, number: int) -> None:
    code = f"""
    send({int(number)}, lambda: records() >= 2)
    first = interrupted(rows(30))
    assert joyedit.last_outcome() is first
    assert (first.exit_code, first.report.state) == (130, "interrupted")
    assert len(first) == first.report.ok == records() and all(one.image for one in first)
    second = joyedit.run(rows(first.report.ok + 2), **OPTIONS)
    print(json.dumps([first.report.ok, second.exit_code, second.report.ok, second.report.skipped]))
    """
    first, code_of_second, ok, skipped = told(code, tmp_path)
    assert 2 <= first < 30
    assert (code_of_second, ok, skipped) == (0, first + 2, first)


def test_a_second_interrupt_drops_the_batch_in_work(tmp_path: Path) -> None:
    code = """
    from joyedit.runtime.fake import FakeBackend
    plain, begun = FakeBackend.denoise, []
    def long(self, latents, on_step):
        begun.append(True)
        for step in range(600):
            time.sleep(0.05)
            on_step(step + 1, 600)
        return plain(self, latents, on_step)
    FakeBackend.denoise = long
    send(signal.SIGINT, lambda: begun, times=2, between=0.5)
    start = time.monotonic()
    outcome = interrupted(rows(3, "x"))
    seconds = time.monotonic() - start
    FakeBackend.denoise = plain
    again = joyedit.run(rows(3, "x"), **OPTIONS)
    print(json.dumps([seconds, outcome.report.ok, outcome.exit_code, len(outcome), again.report.ok]))
    """
    seconds, ok, exit_code, results, again = told(code, tmp_path)
    assert seconds < 20, "the batch would have taken thirty"
    assert (ok, exit_code, results, again) == (0, 130, 0, 3)


def test_an_interrupt_while_the_model_loads_ends_at_once(tmp_path: Path) -> None:
    code = """
    import joyedit.runtime.fake as fake
    plain, begun = fake.load_backend, []
    def slow(config):
        begun.append(True)
        for _ in range(600):
            time.sleep(0.05)
        return plain(config)
    fake.load_backend = slow
    send(signal.SIGINT, lambda: begun)
    start = time.monotonic()
    outcome = interrupted(rows(2))
    seconds = time.monotonic() - start
    fake.load_backend = plain
    again = joyedit.run(rows(2), **OPTIONS)
    print(json.dumps([seconds, outcome, again.report.ok]))
    """
    seconds, outcome, again = told(code, tmp_path)
    assert seconds < 15
    assert outcome is None
    assert again == 2


def test_an_interrupt_reaches_a_generator_that_waits(tmp_path: Path) -> None:
    code = """
    closed = []
    def source():
        try:
            yield from rows(3, "x")
            send(signal.SIGINT, lambda: records() == 3)
            time.sleep(60)
        finally:
            closed.append(True)
    start = time.monotonic()
    outcome = interrupted(source())
    print(json.dumps([time.monotonic() - start, outcome.report.ok, closed]))
    """
    seconds, ok, closed = told(code, tmp_path)
    assert seconds < 20
    assert ok == 3
    assert closed == [True]


def test_a_run_in_another_thread(tmp_path: Path) -> None:
    code = """
    made = []
    thread = threading.Thread(target=lambda: made.append(joyedit.run(rows(3, "x"), **OPTIONS)))
    thread.start()
    thread.join()
    print(json.dumps([made[0].exit_code, made[0].report.ok, [one.image.size for one in made[0]]]))
    """
    assert told(code, tmp_path) == [0, 3, [[60, 40]] * 3]


def test_under_a_running_event_loop(tmp_path: Path) -> None:
    code = """
    async def main():
        inside = joyedit.run(rows(2, "x"), **OPTIONS)
        ticks = 0
        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.02)
        ticking = asyncio.create_task(tick())
        beside = await asyncio.to_thread(joyedit.run, rows(4), **OPTIONS, update=True)
        ticking.cancel()
        return inside.report.ok, beside.report.ok, ticks > 10
    print(json.dumps(asyncio.run(main())))
    """
    assert told(code, tmp_path) == [2, 4, True]


def test_an_interrupt_in_the_body_of_a_loop_over_a_stream(tmp_path: Path) -> None:
    code = """
    def loop():
        for number, one in enumerate(joyedit.stream(rows(40), **OPTIONS)):
            if number == 1:
                raise KeyboardInterrupt
    try:
        loop()
    except KeyboardInterrupt:
        pass
    again = joyedit.run(rows(4), **OPTIONS)
    print(json.dumps([again.report.ok, again.report.skipped]))
    """
    ok, skipped = told(code, tmp_path)
    assert ok == 4
    assert skipped >= 2


def test_a_program_that_ends_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    code = """
    stream = joyedit.stream(rows(40), **OPTIONS)
    print(json.dumps(next(stream).id))
    """
    told(code, tmp_path)
    before = len((tmp_path / "out" / "results.jsonl").read_text().splitlines())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["state"] == "interrupted"
    assert report["ok"] == before < 40


def test_handlers_of_the_program_stay_its_own(tmp_path: Path) -> None:
    code = """
    mine = lambda *_: None
    before = signal.signal(signal.SIGTERM, mine)
    joyedit.run(rows(1, "x"), **OPTIONS)
    print(json.dumps([signal.getsignal(signal.SIGTERM) is mine,
                      signal.getsignal(signal.SIGINT) is signal.default_int_handler,
                      signal.getsignal(signal.SIGHUP) == signal.SIG_DFL]))
    """
    assert told(code, tmp_path) == [True, True, True]


def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    """A generator of pictures in memory, killed again and again: each item is there once, as without the kills."""
    code = textwrap.dedent(
        """
        def pictures():
            for number in range(12):
                time.sleep(0.03)
                yield {"image": Image.new("RGB", (60, 40), (number, 9, 9)), "instruction": f"edit {number}"}
        more = dict(output=sys.argv[1], retry_failed=len(sys.argv) > 2)
        outcome = joyedit.run(pictures(), **(OPTIONS | more))
        print(json.dumps([outcome.exit_code, outcome.report.ok]))
        """
    )
    call = [sys.executable, "-c", HEAD + code]
    environment = os.environ | {"JOYEDIT_FAKE": "1"}
    killed = 0
    for number in range(10):
        process = subprocess.Popen(
            [*call, "out"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(0.7 + 0.15 * number)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
            process.wait()
    for folder in ("out", "undisturbed"):
        # An item that was in work at two kills is given up, until somebody asks for it.
        again = [*call, folder, "--retry-failed"]
        done = subprocess.run(again, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout.splitlines()[-1]) == [0, 12]
    assert killed
    made = [
        {path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.png")}
        for folder in ("out", "undisturbed")
    ]
    assert made[0] == made[1]
    assert len(made[0]) == 12
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sorted(one["id"] for one in lines if one["status"] == "ok") == sorted({one["id"] for one in lines})


def test_an_interrupt_while_a_stream_waits(tmp_path: Path) -> None:
    code = """
    send(signal.SIGINT, lambda: records() >= 2)
    stream, seen = joyedit.stream(rows(40), **OPTIONS), 0
    try:
        for one in stream:
            seen += 1
    except joyedit.RunInterrupted as error:
        assert error.outcome is stream.outcome is joyedit.last_outcome()
        assert list(stream) == []
        print(json.dumps([seen, len(error.outcome), records()]))
    """
    seen, results, lines = told(code, tmp_path)
    assert 1 <= seen <= results == lines < 40
