"""`--log-format json`: every line of stderr is an event of the table, whatever happens to the command."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cli_command import ROOT, Command, Ended, program_environment

from joyedit.job.event_log import ALWAYS, EVENTS, event_line

JSON = ("--log-format", "json")
FAKE = ("-m", "fake", "--basesize", "256")


def events(text: str) -> list[dict[str, Any]]:
    """The lines of stderr. Each is whole, an event of the table, and has the fields of every line."""
    found = []
    assert not text or text.endswith("\n")
    for line in text.splitlines():
        read = json.loads(line)
        assert tuple(read)[:4] == ALWAYS
        assert set(read) <= {*ALWAYS, *EVENTS[read["event"]]}, read
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read["time"])
        datetime.fromisoformat(read["time"].replace("Z", "+00:00"))
        assert read["level"] in ("debug", "info", "warning", "error")
        found.append(read)
    return found


def of(ended: Ended, name: str) -> list[dict[str, Any]]:
    return [event for event in events(ended.err) if event["event"] == name]


def names(ended: Ended) -> list[str]:
    return [event["event"] for event in events(ended.err)]


def manifest(folder: Path, pictures: Path, *instructions: str) -> Path:
    path = folder / "m.jsonl"
    lines = [
        {"image": str(pictures / "a.png"), "instruction": text, "id": f"i{n}"} for n, text in enumerate(instructions)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_run(program: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    ended = program("run", pictures, *FAKE, "-p", "x", *JSON)
    assert ended.code == 3
    told = names(ended)
    assert told[0] == "start"
    assert told[-1] == "end"
    assert told.index("loading") < told.index("loaded") < told.index("settings") < told.index("summary")
    assert {one["id"] for one in of(ended, "item_finished")} == {"a", "b", "deep/c"}
    (failed,) = of(ended, "item_failed")
    assert (failed["id"], failed["code"], failed["level"]) == ("broken", "truncated_picture", "error")
    (start,), (end,), (summary,) = of(ended, "start"), of(ended, "end"), of(ended, "summary")
    assert start["command"] == "run"
    assert end["exit_code"] == 3
    assert (summary["items"], summary["ok"], summary["failed_by_code"]) == (4, 3, {"truncated_picture": 1})
    assert of(ended, "settings")[0]["settings"]["instruction"] == "'x'"
    last = of(ended, "progress")[-1]
    assert (last["done"], last["total"]) == (4, 4)
    assert "items" in ended.out.splitlines()[0]  # stdout stays as it is
    again = program("run", pictures, *FAKE, "-p", "x", *JSON, "-q")
    assert names(again) == ["start", "item_failed", "message", "end"]


def test_what_text_says_is_said_as_json(program: Command, pictures: Path) -> None:
    """All messages of text mode: of a run that goes on, where a picture was broken and others were done."""
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    arguments = ("run", pictures, *FAKE, "-p", "x", "--no-page", "-v")
    for out in ("one", "two"):
        program(*arguments[:2], *FAKE, "-p", "x", "--limit", "2", "-o", out)
    text = program(*arguments, "-o", "one").err.replace("one/", "OUT/")
    ended = program(*arguments, "-o", "two", *JSON)
    told = " ".join(f"{event['message']} {event.get('settings', '')}" for event in events(ended.err))
    told = told.replace("two/", "OUT/")
    for line in text.splitlines():
        if "a second" not in line:
            label, _, rest = line.removeprefix("failed: ").removeprefix("ok: ").partition(": ")
            assert label in told or label in [event.get("id") for event in events(ended.err)], line
            assert not rest or rest.rpartition(": ")[2] in told.replace('"', "'"), line


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("run", "pictures", "--nope"), 2),
        (("run", "pictures", "--steps", "many"), 2),
        (("run", "pictures", "--steps", "0", "-m", "fake", "-p", "x"), 2),
        (("run",), 2),
        (("run", "none", "-m", "fake", "-p", "x"), 2),
        (("run", "pictures", "-m", "none/none/none", "-p", "x"), 2),
        (("nothing",), 2),
        (("status", "none"), 2),
        (("verify", "none"), 2),
        (("merge", "none"), 2),
        (("view", "none"), 2),
        (("show", "pictures/a.png"), 2),
        (("run", "pictures", "-m", "fake", "-p", "x", "-n"), 0),
        (("run", "pictures", "-m", "fake", "-p", "x", "--gpus", "2", "--device", "cpu", "-o", "two"), 0),
    ],
)
def test_refusals_and_other_commands(program: Command, pictures: Path, argv: tuple[str, ...], code: int) -> None:
    ended = program(*argv, *JSON)
    told = names(ended)
    assert ended.code == code
    assert (told[0], told[-1]) == ("start", "end")
    assert of(ended, "end")[0]["exit_code"] == code
    if code:
        (error,) = of(ended, "error")
        assert error["exit_code"] == code
        assert program(*argv).err.splitlines()[-1].strip().endswith(error["message"].splitlines()[-1])


def test_problems_have_place_and_remedy(program: Command, tmp_path: Path) -> None:
    Path("m.jsonl").write_text('{"image": "none.png", "instruction": "x", "promt": 1}\n{"image": "none.png"}\n')
    ended = program("run", "m.jsonl", *FAKE, *JSON)
    (error,) = of(ended, "error")
    assert [(one["file"], one["line"]) for one in error["problems"]][:2] == [("m.jsonl", 1), ("m.jsonl", 1)]
    assert any("did you mean" in one.get("remedy", "") for one in error["problems"])


def test_what_dies_in_a_worker_is_an_event(program: Command, tmp_path: Path, pictures: Path) -> None:
    path = manifest(tmp_path, pictures, "one", "SIGKILL", "three", "four")
    ended = program("run", path, *FAKE, "--gpus", "2", "--device", "cpu", "--batch-size", "1", *JSON)
    assert ended.code == 3
    (failed,) = of(ended, "item_failed")
    assert (failed["id"], failed["code"]) == ("i1", "killed_workers")
    assert len(of(ended, "item_finished")) == 3


@pytest.mark.parametrize(("word", "event"), [("SIGNAL", "stopping"), ("TWICE", "stopped")])
def test_interrupts(program: Command, tmp_path: Path, pictures: Path, word: str, event: str) -> None:
    path = manifest(tmp_path, pictures, "one", word, "three", "four", "five", "six")
    ended = program("run", path, *FAKE, "--batch-size", "1", *JSON)
    assert ended.code == 130
    assert of(ended, event)
    if event == "stopping":
        assert of(ended, "end")[0]["exit_code"] == 130
    else:
        assert of(ended, "stopped")[0]["exit_code"] == 130
        assert "end" not in names(ended)


NOISE = """
import os, subprocess, sys, threading, warnings
from joyedit.runtime import fake

def noisy(self, *given, before=fake.FakeBackend.decode):
    warnings.warn("a library\\nwarns", UserWarning)
    print("printed", file=sys.stderr)
    sys.stderr.write("10%\\r20%\\r100%\\n")
    sys.stderr.write("no end of line")
    os.write(2, b"from C \\xff\\n")
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    import logging
    logging.getLogger("library").warning("logged")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    return before(self, *given)

fake.FakeBackend.decode = noisy
from joyedit.cli.main import main
main(sys.argv[1:])
"""


def noisy(pictures: Path, *argv: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-c", NOISE, "run", str(pictures), *FAKE, "-p", "x", *argv],
        capture_output=True,
        text=True,
        env=program_environment() | {"PYTHONWARNINGS": "default"},
        check=False,
    )
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


def test_libraries_break_no_line(pictures: Path) -> None:
    ended = noisy(pictures, *JSON, "--no-page")
    assert ended.code == 0
    (warning, *_) = of(ended, "warning")
    assert (warning["category"], warning["message"]) == ("UserWarning", "a library\nwarns")
    told = [event["message"] for event in of(ended, "output")]
    for line in ("printed", "100%", "from C \\xff", "from a child", "logged", "ZeroDivisionError: division by zero"):
        assert line in told or any(line in one for one in told), (line, told)
    assert not any("10%" in one and "100%" not in one for one in told)
    assert any("no end of line" in one for one in told)
    assert names(ended)[-1] == "end"


def test_a_terminal_gets_lines_too(pictures: Path) -> None:
    """No bar, and no colours, where stderr is a terminal."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", str(pictures), *FAKE, "-p", "x", *JSON],
        stdout=subprocess.DEVNULL,
        stderr=child,
        env=program_environment(),
    )
    os.close(child)
    read = b""
    try:
        while data := os.read(parent, 1 << 16):
            read += data
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0
    os.close(parent)
    told = events(read.decode().replace("\r\n", "\n"))
    assert told[-1]["event"] == "end"


def test_a_reader_that_leaves(pictures: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", str(pictures), *FAKE, "-p", "x", *JSON],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=program_environment(),
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.stderr.close()
    assert json.loads(first)["event"] == "start"
    assert process.wait(60) == 0


@pytest.mark.parametrize("after", range(0, 1200, 150))
def test_signals_at_any_time(pictures: Path, after: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "joyedit", "run", str(pictures), *FAKE, "-p", "SLEEP", "--batch-size", "1", *JSON],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_environment(),
    )
    timer = threading.Timer(after / 1000, process.send_signal, (signal.SIGINT,))
    assert process.stderr is not None
    first = process.stderr.readline()
    timer.start()
    _, rest = process.communicate(timeout=60)
    timer.cancel()
    told = events(first + rest)
    assert process.returncode in (0, 130)
    assert told[-1]["event"] == "end"
    assert told[-1]["exit_code"] == process.returncode


def test_without_the_flag_all_is_text(program: Command, pictures: Path) -> None:
    ended = program("run", pictures, *FAKE, "-p", "x", "--log-format", "text")
    assert "model: fake (fake layout)" in ended.err
    assert not any(line.startswith("{") for line in ended.err.splitlines())
    refused = program("run", pictures, *FAKE, "-p", "x", "--log-format", "xml")
    assert refused.code == 2
    assert "xml" in refused.err


def test_where_the_flag_is_looked_for(program: Command, pictures: Path) -> None:
    assert "Usage: joyedit" in program().err
    both = ("status", "none", "--log-format", "json", "--log-format", "text")
    for argv in (("run", "--", "--log-format", "json"), both, ("status", "none", "--log-format")):
        assert program(*argv).err.startswith("joyedit: error: ")
    assert names(program("status", "none", "--log-format=json")) == ["start", "error", "end"]


def test_in_this_process(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE, "-p", "x", *JSON)
    assert ended.code == 0
    assert names(ended)[-1] == "end"
    assert "joyedit: error: " in joyedit("status", "none").err


def test_a_line_is_ascii_and_json() -> None:
    line = event_line("warning", "é\udc80\u2028 \x1b[31m", "warning", category=None)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["message"] == "é\\udc80\u2028 \x1b[31m"
    assert json.loads(event_line("progress", "x", items_per_second=float("inf")))["items_per_second"] is None
    with pytest.raises(AssertionError, match="no such fields"):
        event_line("end", "x", other=1)


def test_the_table_of_the_documents_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|[^|]*\|$", page, re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", fields)) for name, fields in rows} == dict(EVENTS)


def test_every_event_of_the_code_is_in_the_table() -> None:
    """What the sources name as an event exists; the assertion in `event_line` holds their fields."""
    used = set()
    for path in sorted((ROOT / "joyedit").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'(?:console\.message|message)\(\s*[^()]*?(?:\([^()]*\))?[^()]*?, "(\w+)"', text))
    assert {"progress", "loading", "start", "end"} <= used
    assert used <= set(EVENTS) | {"info", "warning", "error", "debug"}
