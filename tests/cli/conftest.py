"""The command line as a test calls it: in this process, or as a program of its own. On the fake backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli_command import Command, Ended, program_environment
from PIL import Image

from joyedit.cli.main import main


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    monkeypatch.delenv("JOYEDIT_MODEL", raising=False)


@pytest.fixture
def joyedit(capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command in this process."""

    def call(*argv: str | Path) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(part) for part in argv])
        message = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Ended(code=caught.value.code, out=message.out, err=message.err)

    return call


@pytest.fixture
def program(tmp_path: Path) -> Command:
    """Call the command as a program."""

    def call(*argv: str | Path, stdin: str = "", env: Mapping[str, str] | None = None) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "joyedit", *map(str, argv)],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=program_environment() | dict(env or {}),
            timeout=60,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures in two shapes, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (100, 100), (200, 0, 0)).save(folder / "a.png")
    Image.new("RGB", (200, 100), (0, 200, 0)).save(folder / "b.jpg")
    Image.new("RGB", (100, 100), (0, 0, 200)).save(folder / "deep" / "c.png")
    (folder / "notes.txt").write_text("no picture")
    return folder
