"""Completion in the shell: the scripts are there, and options, values and files complete."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_command import Command, program_environment


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds the command by its name."""
    folder = tmp_path / ".commands"
    folder.mkdir()
    command = folder / "joyedit"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m joyedit "$@"\n')
    command.chmod(0o755)
    environment = program_environment()
    return environment | {"PATH": f"{folder}:{environment['PATH']}", "HOME": str(tmp_path)}


def test_the_flags_of_completion_are_there(program: Command) -> None:
    ended = program("--help")
    assert "--install-completion" in ended.out
    assert "--show-completion" in ended.out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("joyedit ver", {"verify"}),
        ("joyedit run --ov", {"--overwrite"}),
        ("joyedit run photos --device ", {"auto", "cuda", "mps", "cpu"}),
        ("joyedit run photos --json=all --format w", {"webp"}),
        ("joyedit run pho", set()),  # the shell itself completes files then
        ("joyedit run photos --output o", set()),
    ],
)
def test_bash(program: Command, words: str, found: set[str]) -> None:
    place = len(words.split(" ")) - 1
    env = {"_JOYEDIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    ended = program(env=env)
    assert (ended.code, ended.err) == (0, "")
    assert set(ended.out.split()) == found


def test_zsh(program: Command) -> None:
    env = {"_JOYEDIT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "joyedit run --retry"}
    ended = program(env=env)
    assert (ended.code, ended.err) == (0, "")
    assert "--retry-failed" in ended.out
    env["_TYPER_COMPLETE_ARGS"] = "joyedit run photos/"
    assert program(env=env).out.strip() == "_files"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash(tmp_path: Path, shell: dict[str, str]) -> None:
    script = (
        'eval "$(_JOYEDIT_COMPLETE=source_bash joyedit)"\n'
        "complete -p joyedit\n"
        "COMP_WORDS=(joyedit run --trust); COMP_CWORD=2\n"
        '_joyedit_completion joyedit; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=shell, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    how, reply = done.stdout.splitlines()
    assert "-o default" in how, "files complete where joyedit itself has nothing to say"
    assert reply == "--trust-journal"
