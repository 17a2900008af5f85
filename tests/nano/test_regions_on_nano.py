"""`--regions` with a trained model: the edit happens, what it leaves alone is the picture's, and the counts add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval_nano import held_out_pairs
from PIL import Image

import joyedit
from nano.measure import measure
from support.editing import levels_apart

STEPS, BLOCKS = 8, 6


def run(folder: Path, name: str, lines: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = folder / name
    done = joyedit.run(folder / f"{name}.jsonl", model="nano", output=out, steps=STEPS, page=False, **options)
    assert done.exit_code == 0
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return sorted(records, key=lambda record: str(record["id"]))


def test_an_edit_with_regions(tmp_path: Path) -> None:
    pairs = [held_out_pairs([kind], 1, 12)[0] for kind in ("recolour", "remove")]
    lines = []
    for number, pair in enumerate(pairs):
        pair.source_image.save(tmp_path / f"{number}.png")
        lines.append({"image": f"{number}.png", "instruction": pair.instruction, "seed": number})
    together = run(tmp_path, "together", lines, batch_size=2, regions="auto")
    single = run(tmp_path, "single", lines[:1], regions="auto")
    assert together[0]["computed"] == single[0]["computed"]
    pictures = [Image.open(tmp_path / name / "0.png") for name in ("together", "single")]
    assert levels_apart(*pictures) == 0
    for record, pair in zip(together, pairs, strict=True):
        with Image.open(tmp_path / "together" / record["output"]) as edited:
            found = measure(pair, edited)
        assert found.happened, found.detail
        assert found.psnr_unchanged > 30
        counts = record["computed"]
        assert (counts["share"], counts["block_steps"]) == (1.0, STEPS * 2 * BLOCKS)
        assert 0.3 < counts["share_of_tokens"] < 0.9
    report = json.loads((tmp_path / "together" / "report.json").read_text())["computed"]
    for name in ("block_steps", "tokens", "tokens_left_out"):
        assert report[name] == sum(record["computed"][name] for record in together)
