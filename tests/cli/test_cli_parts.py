"""`--dit`, `--encoder`, `--vae` and `--tokenizer`: whole runs with the parts of a model named one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_command import Command

import joyedit as package
from joyedit.job.own_files import REPORT, RESULTS
from support.editing import levels_apart, picture
from support.pictures import read_metadata
from support.single_files import VAE, save, state_of

LONG = "x" * 120
"""A label with three such names is longer than the name of a file can be."""


@pytest.fixture
def parts(tmp_path: Path, comfy_checkpoint: Path) -> list[str]:
    """The flags of three files, and of a tokenizer."""
    files = {"dit": "diffusion_models", "encoder": "text_encoders", "vae": "vae"}
    flags = []
    for role, place in files.items():
        (source,) = (comfy_checkpoint / place).iterdir()
        shutil.copy(source, tmp_path / f"{role} {LONG}.safetensors")
        flags += [f"--{role}", str(tmp_path / f"{role} {LONG}.safetensors")]
    return [*flags, "--tokenizer", str(comfy_checkpoint)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    picture(128, 160).save(tmp_path / "pictures" / "a.png")
    return tmp_path / "pictures"


RUN = ("run", "pictures", "-p", "blue", "-o", "out", "--basesize", "256", "--steps", "1", "--guidance-scale", "1")


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]


def test_a_run_and_the_same_again(
    joyedit: Command, pictures: Path, tmp_path: Path, parts: list[str], plain_checkpoint: Path
) -> None:
    assert joyedit(*RUN, *parts).code == 0
    label = ", ".join(f"{role} {role} {LONG}.safetensors" for role in ("dit", "encoder", "vae"))
    label += f", tokenizer {Path(parts[-1]).name}"
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert (report["model"], report["layout"]) == (label, "named parts")
    assert read_metadata(tmp_path / "out" / "a.png")["model"] == label
    again = joyedit(*RUN, *parts, "--verbose")
    assert again.code == 0
    assert "loading" not in again.err
    assert len(records(tmp_path / "out")) == 1
    renamed = Path(parts[5]).rename(tmp_path / "vae.safetensors")
    moved = [*parts[:5], str(renamed), *parts[6:]]
    assert "loading" not in joyedit(*RUN, *moved).err
    other = save(tmp_path / "other.safetensors", {k: v * 1.1 for k, v in state_of(plain_checkpoint, VAE).items()})
    refused = joyedit(*RUN, *parts[:5], str(other), *parts[6:])
    assert refused.code == 2
    assert "because these differ: model (1)" in refused.err
    assert joyedit(*RUN, *parts[:5], str(other), *parts[6:], "--update").code == 0


def test_a_dry_run_names_what_is_there(joyedit: Command, pictures: Path, parts: list[str]) -> None:
    ended = joyedit(*RUN, *parts, "--dry-run")
    assert ended.code == 0
    (line,) = (line for line in ended.err.splitlines() if line.startswith("checkpoint: "))
    assert line.startswith("checkpoint: named parts layout, 3 files of weights, ")
    assert "incomplete" not in line


def test_a_dry_run_names_what_is_missing(
    joyedit: Command, pictures: Path, tmp_path: Path, diffusers_checkpoint: Path
) -> None:
    folder = Path(shutil.copytree(diffusers_checkpoint, tmp_path / "checkpoint"))
    shutil.rmtree(folder / "vae")
    ended = joyedit(*RUN, "-m", folder, "--dry-run")
    assert ended.code == 0
    lines = ended.err.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("checkpoint: diffusers layout, "))
    assert lines[start].endswith("; incomplete: 2 missing")
    assert lines[start + 1 : start + 3] == ["  vae/config.json", "  vae/diffusion_pytorch_model.safetensors"]
    assert lines[start + 4].startswith("  hf download jdopensource/JoyAI-Image-Edit-Diffusers --local-dir ")
    assert "checkpoint: own/er" not in joyedit(*RUN, "-m", "own/er", "--dry-run").err


def test_parts_without_the_others(joyedit: Command, pictures: Path, parts: list[str]) -> None:
    for flags in ((), ("--dry-run",)):
        ended = joyedit(*RUN, *parts[:2], *flags)
        assert ended.code == 2
        assert ended.messages == [
            "joyedit: error: --encoder and --vae must be given too, or --model for the other parts"
        ]


def test_a_part_that_is_not_there(joyedit: Command, pictures: Path) -> None:
    for flags in ((), ("--dry-run",)):
        ended = joyedit(*RUN, "-m", "nano", "--dit", "nowhere.gguf", *flags)
        assert ended.code == 2
        assert ended.messages[-1] == "joyedit: error: --dit nowhere.gguf: no such file or folder"


def test_from_python(parts: list[str], plain_checkpoint: Path, tmp_path: Path) -> None:
    named = {flag.removeprefix("--"): Path(path) for flag, path in zip(parts[::2], parts[1::2], strict=True)}
    settings = {"steps": 1, "basesize": 256, "guidance_scale": 1}
    ours = package.load(**named, schedule="diffusers").edit(picture(128, 160), "blue", **settings)
    theirs = package.load(plain_checkpoint).edit(picture(128, 160), "blue", **settings)
    assert levels_apart(ours, theirs) == 0
    picture(128, 160).save(tmp_path / "a.png")
    outcome = package.run(tmp_path / "a.png", output=tmp_path / "o", prompt="x", **named, **settings)  # type: ignore[arg-type]
    assert outcome.exit_code == 0
    with pytest.raises(package.UsageError, match="vae must be given too"):
        package.load(dit=named["dit"], encoder=named["encoder"])
