"""`joyedit run --dry-run`: the batches and the counts, without a model and without a trace."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from cli_command import Command

from joyedit.cli.main import main


def test_batches_and_counts(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"nothing")
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "--basesize", "256", "--steps", "4")
    assert ended.code == 3
    *lines, last = ended.out.splitlines()
    assert lines[0].startswith("failed: broken: unreadable_picture: ")
    assert lines[1:] == [
        "batch 0: 256x256 from 256x256, 4 steps, 2: a, deep/c",
        "batch 1: 176x352 from 176x352, 4 steps, 1: b",
    ]
    assert last == "items 4, batches 2, failed 1, passed over 1"
    assert ended.err.splitlines() == [
        "instruction: 'blue'",
        "steps: 4",
        "guidance scale: 4.0 (built-in)",
        "seed: 42 (built-in)",
        "negative prompt: '' (built-in)",
        "basesize: 256",
        "batch size: auto, shown with 4 (a run measures what fits its device)",
    ]
    assert not Path("edited").exists()


def test_text_to_image_and_several_references(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"instruction": "a cat", "id": "cat"},
        {"images": ["pictures/a.png", "pictures/b.jpg"], "instruction": "both", "id": "both"},
    ]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = joyedit("run", "m.jsonl", "-n", "--basesize", "256", "--batch-size", "8")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "batch 0: 256x256 from no reference, 40 steps, 1: cat",
        "batch 1: 176x352 from 256x256 + 176x352, 40 steps, 1: both",
        "items 2, batches 2, failed 0, passed over 0",
    ]


def test_json_lines(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"nothing")
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "--basesize", "256", "--batch-size", "2", "--json")
    assert ended.code == 3
    failed, *batches, summary = [json.loads(line) for line in ended.out.splitlines()]
    assert failed["failed"] == "broken"
    assert failed["error"]["code"] == "unreadable_picture"
    assert batches == [
        {"batch": 0, "bucket": [256, 256], "references": [[256, 256]], "steps": 40, "items": ["a", "deep/c"]},
        {"batch": 1, "bucket": [176, 352], "references": [[176, 352]], "steps": 40, "items": ["b"]},
    ]
    assert summary == {"summary": {"items": 4, "batches": 2, "failed": 1, "passed_over": 1}}


def test_limit_and_quiet(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "--limit", "2", "--batch-size", "1")
    assert ended.out.splitlines()[-1] == "items 2, batches 2, failed 0, passed over 1"
    ended = joyedit("run", "pictures", "-n", "-p", "blue", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_memory_does_not_grow_with_the_manifest(pictures: Path) -> None:
    def peak(count: int) -> int:
        line = '{{"image": "pictures/a.png", "instruction": "edit {0}", "steps": {1}}}\n'
        with open("m.jsonl", "w") as file:
            file.writelines(line.format(number, 1 + number % 9) for number in range(count))
        tracemalloc.start()
        try:
            with pytest.raises(SystemExit) as caught:
                main(["run", "m.jsonl", "-n", "-q", "--batch-size", "8"])
            assert caught.value.code == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports and caches
    few, many = peak(500), peak(4_500)
    # The tables of name hashes may grow, by about 100 bytes an item; an item that is kept takes over 600.
    assert (many - few) / 4_000 < 250


def test_the_recipes_are_listed(joyedit: Command) -> None:
    ended = joyedit("recipes")
    assert ended.code == 0
    assert [line.split(":")[0] for line in ended.out.splitlines() if not line.startswith(" ")] == [
        "camera", "draft", "object-rotate",
    ]  # fmt: skip
    assert "  --set yaw=VALUE  " in ended.out
