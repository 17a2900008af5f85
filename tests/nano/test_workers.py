"""nano in several worker processes on the CPU: the same pixels as in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from joyedit.job.results.records import final_records
from nano.edits import sample_edit, split_rng

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A manifest of drawn scenes: two edits of one, in several batches."""
    lines = []
    for number in range(3):
        pair = sample_edit(split_rng("heldout", 20 + number, 1), "recolour", "heldout")
        pair.source_image.save(tmp_path / f"{number}.png")
        lines.append(f'{{"image": "{number}.png", "id": "{number}", "instruction": "{pair.instruction}"}}\n')
        lines.append(
            f'{{"image": "{number}.png", "id": "{number}b", "instruction": "{pair.instruction}", "seed": 1}}\n'
        )
    (tmp_path / "m.jsonl").write_text("".join(lines))
    return tmp_path


def run(folder: Path, gpus: int) -> None:
    """Each process with one thread: with others, sums in fp32 have other roundings."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JOYEDIT_CACHE": str(folder / "cache")}
    argv = ["run", "m.jsonl", "-m", "nano", "--device", "cpu", "--dtype", "fp32", "--basesize", "256", "--steps", "2"]
    argv += ["--batch-size", "1", "--no-page", "-q", "--gpus", str(gpus), "-o", f"out{gpus}"]
    done = subprocess.run(
        [sys.executable, "-m", "joyedit", *argv], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_one_two_and_three_workers_make_the_same_pixels(scenes: Path) -> None:
    for gpus in (1, 2, 3):
        run(scenes, gpus)
    ids = [f"{number}{letter}" for number in range(3) for letter in ("", "b")]
    for name in ids:
        with Image.open(scenes / "out1" / f"{name}.png") as plain:
            for out in ("out2", "out3"):
                with Image.open(scenes / out / f"{name}.png") as other:
                    assert other.tobytes() == plain.tobytes(), f"{out}/{name}.png"
    prints = [
        {one["id"]: one["fingerprint"] for one in final_records(scenes / f"out{n}/results.jsonl")} for n in (1, 3)
    ]
    assert prints[0] == prints[1]
    assert set(prints[0]) == set(ids)
