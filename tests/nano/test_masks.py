"""A mask on a real edit: nano removes a thing in the white, and leaves the rest to the picture, pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from joyedit import load, run
from joyedit.job.results.records import final_records
from nano import scenes
from nano.edits import sample_edit, split_rng


@pytest.mark.parametrize(("kind", "index"), [("remove", 10), ("recolour", 11)])
def test_the_edit_happens_in_the_white_alone(tmp_path: Path, kind: str, index: int) -> None:
    pair = sample_edit(split_rng("heldout", 5, index), kind, "heldout")
    before, after = scenes.render(pair.source), scenes.render(pair.target)
    before.save(tmp_path / "a.png")
    changed = Image.fromarray(((np.asarray(before) != np.asarray(after)).any(axis=-1) * 255).astype(np.uint8))
    mask = changed.filter(ImageFilter.MaxFilter(9)).filter(ImageFilter.GaussianBlur(1))
    mask.save(tmp_path / "m.png")
    line = {"image": "a.png", "id": "a", "instruction": pair.instruction, "mask": "m.png"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    outcome = run(tmp_path / "m.jsonl", model="nano", output=tmp_path / "out", basesize=256, steps=12)
    assert outcome.exit_code == 0
    share, own = np.asarray(mask), np.asarray(before)
    with Image.open(tmp_path / "out" / "a.png") as image:
        result = np.asarray(image.convert("RGB"))
    assert np.array_equal(result[share == 0], own[share == 0])
    inside = share == 255
    away = [float(np.abs(result[inside].astype(int) - np.asarray(one)[inside]).mean()) for one in (before, after)]
    assert away[1] < away[0] / 2, "what is white shows the edit"
    [record] = final_records(tmp_path / "out" / "results.jsonl")
    assert 0 < record["mask"]["share"] < 0.7
    again = load("nano").edit(before, pair.instruction, mask=mask, basesize=256, steps=12)
    assert np.array_equal(np.asarray(again), result)
