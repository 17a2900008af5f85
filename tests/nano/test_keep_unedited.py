"""--keep-unedited and the drift on real edits: nano on drawn scenes that are five times as large as it computes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from joyedit import run
from joyedit.job.results.records import final_records
from nano import scenes
from nano.edits import sample_edit, split_rng

TIMES = 5


def enlarged(scene: scenes.Scene) -> scenes.Scene:
    things = tuple(replace(t, cy=t.cy * TIMES, cx=t.cx * TIMES, size=t.size * TIMES) for t in scene.objects)
    return replace(scene, height=scene.height * TIMES, width=scene.width * TIMES, objects=things)


def outside(before: Image.Image, after: Image.Image) -> npt.NDArray[np.bool_]:
    """What the edit should not touch, (H, W): all but the difference of the two scenes and its surroundings."""
    changed = (np.asarray(before) != np.asarray(after)).any(axis=-1)
    small = Image.fromarray((changed * 255).astype(np.uint8)).reduce(TIMES).point(lambda value: 255 if value else 0)
    grown = small.filter(ImageFilter.MaxFilter(9)).resize(before.size, Image.Resampling.NEAREST)
    untouched: npt.NDArray[np.bool_] = np.asarray(grown) == 0
    return untouched


def psnr(one: Image.Image, other: Image.Image, where: npt.NDArray[np.bool_]) -> float:
    away = (np.asarray(one).astype(float) - np.asarray(other))[where]
    return float(10 * np.log10(255**2 / max(float((away**2).mean()), 1e-9)))


@pytest.mark.parametrize(("kind", "index"), [("remove", 10), ("add", 11)])
def test_a_large_picture_keeps_its_sharpness(tmp_path: Path, kind: str, index: int) -> None:
    pair = sample_edit(split_rng("heldout", 5, index), kind, "heldout")
    before, after = (scenes.render(enlarged(scene)) for scene in (pair.source, pair.target))
    before.save(tmp_path / "a.png")
    line: dict[str, Any] = {"image": "a.png", "id": "a", "instruction": pair.instruction}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    where = outside(before, after)
    found = {}
    for keep in (False, True):
        folder = tmp_path / f"out{keep}"
        outcome = run(
            tmp_path / "m.jsonl", model="nano", output=folder, basesize=256, steps=12, keep_unedited=keep, register=keep
        )
        assert outcome.exit_code == 0
        with Image.open(folder / "a.png") as image:
            assert image.size == before.size
            found[keep] = psnr(image, before, where)
            inside = psnr(image, after, ~where)
        [record] = final_records(folder / "results.jsonl")
        drift = record["drift"]
        assert abs(drift["dx"]) < 1
        assert abs(drift["dy"]) < 1
        assert abs(drift["zoom"] - 1) < 0.002
    assert found[True] >= 40
    assert found[True] >= found[False] + 10
    assert inside > 15, "the edit itself is there"
