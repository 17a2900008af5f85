"""nano edits pictures in memory as it edits their files: the same pixels, whatever the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

import joyedit

TEXTS = ("Make the square orange.", "Remove the square.", "Make the background green.")


def drawn(number: int) -> Image.Image:
    picture = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(picture).rectangle((40 + 20 * number, 80, 130 + 20 * number, 170), fill="blue")
    return picture


def test_objects_and_files_give_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"model": "nano", "steps": 2, "progress": False}
    rows = [{"id": f"n{number}", "instruction": text, "seed": number} for number, text in enumerate(TEXTS)]
    for number in range(len(TEXTS)):
        drawn(number).save(f"{number}.png")
    lines = [{**row, "image": f"{number}.png"} for number, row in enumerate(rows)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    in_memory = [{**row, "image": drawn(number)} for number, row in enumerate(rows)]
    sources = {
        "file": "m.jsonl",
        "rows": in_memory,
        "iterator": iter(in_memory),
        "one by one": [in_memory[2], in_memory[0], in_memory[1]],
    }
    made: dict[str, dict[str, bytes]] = {}
    for name, source in sources.items():
        outcome = joyedit.run(source, output=name, batch_size=1 if name == "one by one" else "auto", **options)
        assert outcome.exit_code == 0
        made[name] = {one.id: one.image.tobytes() for one in outcome if one.image is not None}
    assert len(made["file"]) == len(set(made["file"].values())) == len(TEXTS)
    assert all(pictures == made["file"] for pictures in made.values())
