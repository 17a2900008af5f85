"""Everything that is refused before anything is written: one message, exit code 2, no folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command, Ended

from joyedit.cli import console
from joyedit.errors import CheckpointError, ManifestError, Problem, UsageError
from joyedit.job.results import output_folder as output

NO_MODEL = (
    "no model is given: add --model nano (comes with joyedit, knows only drawn scenes), "
    "--model jdopensource/JoyAI-Image-Edit-Diffusers (the full model, a download of 50 GB), "
    "or --model with a folder; JOYEDIT_MODEL stands in for the flag; --dry-run needs none"
)
RUN = ("run", "pictures", "-m", "fake", "-p", "blue")


def refused(ended: Ended) -> list[str]:
    """The lines of the message of a refusal, which must be all there is."""
    assert ended.code == 2
    assert ended.out == ""
    assert not Path("edited").exists()
    assert ended.messages[0].startswith("joyedit: error: ")
    assert "Traceback" not in ended.err
    return ended.messages


def test_no_model(joyedit: Command, pictures: Path) -> None:
    assert refused(joyedit("run", "pictures", "-p", "blue")) == [f"joyedit: error: {NO_MODEL}"]


@pytest.mark.parametrize("flag", ["-m", "--model", "--model-path", "--ckpt-root"])
def test_a_model_that_is_not_there(joyedit: Command, pictures: Path, flag: str) -> None:
    (message,) = refused(joyedit("run", "pictures", "-p", "blue", flag, "missing"))
    assert "missing" in message


@pytest.mark.parametrize("flags", [["-o", ""], ["--output="], ["--json", "--output", ""]])
def test_an_output_without_a_name_is_not_the_current_folder(joyedit: Command, pictures: Path, flags: list[str]) -> None:
    before = sorted(Path.cwd().iterdir())
    told = refused(joyedit(*RUN, *flags))
    assert told == ["joyedit: error: --output is empty (name a folder; . is the current one)"]
    assert sorted(Path.cwd().iterdir()) == before


def test_empty_names_are_told_together(joyedit: Command, pictures: Path) -> None:
    assert refused(joyedit("run", "pictures", "-p", "blue", "-m", "", "--metrics", "")) == [
        "joyedit: error: 2 problems",
        "  --model is empty (name a folder, a hub id, or nano)",
        "  --metrics is empty (name a file)",
    ]


def test_a_model_by_environment(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_MODEL", "fake")
    assert joyedit("run", "pictures", "-p", "blue", "--basesize", "256").code == 0


def test_the_fake_is_no_model_without_its_switch(
    joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOYEDIT_FAKE")
    refused(joyedit(*RUN))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--basesize", "300"], "--basesize must be one of 256, 512, 768, 1024, not 300"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--num-inference-steps=0"], "--steps must be at least 1, not 0"),
        (["--steps", "many"], "--steps must be a whole number, not 'many'"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--seed"], "--seed needs a value (see joyedit run --help)"),
        (["--guidance-scale", "nan"], "--guidance-scale must be a number from 0 to 100, not nan"),
        (["--guidance-scale", "x"], "--guidance-scale must be a number, not 'x'"),
        (["--batch-size", "0"], "--batch-size must be auto or a number from 1, not '0'"),
        (["--batch-size", "all"], "--batch-size must be auto or a number from 1, not 'all'"),
        (["--limit", "0"], "--limit must be at least 1, not 0"),
        (["--device", "tpu"], "--device must be auto, cuda, mps or cpu, not 'tpu'"),
        (["--dtype", "fp8"], "--dtype must be auto, bf16 or fp32, not 'fp8'"),
        (["--attention", "magic"], "magic"),
        (["--schedule", "none"], "none"),
        (["--format", "bmp"], "bmp"),
        (["--quality", "101"], "--quality must be at most 100, not 101"),
        (["--json=some"], "--json must be new or all, not 'some'"),
        (["--quiet=yes"], "--quiet takes no value"),
        (["--set", "a=b"], "--set gives a parameter of a recipe, but no recipe is given: name one with --recipe"),
        (["--recipe", "camera", "--set", "yaw"], "--set takes name=value, not 'yaw'"),
        (["--recipe", "camera", "--set", "=3"], "--set takes name=value, not '=3'"),
        (["--recipe", "camera", "--set", "yaw=1", "--set", "yaw=2"], "--set yaw is given twice"),
        (["--recipe", "camera", "--set", "yow=1"], "yow"),
        (["--recipe", "camrea"], "camera"),
        (["--recipe", "gone.yaml"], "gone.yaml"),
        (["--stepz", "3"], "no option is named --stepz (did you mean --steps?)"),
        (["--outptu", "x"], "no option is named --outptu (did you mean --output?)"),
        (["--verbosee"], "no option is named --verbosee (did you mean --verbose?)"),
        (["--fast"], "no option is named --fast (see joyedit run --help)"),
        (["extra"], "extra: no such file or folder"),
    ],
)
def test_flags(joyedit: Command, pictures: Path, flags: list[str], message: str) -> None:
    told = "\n".join(refused(joyedit(*RUN, *flags)))
    assert message in told
    for word in ("Value error", "Input should", "Invalid value", "Possible options"):
        assert word not in told


@pytest.mark.parametrize("name", ["-dash.png", "--prompt.png", "-n.png"])
def test_a_file_that_begins_with_a_dash_is_named(joyedit: Command, pictures: Path, name: str) -> None:
    (pictures / "a.png").rename(name)
    assert refused(joyedit("run", name, "-p", "x", "-m", "fake"))[0].endswith(
        f"(the file of this name is ./{name}) (see joyedit run --help)"
    )
    assert joyedit("run", f"./{name}", "-p", "x", "-m", "fake").code == 0
    assert joyedit("run", "-p", "x", "-m", "fake", "-o", "other", "--", name).code == 0


def test_every_fault_of_the_flags_is_told_at_once(joyedit: Command, pictures: Path) -> None:
    assert refused(joyedit("run", "pictures", "--batch-size", "x", "--set", "y")) == [
        "joyedit: error: 4 problems",
        f"  {NO_MODEL}",
        "  --batch-size must be auto or a number from 1, not 'x'",
        "  --set gives a parameter of a recipe, but no recipe is given: name one with --recipe",
        "  --set takes name=value, not 'y'",
    ]


def test_quiet_and_verbose(joyedit: Command, pictures: Path) -> None:
    ended = joyedit(*RUN, "-q", "-v")
    assert ended.code == 2
    assert ended.messages[0] == "joyedit: error: --quiet and --verbose exclude each other"


def test_no_source(joyedit: Command) -> None:
    assert refused(joyedit("run", "-m", "fake")) == ["joyedit: error: SOURCE is missing (see joyedit run --help)"]
    (message,) = refused(joyedit("run", "gone", "-m", "fake"))
    assert message == "joyedit: error: gone: no such file or folder"


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
@pytest.mark.parametrize("name", ["m.jsonl", "m.yaml", "m.csv"])
def test_a_manifest_that_is_a_pipe_is_not_waited_for(joyedit: Command, name: str, extra: list[str]) -> None:
    os.mkfifo(name)
    (message,) = refused(joyedit("run", name, "-m", "fake", *extra))
    assert message == (
        f"joyedit: error: {name}: this manifest is no file (send its lines to standard input, with - as SOURCE)"
    )


def test_an_unknown_command(joyedit: Command) -> None:
    (message,) = refused(joyedit("rnu"))
    assert message == "joyedit: error: no command is named 'rnu' (did you mean run?)"


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_a_manifest_with_faults_tells_all_of_them(joyedit: Command, pictures: Path, extra: list[str]) -> None:
    lines: list[dict[str, Any]] = [
        {"image": "pictures/a.png", "instruction": "x", "id": "a"},
        {"image": "pictures/a.png", "instruktion": "x", "id": "b"},
        {"image": "pictures/gone.png", "instruction": "x", "id": "c"},
        {"image": "pictures/a.png", "instruction": "x", "id": "a"},
        {"image": "pictures/a.png", "instruction": "x", "id": "e", "output": "../e.png"},
        {"image": "pictures/a.png", "instruction": "x", "id": "f", "output": "A.png"},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    messages = refused(joyedit("run", "m.jsonl", "-m", "fake", *extra))
    assert messages[0].endswith("problems")
    for number, word in ((2, "instruction"), (3, "gone.png"), (4, "a"), (5, "../e.png"), (6, "A.png")):
        found = [line for line in messages if line.startswith(f"  m.jsonl:{number}: ")]
        assert found, number
        assert any(word in line for line in found), found


def test_one_fault_is_told_on_one_line(joyedit: Command, pictures: Path) -> None:
    Path("m.jsonl").write_text('{"image": "pictures/a.png"}\n')
    (message,) = refused(joyedit("run", "m.jsonl", "-m", "fake"))
    assert message.startswith("joyedit: error: m.jsonl:1: ")


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_an_output_that_is_a_file(joyedit: Command, pictures: Path, extra: list[str]) -> None:
    Path("taken").write_text("mine")
    (message,) = refused(joyedit(*RUN, "-o", "taken", *extra))
    assert message == "joyedit: error: the output taken cannot be a folder: taken is no folder (change --output)"
    assert Path("taken").read_text() == "mine"


def test_the_source_folder_as_output(joyedit: Command, pictures: Path) -> None:
    before = sorted(pictures.rglob("*"))
    (message,) = refused(joyedit(*RUN, "-o", "pictures"))
    assert "source folder" in message
    assert sorted(pictures.rglob("*")) == before


def test_an_empty_folder(joyedit: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (message,) = refused(joyedit("run", "empty", "-m", "fake", "-p", "blue"))
    assert "no pictures" in message


def test_an_output_folder_without_permission_ends_with_1(
    joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.os, "access", lambda path, mode: False)
    ended = joyedit(*RUN)
    assert ended.code == 1
    assert "no permission" in ended.err


def test_a_checkpoint_that_is_refused(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object) -> None:
        raise CheckpointError("missing tensors:\n3 of 7 are missing")

    monkeypatch.setattr("joyedit.runtime.fake.load_backend", refuse)
    ended = joyedit(*RUN)
    assert ended.code == 2
    assert not Path("edited").exists()
    assert ended.messages == ["loading fake", "joyedit: error: missing tensors:", "  3 of 7 are missing"]


def test_a_traceback_only_with_verbose(joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(config: object) -> None:
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr("joyedit.runtime.fake.load_backend", break_down)
    ended = joyedit(*RUN)
    assert ended.code == 1
    assert ended.messages[-1] == (
        "joyedit: error: unexpected error, ZeroDivisionError: a fault of the program (use -v to see where)"
    )
    ended = joyedit(*RUN, "-v")
    assert "Traceback (most recent call last)" in ended.err


def test_problems_are_counted_and_listed() -> None:
    assert console.error_text("one") == "joyedit: error: one"
    assert console.error_text(UsageError("one\ntwo")) == "joyedit: error: 2 problems\n  one\n  two"
    many = ManifestError([Problem(file="m", line=1, message="bad")], total=300)
    assert console.error_text(many) == "joyedit: error: 300 problems\n  m:1: bad\n  ... and 299 more"
