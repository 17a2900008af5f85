"""Every command and every Python example of the documents is run, or its flags are looked up where it cannot run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from draw_demo import draw
from pages import PAGES, ROOT, Block, blocks, coded, name_of, prose
from PIL import Image

from joyedit.cli.main import app
from joyedit.weights.defaults import nano_folder
from support.loras import matrices, named, write

CHECKPOINTS = ("path/to/checkpoint", "jdopensource/JoyAI-Image-Edit-Diffusers", "JoyAI-Image-Edit", "nano")
"""What readers type for a checkpoint. For a command, the backend without networks stands in, at the smallest size; for
Python, nano itself with one step."""

_CHECKPOINT = re.compile(rf"(?<=-m |el )(?:{'|'.join(map(re.escape, CHECKPOINTS))})(?=\s|$)", re.MULTILINE)
_NANO = re.compile(r"""(?<=load\(")nano(?=")|(?<=model=")nano(?=")""")

_BENCH = re.compile(r"(?<=joyedit bench )")
"""A benchmark takes its time; here one step shows that it runs."""

LAYER, NANO_QKV = "double_blocks.0.attn.img_attn_qkv", (576, 192)
"""A layer of nano, and its shape."""

PROGRAMS = {"joyedit", "hf", "make", "pip", "python", "cp", "echo", "find", "jq", "tar", "sbatch", "torchrun", "ray"}
"""The programs that a document may call."""

OTHER_FLAGS = {"--help", "--array"}
"""Flags in running text that no command of joyedit lists."""


@pytest.fixture(scope="module")
def quick_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano, but with one step and the smallest pictures where nobody says anything."""
    folder = tmp_path_factory.mktemp("checkpoint") / "nano"
    folder.mkdir()
    for path in nano_folder().iterdir():
        if path.name != "joyedit.json":
            (folder / path.name).symlink_to(path)
    (folder / "joyedit.json").write_text('{"basesize": 256, "steps": 1}')
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures of `make demo`."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder / "demo")
    return folder


@pytest.fixture
def reader(tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who reads the documents: pictures, one of them broken, a manifest, and the command."""
    (tmp_path / "demo").symlink_to(drawn / "demo")
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    for number, name in enumerate(("house.jpg", "chair.jpg", "room.jpg", "photos/a.jpg", "photos/trip/b.jpg")):
        Image.new("RGB", (48, 32), (40 * number, 120, 200)).save(tmp_path / name)
    Image.new("L", (48, 32), 255).save(tmp_path / "door.png")
    (tmp_path / "edits.jsonl").write_text('{"image": "house.jpg", "instruction": "Make the house blue."}\n')
    for name in ("style", "light"):
        write(tmp_path / f"{name}.safetensors", named(matrices({LAYER: NANO_QKV}, (LAYER,))))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    commands = tmp_path / ".commands"
    commands.mkdir()
    (commands / "joyedit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m joyedit "$@"\n')
    (commands / "joyedit").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path / ".cache"))
    monkeypatch.delenv("JOYEDIT_MODEL", raising=False)
    return tmp_path


def run_block(block: Block, folder: Path, nano: Path) -> None:
    """Run the commands of a block as a reader's shell would, with the stand-ins for the checkpoints."""
    text = _CHECKPOINT.sub("fake --basesize 256", _NANO.sub(str(nano), block.text))
    text = _BENCH.sub("--rounds 1 --steps 1 ", text)
    argv = ["bash", "-eu", "-o", "pipefail", "-c", text] if block.kind == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    told = f"{block.where} ended with {done.returncode}:\n{text}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == block.exit_code, told


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.kind == "sh" for b in blocks(page))], ids=name_of)
def test_commands_run(page: Path, reader: Path, quick_nano: Path) -> None:
    for block in blocks(page):
        if block.file is not None:
            (reader / block.file).write_text(block.text)
        elif block.kind == "sh" and block.runs:
            run_block(block, reader, quick_nano)


def test_python_runs(reader: Path, quick_nano: Path) -> None:
    """All blocks of all pages in one process: torch takes long to import."""
    first, *rest = (block for page in PAGES for block in blocks(page) if block.kind == "python" and block.runs)
    run_block(replace(first, text="\n".join(block.text for block in (first, *rest))), reader, quick_nano)


def calls(text: str) -> Iterator[list[str]]:
    """The commands of a block, each as its words: without comments, redirections and what joins them."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        is_file = False  # behind < or >
        for word in lexer:
            if set(word) <= set("|&;<>()"):
                is_file = set(word) <= set("<>")
                if not is_file:
                    yield words
                    words = []
            elif not is_file:
                words.append(word)
        yield words


def check_call(words: list[str], where: str) -> None:
    """The program is one that the documents may call, and has the flags that are given."""
    program, *arguments = words
    assert program in PROGRAMS, f"{where}: {program}"
    if program == "joyedit":
        check_joyedit(arguments, where)
    elif program == "python" and arguments[:1] != ["-m"] and arguments[:1] != ["-c"]:
        script = ROOT / arguments[0]
        assert script.is_file(), f"{where}: no {arguments[0]}"
        for flag in (word for word in arguments if word.startswith("--")):
            assert f'"{flag}"' in script.read_text(encoding="utf-8"), f"{where}: {arguments[0]} has no {flag}"
    elif program == "make":
        for target in arguments:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{where}: {target}"


def check_joyedit(arguments: list[str], where: str) -> None:
    """Parse the arguments as the command does, without running it."""
    root: Any = typer.main.get_command(app)
    if arguments[0] == "--version":
        return
    assert arguments[0] in root.commands, f"{where}: joyedit {arguments[0]}"
    try:
        root.commands[arguments[0]].make_context(arguments[0], list(arguments[1:]))
    except Exception as error:  # of click's usage errors there are two copies, by the release of typer
        pytest.fail(f"{where}: joyedit {shlex.join(arguments)}: {error}")


COMMANDS = [b for page in PAGES for b in blocks(page) if b.kind == "sh"]


@pytest.mark.parametrize("block", [pytest.param(b, id=b.where) for b in COMMANDS])
def test_flags_exist(block: Block) -> None:
    for words in calls(block.text):
        if words:
            check_call(words, block.where)


def options() -> set[str]:
    """Every option of every command of joyedit."""
    root: Any = typer.main.get_command(app)
    below = [inner for command in root.commands.values() for inner in getattr(command, "commands", {}).values()]
    return {name for command in [root, *root.commands.values(), *below] for p in command.params for name in p.opts}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_in_the_text_exist(page: Path) -> None:
    named = {word for code in coded(prose(page)) for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert named - options() - OTHER_FLAGS == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_marked(page: Path) -> None:
    """Indented code would slip past these tests, and so would a comment that is misspelled."""
    known = re.compile(r"file: [\w.]+|not run: \w.*|exit code \d+|")
    for block in blocks(page):
        assert block.kind in {"sh", "python", "text", "json", "yaml", "csv"}, block.where
        assert known.fullmatch(block.comment), f"{block.where}: {block.comment}"
        assert block.kind not in {"json", "yaml", "csv"} or block.file, f"{block.where}: which file is it?"
    assert not re.search(r"^\n {4}\S", prose(page), re.MULTILINE), "indented code is not tested; fence it"


def test_a_flag_that_is_not_there_is_seen() -> None:
    for line in ("joyedit run photos/ --colour red", "joyedit verfy out", "make nothing", "rm -r out"):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check_call(shlex.split(line), "here")
    check_call(shlex.split("joyedit run photos/ --prompt x --set yaw=30 --set zoom=in"), "here")


def test_a_command_that_fails_is_seen(reader: Path, quick_nano: Path) -> None:
    block = Block(page=PAGES[0], line=1, kind="sh", text="joyedit run nothing/ -m path/to/checkpoint\n", comment="")
    with pytest.raises(AssertionError, match="no such file or folder"):
        run_block(block, reader, quick_nano)


def test_commands_are_taken_apart() -> None:
    text = "find p -name '*.jpg' | joyedit run - -p \"a # b\" \\\n  --json > out.txt  # a comment\n"
    assert list(calls(text)) == [
        ["find", "p", "-name", "*.jpg"],
        ["joyedit", "run", "-", "-p", "a # b", "--json"],
    ]
