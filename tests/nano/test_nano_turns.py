"""A turn on nano is, bit by bit, the edit of the file that the turn before it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from joyedit.cli.main import main

STEPS = ("-m", "nano", "--steps", "2", "--no-page", "-q")


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments])
    assert ended.value.code == 0


def pixels(path: str) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (200, 256), "white")
    picture.paste((200, 30, 30), (40, 60, 120, 140))
    picture.save("a.png")
    lines = [
        {"image": "a.png", "id": "m", "turns": ["Make the square blue.", "Make the background grey."]},
        {"image": "@m-turn2", "id": "last", "instruction": "Make the square green.", "seed": 5},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run("m.jsonl", *STEPS, "--format", format, "-o", "out")
    one, two = f"one.{format}", f"two.{format}"
    run("a.png", "-p", "Make the square blue.", *STEPS, "-o", one)
    assert pixels(one) == pixels(f"out/m-turn1.{format}")
    run(one, "-p", "Make the background grey.", *STEPS, "-o", two)
    assert pixels(two) == pixels(f"out/m-turn2.{format}")
    run(two, "-p", "Make the square green.", *STEPS, "--seed", "5", "-o", f"three.{format}")
    assert pixels(f"three.{format}") == pixels(f"out/last.{format}")
