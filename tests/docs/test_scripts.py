"""The scripts of several-machines.md run as they stand there: under the variables of an array, and over ssh."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, blocks
from PIL import Image

from joyedit.job.results.records import final_records

PAGE = ROOT / "docs" / "several-machines.md"
ITEMS = 160


def script(name: str) -> str:
    """The script of this name, with the backend without networks in place of the checkpoint."""
    (text,) = (block.text for block in blocks(PAGE) if block.file == name)
    assert "-m JoyAI-Image-Edit " in text
    return text.replace("-m JoyAI-Image-Edit ", "-m fake --basesize 256 ")


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """A folder with a manifest, and an environment with the command and an ssh that stays here."""
    Image.new("RGB", (48, 32)).save(tmp_path / "house.jpg")
    lines = [{"id": f"item{one}", "image": "house.jpg", "instruction": f"{one}"} for one in range(ITEMS)]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    commands = tmp_path / ".commands"
    commands.mkdir()
    for name, text in (("joyedit", f'exec "{sys.executable}" -m joyedit "$@"'), ("ssh", 'cd / && exec bash -c "$2"')):
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "JOYEDIT_FAKE": "1"}


def call(text: str, folder: Path, environment: dict[str, str], code: int = 0) -> str:
    argv = ["bash", "-eu", "-o", "pipefail", "-c", text]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_an_array_of_slurm(tmp_path: Path, cluster: dict[str, str]) -> None:
    text = script("edit.sbatch")
    first, last = map(int, re.findall(r"--array=(\d+)-(\d+)", text)[0])
    for task in range(first, last + 1):
        array = {"ID": task, "MIN": first, "MAX": last, "STEP": 1, "COUNT": last - first + 1}
        variables = {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in array.items()}
        told = call(text, tmp_path, cluster | variables | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"})
        assert f"{task} of {last}: " in told
        if task == first + 2:
            rows = call("joyedit status out", tmp_path, cluster, code=3)
            assert f"{last - 3} of {last} shards have not begun: 4 to {last}" in rows
    call("joyedit verify out; joyedit merge out", tmp_path, cluster)
    assert {record["id"] for record in final_records(tmp_path / "out" / "results.jsonl")} == {
        f"item{one}" for one in range(ITEMS)
    }


def test_a_loop_over_ssh(tmp_path: Path, cluster: dict[str, str]) -> None:
    told = call(script("edit.sh"), tmp_path, cluster)
    assert "shard 3 of 3" in told
    assert f"items  {ITEMS}: {ITEMS} ok, 0 failed" in told
    assert not (tmp_path / "out" / "shards").exists()
