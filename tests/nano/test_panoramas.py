"""A panorama in parts on real edits: the same edit in all of them, and no seam where they meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from joyedit import run
from joyedit.job.results.records import final_records

GROUND = (225, 228, 235)


def test_the_ground_changes_evenly_and_the_things_stay(tmp_path: Path) -> None:
    picture = Image.new("RGB", (720, 176), GROUND)
    draw = ImageDraw.Draw(picture)
    for left, colour in ((60, (214, 45, 50)), (330, (40, 100, 205)), (620, (55, 155, 80))):
        draw.rectangle((left, 60, left + 60, 120), fill=colour)
    picture.save(tmp_path / "wide.png")
    outcome = run(
        tmp_path / "wide.png",
        model="nano",
        output=tmp_path / "out",
        prompt="Make the background light green.",
        panorama="parts",
        basesize=256,
        steps=8,
    )
    assert outcome.exit_code == 0
    [record] = final_records(tmp_path / "out" / "results.jsonl")
    assert record["parts"]["count"] == 3
    with Image.open(tmp_path / "out" / "wide.png") as image:
        result = np.asarray(image.convert("RGB")).astype(int)
    assert result.shape == (176, 720, 3)
    ground = result[4:30].mean(axis=0)  # (W, 3), above the things
    assert np.abs(ground - GROUND).max(axis=-1).min() > 20, "changed in all of them"
    assert np.ptp(ground, axis=0).max() < 25, "to one colour"
    assert np.abs(np.diff(ground, axis=0)).max() < 4, "without a seam"
    for left, strongest in ((60, 0), (330, 2), (620, 1)):
        thing = result[75:105, left + 15 : left + 45].mean(axis=(0, 1))
        assert thing.argmax() == strongest
