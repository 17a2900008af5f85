"""`joyedit run --lora`: the header, records, what is edited again, and the real networks of nano."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_command import Command
from PIL import Image

from joyedit import load, run
from joyedit.errors import UsageError
from joyedit.job.results.records import final_records
from joyedit.job.results.retry import manifest_line
from joyedit.weights.defaults import nano_folder
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.locate import locate
from joyedit.weights.lora_file import layer_shapes
from joyedit.weights.wanted import Wanted
from support.loras import matrices, named, write

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1", "-p", "one")
LAYERS = ("double_blocks.0.attn.img_attn_qkv", "double_blocks.1.attn.img_attn_proj")
SHAPES = {"double_blocks.0.attn.img_attn_qkv": (24, 8)}


def records() -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in final_records(Path("edited/results.jsonl"))}


def lora(name: str, seed: int = 1, **metadata: Any) -> Path:
    told = {"joyedit": json.dumps(metadata)} if metadata else None
    return write(Path(name), named(matrices(SHAPES, tuple(SHAPES), seed=seed)), told)


def manifest(*lines: dict[str, Any]) -> None:
    made = [{"image": "pictures/a.png", "id": n, **line} for n, line in zip("abc", lines, strict=False)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))


def test_flags(joyedit: Command, pictures: Path) -> None:
    lora("x/one.safetensors", steps=3, guidance_scale=1)
    lora("x/two.safetensors", seed=2)
    flags = (
        "run",
        "pictures",
        *FAKE[:4],
        "-p",
        "one",
        "--lora",
        "x/one.safetensors",
        "--lora",
        "x/two.safetensors:0.5",
    )
    done = joyedit(*flags)
    assert done.code == 0, done.err
    assert "lora: one.safetensors, two.safetensors (scale 0.5)" in done.err
    assert "steps: 3 (LoRA one.safetensors)" in done.err
    told = records()["a"]["settings"]
    assert told["steps"] == 3
    assert [(one["file"], one["scale"]) for one in told["lora"]] == [("one.safetensors", 1.0), ("two.safetensors", 0.5)]
    text = Image.open("edited/a.png").text  # type: ignore[attr-defined]
    assert str(Path.cwd()) not in json.dumps(text)
    assert json.loads(text["lora"])[0]["file"] == "one.safetensors"
    assert "3 items are already done" in joyedit(*flags).err
    refused = joyedit(*flags[:-1], "x/two.safetensors:0.7")
    assert refused.code == 2
    assert "because these differ: lora (3); for example a: lora one.safetensors:1.0" in refused.err
    lora("x/two.safetensors", seed=9)
    assert joyedit(*flags).code == 2
    assert joyedit(*flags, "--update").code == 0
    assert joyedit("run", "pictures", *FAKE[:4], "-p", "one", "--steps", "3", "--guidance-scale", "1").code == 2


def test_lines(joyedit: Command, pictures: Path) -> None:
    for name in ("one", "two"):
        lora(f"{name}.safetensors", seed=ord(name[0]))
    manifest({"lora": "one.safetensors"}, {"lora": []}, {})
    flags = ("run", "m.jsonl", *FAKE, "--lora", "two.safetensors")
    done = joyedit(*flags)
    assert done.code == 0, done.err
    assert "lora: two.safetensors (2 of 3 lines say otherwise)" in done.err
    assert [len(records()[name]["settings"].get("lora", [])) for name in "abc"] == [1, 0, 1]
    manifest({"lora": "one.safetensors:0.5"}, {"lora": []}, {})  # a line's own edit goes on
    again = joyedit(*flags)
    assert again.code == 0
    assert records()["a"]["settings"]["lora"][0]["scale"] == 0.5
    lora("one.safetensors", seed=77)
    planned = joyedit(*flags, "--dry-run", "--overwrite")
    assert planned.code == 0
    assert "1 step, LoRA one.safetensors (scale 0.5)" in planned.out
    told = [json.loads(line) for line in joyedit(*flags, "--dry-run", "--overwrite", "--json").out.splitlines()]
    assert [[one["file"] for one in batch.get("lora", [])] for batch in told[:-1]] == [
        ["one.safetensors"],
        [],
        ["two.safetensors"],
    ]
    assert joyedit(*flags).code == 0
    refused = joyedit("run", "m.jsonl", *FAKE, "--lora", "no.safetensors")
    assert refused.code == 2
    assert "--lora: no such LoRA: 'no.safetensors'" in refused.err


def test_failed_items_keep_their_loras(joyedit: Command, pictures: Path) -> None:
    lora("one.safetensors")
    manifest({"lora": "one.safetensors:0.5", "instruction": "FAIL-NAN"}, {"instruction": "FAIL-NAN"})
    assert joyedit("run", "m.jsonl", *FAKE).code == 3
    again = [json.loads(line) for line in Path("edited/failed.jsonl").read_text().splitlines()]
    first, second = sorted(again, key=lambda one: "lora" not in one)
    assert first["lora"] == [{"file": str(Path("one.safetensors").absolute()), "scale": 0.5}]
    assert "lora" not in second
    assert joyedit("run", "edited/failed.jsonl", *FAKE, "-o", "again", "-n").code == 0
    for loras, told in ((["x"], None), (None, [{}]), ([1], [{}]), (["x"], [1]), (["x"], [])):
        record = records()["a"]
        record["loras"], record["settings"]["lora"] = loras, told
        assert manifest_line(record) is None


@pytest.fixture(scope="module")
def nano_shapes() -> dict[str, tuple[int, int]]:
    return layer_shapes(open_checkpoint(locate(Wanted(model=str(nano_folder())))).dit)


def test_nano(joyedit: Command, program: Command, pictures: Path, nano_shapes: dict[str, tuple[int, int]]) -> None:
    write(Path("style.safetensors"), named(matrices(nano_shapes, LAYERS)))
    base = ("--model", "nano", "--steps", "2", "--basesize", "256", "-p", "Make it red.")
    assert joyedit("run", "pictures/a.png", *base, "-o", "plain.png").code == 0
    assert joyedit("run", "pictures/a.png", *base, "--lora", "style.safetensors", "-o", "merged.png").code == 0
    manifest({"lora": "style.safetensors"}, {"lora": []}, {"lora": "style.safetensors"})
    done = joyedit("run", "m.jsonl", *base)
    assert done.code == 0, done.err
    pixels = {name: Image.open(name).tobytes() for name in ("plain.png", "merged.png", "edited/a.png")}
    assert pixels["merged.png"] == pixels["edited/a.png"] != pixels["plain.png"]
    wrong = write(Path("wrong.safetensors"), {"double_blocks.0.img_attn_qkv.lora_A.weight": torch.zeros(2, 3)})
    refused = joyedit("run", "pictures/a.png", *base, "--lora", str(wrong), "-o", "other.png")
    assert refused.code == 2
    assert "this LoRA does not fit the model" in refused.err
    assert not Path("other.png").exists()
    lines = json.dumps({"image": "pictures/a.png", "lora": "wrong.safetensors"}) + "\n"
    assert program("run", "-", *base, "-o", "sent", stdin=lines).code == 3
    failed = next(iter(final_records(Path("sent/results.jsonl"))))
    assert failed["error"]["code"] == "bad_lora"


def test_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nano_shapes: dict[str, tuple[int, int]]) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("style.safetensors"), named(matrices(nano_shapes, LAYERS)), {"joyedit": '{"steps": 2}'})
    picture = Image.new("RGB", (256, 256), "white")
    picture.save("p.png")
    editor = load("nano", lora=[{"file": "style.safetensors", "scale": 0.5}])
    made = editor.edit(picture, "Make it red.", basesize=256)
    assert editor.defaults.steps == 2
    editor.close()
    outcome = run(
        "p.png", model="nano", lora="style.safetensors:0.5", prompt="Make it red.", basesize=256, output="out"
    )
    assert outcome.exit_code == 0
    assert Image.open("out/p.png").tobytes() == made.tobytes()
    with pytest.raises(UsageError, match="lora: no such LoRA"):
        load("nano", lora="no.safetensors")
    with pytest.raises(UsageError, match="a LoRA is a path or has file and scale"):
        load("nano", lora={"path": "x"})
