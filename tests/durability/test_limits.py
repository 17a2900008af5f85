"""Limits of the system: the reason is told as it is, and no picture is blamed for it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from durability.harness import FAKE, ROOT, Done, environment, make_manifest, program, records
from joyedit.errors import ItemError, JoyeditError, system_limit
from joyedit.job.pictures.decode import load_picture

RUN = ("run", "m.jsonl", *FAKE, "-o", "out")

LIMITED = """
import resource, sys
from durability.forkserver import warm_up  # so that no import needs what the limit takes away
warm_up()
from joyedit.cli.main import main
resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)
main(sys.argv[3:])
"""


def limited(limit: str, value: int, *argv: str, cwd: Path) -> Done:
    """The command under a limit that is set when everything is imported."""
    command = [sys.executable, "-c", LIMITED, limit, str(value), *argv]
    env = environment(PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=100)
    return Done(code=done.returncode, message=done.stdout + done.stderr)


@pytest.mark.parametrize("files", [*range(4, 16), 24])
def test_few_open_files(tmp_path: Path, files: int) -> None:
    make_manifest(tmp_path, 12)
    ended = limited("RLIMIT_NOFILE", files, *RUN, cwd=tmp_path)
    assert ended.code in (0, 1, 2), ended.message  # 2: the manifest itself cannot be opened
    assert "unexpected" not in ended.message
    if ended.code:
        assert "no more files can be opened" in ended.message or "Too many open files" in ended.message
    if (tmp_path / "out" / "results.jsonl").exists():
        assert {record["status"] for record in records(tmp_path / "out").values()} <= {"ok"}
    assert program(*RUN, cwd=tmp_path).code == 0
    assert len(records(tmp_path / "out")) == 12


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_picture_is_not_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    make_manifest(tmp_path, 1)

    def refuse(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(JoyeditError, match="no more files can be opened") as caught:
        load_picture(tmp_path / "in0.png")
    assert not isinstance(caught.value, ItemError)


@pytest.mark.parametrize("error_stream", ["pipe", "full"])
@pytest.mark.parametrize("before", ["new", "done", "retry"])
def test_no_threads(tmp_path: Path, before: str, error_stream: str) -> None:
    """The system gives a few threads and no more, in each place that starts one."""
    make_manifest(tmp_path, 6)
    flags = ("--retry-failed",) if before == "retry" else ()
    if before != "new":
        assert program(*RUN, cwd=tmp_path).code == 0
    code = (
        "import sys, threading\n"
        "start, left = threading.Thread.start, [int(sys.argv[1])]\n"
        "def refuse(self):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(self)\n"
        "threading.Thread.start = refuse\n"
        "from joyedit.cli.main import main\n"
        "main(sys.argv[2:])\n"
    )
    for threads in range(0, 16, 1 if before == "new" and error_stream == "pipe" else 2):
        command = [sys.executable, "-c", code, str(threads), *RUN, *flags]
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if error_stream == "pipe" else full,
                text=True,
                check=False,
                timeout=100,
            )
        assert done.returncode in (0, 1), done.stderr
        if done.returncode == 1 and error_stream == "pipe":
            assert "the system allows no more threads" in done.stderr, (threads, done.stderr)
            report = tmp_path / "out" / "report.json"
            assert not report.exists() or json.loads(report.read_text())["state"] != "running"
    assert program(*RUN, cwd=tmp_path).code == 0
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}


@pytest.mark.parametrize("place", ["save_picture", "Placing.put", "Placing.written"])
def test_no_handle_for_a_finished_picture(tmp_path: Path, place: str) -> None:
    """Encoding, what was there before, the final name: the run stops, and no item is blamed."""
    make_manifest(tmp_path, 4)
    code = (
        "import errno, os, sys\n"
        "from joyedit.errors import system_limit\n"
        "from joyedit.runtime.pipeline import write\n"
        f"owner, _, name = '{place}'.rpartition('.')\n"
        "owner = getattr(write, owner) if owner else write\n"
        "real, left = getattr(owner, name), [2]\n"
        "def refuse(*args, **more):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0:\n"
        "        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))\n"
        "        raise error if name == 'save_picture' else system_limit(error)\n"
        "    return real(*args, **more)\n"
        "setattr(owner, name, refuse)\n"
        "from joyedit.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, *RUN]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("no more files can be opened") == 1
    assert {record["status"] for record in records(tmp_path / "out").values()} <= {"ok"}
    assert program(*RUN, cwd=tmp_path).code == 0
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}


def test_what_is_a_limit() -> None:
    assert system_limit(MemoryError()) is not None
    assert system_limit(RuntimeError("can't start new thread")) is not None
    assert system_limit(RuntimeError("else")) is None
    assert system_limit(OSError(errno.ENOENT, "x")) is None
