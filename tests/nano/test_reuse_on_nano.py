"""`--speed` with a trained model: a run's records and report, and pictures that do not depend on their company."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import joyedit
from joyedit.errors import UsageError
from support.editing import levels_apart, picture

EDITS = ("Make the square orange.", "Paint it grey.")


def run(folder: Path, name: str, lines: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = joyedit.run(
        folder / f"{name}.jsonl", model="nano", output=str(folder / name), steps=8, page=False, **options
    )
    assert outcome.exit_code == 0
    return [json.loads(line) for line in (folder / name / "results.jsonl").read_text().splitlines()]


def test_records_count_block_steps_and_a_picture_is_the_same_in_any_company(tmp_path: Path) -> None:
    for number in range(2):
        picture(256, 256, seed=number).save(tmp_path / f"{number}.png")
    lines = [{"image": f"{number}.png", "instruction": text, "seed": number} for number, text in enumerate(EDITS)]
    together = run(tmp_path, "together", lines, batch_size=2, reuse=0.5, guidance_reuse=2)
    single = run(tmp_path, "single", lines[:1], reuse=0.5, guidance_reuse=2)
    exact = run(tmp_path, "exact", lines[:1])
    pictures = [Image.open(tmp_path / name / "0.png") for name in ("together", "single", "exact")]
    assert levels_apart(pictures[0], pictures[1]) == 0
    assert levels_apart(pictures[0], pictures[2]) > 0
    assert np.mean(np.abs(np.asarray(pictures[0], float) - np.asarray(pictures[2], float))) < 3
    assert "computed" not in exact[0]
    record = next(one for one in together if one["id"] == single[0]["id"])
    assert record["computed"] == single[0]["computed"]
    for one in together:
        counts = one["computed"]
        assert counts["block_steps"] + counts["reused"] + counts["unguided"] == 8 * 2 * 6
        assert counts["unguided"] == 3 * 6
        assert counts["reused"] > 0
        assert one["settings"]["reuse"]["threshold"] == 0.5
    report = json.loads((tmp_path / "together" / "report.json").read_text())
    assert report["computed"]["block_steps"] == sum(one["computed"]["block_steps"] for one in together)
    assert report["computed"]["share"] == pytest.approx(report["computed"]["block_steps"] / 192, abs=1e-4)


def test_the_python_interface(tmp_path: Path) -> None:
    image = picture(256, 256)
    editor = joyedit.load("nano", speed="max", guidance_reuse="off")
    assert editor.edit(image, EDITS[0], steps=3).size == (256, 256)
    with pytest.raises(UsageError, match=r"reuse must be auto, off, or a relative change"):
        joyedit.load("nano", reuse=3)
