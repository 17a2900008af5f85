"""How a command ends where Python, typer or the system could swallow why."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from cli_command import Command, program_environment

import joyedit
import joyedit.job.results.status
from joyedit.cli.main import main
from joyedit.runtime.pipeline.interrupts import INTERRUPTS


class Deleted:
    """Gets Ctrl-C while it is deleted, where Python drops the exception."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def raising(error: BaseException) -> Callable[[Path], NoReturn]:
    def status(folder: Path, writer: object = None) -> NoReturn:
        raise error

    return status


def ended(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


def test_a_signal_that_python_drops_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the command comes to its end before the exception can come again."""

    def status(folder: Path, writer: object = None) -> NoReturn:
        Deleted()
        raise joyedit.UsageError("refused")

    monkeypatch.setattr(joyedit.job.results.status, "status", status)
    code, message = ended(capsys, "status", "out")
    assert code == 130
    assert "Exception ignored" not in message
    assert not INTERRUPTS.is_due()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EPIPE, "Broken pipe"), "unexpected error, BrokenPipeError: [Errno 32] Broken pipe"),
        (EOFError("the end came early"), "unexpected error, EOFError: the end came early"),
        (RuntimeError("can't start new thread"), "the system allows no more threads"),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_no_error_ends_a_command_without_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    monkeypatch.setattr(joyedit.job.results.status, "status", raising(error))
    code, message = ended(capsys, "status", "out")
    assert code == 1
    assert f"joyedit: error: {told}" in message


def test_a_library_that_ends_the_program_gives_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joyedit.job.results.status, "status", raising(SystemExit(7)))
    assert ended(capsys, "status", "out") == (7, "")


def test_ctrl_c_while_python_imports_prints_nothing(tmp_path: Path) -> None:
    """A module that is imported late gets the signal."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "joyedit", "--help"],
        env=program_environment() | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_ctrl_c_while_the_last_words_are_written(program: Command, pictures: Path) -> None:
    """The report says complete, and so does the exit code."""
    code = (
        "import os, signal, sys\n"
        "from joyedit.cli import execute\n"
        "def words(report):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('after it')\n"
        "execute._tell_one = words\n"
        "from joyedit.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "run",
            "pictures/a.png",
            "-p",
            "x",
            "-m",
            "fake",
            "-o",
            "out",
            "--basesize",
            "256",
        ],
        env=program_environment(),
        cwd=pictures.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("after it\n")
