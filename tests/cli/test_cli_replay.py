"""`joyedit show PICTURE`, and `joyedit run PICTURE` of a picture that joyedit made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from support.loras import matrices, named, write
from support.pictures import read_metadata

FAKE = ("-m", "fake", "--basesize", "256")
MADE = (*FAKE, "--steps", "2", "--seed", "9", "--guidance-scale", "3.5", "--neg-prompt", "blurry")


def records(folder: str = "edited") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


@pytest.fixture
def made(joyedit: Command, pictures: Path) -> Path:
    ended = joyedit("run", "pictures", "-p", "Make it red.", *MADE, "-o", "out", "-q")
    assert ended.code == 0, ended.err
    return Path("out/a.png")


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_show(joyedit: Command, made: Path) -> None:
    shown = joyedit("show", made)
    assert (shown.code, shown.err) == (0, "")
    rows = dict(line.split("  ", 1) for line in shown.out.splitlines())
    told = {name.strip(): text.strip() for name, text in rows.items()}
    assert told["instruction"] == "Make it red."
    assert (told["steps"], told["seed"], told["guidance scale"], told["negative prompt"]) == (
        "2",
        "9",
        "3.5",
        "'blurry'",
    )
    assert told["made of"].startswith(f"{Path.cwd()}/pictures/a.png (sha256 ")
    assert (told["model"], told["record in"]) == ("fake", str(Path.cwd() / "out"))
    raw = json.loads(joyedit("show", made, "--json").out)
    assert raw["embedded"] == read_metadata(made)
    assert raw["record"]["id"] == "a"


def test_show_without_a_record_and_without_anything(joyedit: Command, made: Path) -> None:
    alone = Path("alone.png")
    alone.write_bytes(made.read_bytes())
    shown = joyedit("show", alone)
    assert "made of          a.png (sha256 " in shown.out
    assert "record in" not in shown.out
    assert json.loads(joyedit("show", alone, "--json").out)["record"] is None
    refused = joyedit("show", "pictures/a.png")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("joyedit: error: pictures/a.png: this picture does not say how it was made")
    assert "cannot read this picture: No such file" in joyedit("show", "gone.png").err


def test_a_record_tells_of_a_picture_whose_metadata_is_gone(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", "pictures/a.png", "-p", "x", *MADE, "-o", "out", "-q").code == 0
    record = records("out")[0]
    Image.open("out/a.png").save("stripped.png")
    assert joyedit("show", "stripped.png").code == 2
    Path("moved").mkdir()
    # A file with the recorded content, wherever its metadata is.
    import hashlib

    data = Path("stripped.png").read_bytes()
    Path("moved/a.png").write_bytes(data)
    line = json.dumps(record | {"output_sha256": hashlib.sha256(data).hexdigest(), "output_bytes": len(data)})
    Path("moved/results.jsonl").write_text(f"{line}\n")
    assert "seed             9" in joyedit("show", "moved/a.png").out


def test_again(joyedit: Command, made: Path) -> None:
    before = made.read_bytes()
    ended = joyedit("run", made)
    assert ended.code == 0, ended.err
    assert ended.out == "edited/a_again.png\n"
    assert "seed: 9 (the picture)" in ended.err
    assert pixels("edited/a_again.png") == pixels(made)
    assert made.read_bytes() == before
    again = read_metadata(Path("edited/a_again.png"))
    assert again == read_metadata(made)
    assert "1 item is already done" in joyedit("run", made).err
    # The verifier finds the item by its id.
    assert joyedit("verify", "edited").code == 0
    # And what was made again can be made again.
    assert joyedit("run", "edited/a_again.png", "-q").code == 0
    assert pixels("edited/a_again_again.png") == pixels(made)


def test_into_the_folder_of_the_picture_itself(joyedit: Command, made: Path) -> None:
    before = made.read_bytes()
    assert joyedit("run", made, "-o", "out", "-q").code == 0
    assert Path("out/a_again.png").is_file()
    assert made.read_bytes() == before
    assert len(records("out")) == 4
    refused = joyedit("run", made, "-o", made, "--overwrite")
    assert refused.code == 2
    assert made.read_bytes() == before


def test_variations(joyedit: Command, made: Path) -> None:
    ended = joyedit("run", made, "--set", "steps=5", "--seed", "3", "-q")
    assert ended.code == 0, ended.err
    (record,) = records()
    assert record["id"] == "a_steps-5_seed-3"
    assert (record["settings"]["steps"], record["settings"]["seed"]) == (5, 3)
    assert record["settings"]["guidance_scale"] == 3.5
    assert joyedit("run", made, "--set", "instruction=Make it blue.", "-o", "blue.png").code == 0
    assert read_metadata(Path("blue.png"))["instruction"] == "Make it blue."
    assert joyedit("run", made, "--seeds", "2", "-o", "seeds", "-q").code == 0
    assert sorted(record["id"] for record in records("seeds")) == ["a_again_seed-10", "a_again_seed-9"]


def test_with_an_instruction_it_is_a_picture_to_edit(joyedit: Command, made: Path) -> None:
    assert joyedit("run", made, "-p", "Again.", *FAKE, "-q").code == 0
    assert records()[0]["instruction"] == "Again."
    assert records()[0]["inputs"] == [str(Path.cwd() / made)]
    assert joyedit("run", made, "--recipe", "restore", *FAKE, "-o", "recipe", "-q").code == 0
    Path("out/a.txt").write_text("Beside it.")
    assert joyedit("run", made, *FAKE, "-o", "text", "-q").code == 0
    assert records("text")[0]["instruction"] == "Beside it."


def test_inputs_that_are_elsewhere_or_others(joyedit: Command, made: Path) -> None:
    Path("pictures/a.png").rename("kept.png")
    gone = joyedit("run", made)
    assert (gone.code, gone.err) == (
        2,
        f"joyedit: error: {Path.cwd()}/pictures/a.png, of which out/a.png was made, is not there "
        "(name it with --input FILE)\n",
    )
    assert joyedit("run", made, "--input", "kept.png", "-q").code == 0
    assert pixels("edited/a_again.png") == pixels(made)
    Image.new("RGB", (100, 100), "white").save("pictures/a.png")
    changed = joyedit("run", made)
    assert changed.code == 2
    assert f"{Path.cwd()}/pictures/a.png has changed since out/a.png was made of it" in changed.err
    other = joyedit("run", made, "--input", "pictures/a.png", "-o", "other")
    assert other.code == 0
    assert "note: pictures/a.png is not the picture that out/a.png was made of, so the result differs" in other.err
    # One of the same name and content beside it is found.
    Path("kept.png").rename("out/a.jpeg")
    assert joyedit("run", made).code == 2
    Path("a.png").write_bytes(Path("out/a.jpeg").read_bytes())
    assert joyedit("run", made, "-o", "found", "-q").code == 0
    twice = joyedit("run", made, "--input", "a.png", "--input", "a.png")
    assert "--input is given 2 times, and out/a.png was made of 1 ('a.png')" in twice.err


def test_a_picture_alone_is_enough_where_its_input_is_near(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", "pictures/a.png", "-p", "x", *MADE, "-o", "pictures/red.jpg", "--quality", "80").code == 0
    held = read_metadata(Path("pictures/red.jpg"))
    assert held["quality"] == "80"
    assert json.loads(held["inputs"])[0]["name"] == "a.png"
    assert str(Path.cwd()) not in json.dumps(held)
    ended = joyedit("run", "pictures/red.jpg")
    assert ended.code == 0, ended.err
    assert Path("edited/red_again.jpg").read_bytes() == Path("pictures/red.jpg").read_bytes()


def test_sizes_boxes_and_pictures_made_of_nothing(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"instruction": "a circle", "id": "t", "width": 400, "height": 200},
        {"image": "pictures/a.png", "instruction": "x", "id": "b", "box": [0.1, 0.1, 0.5, 0.5]},
        {"images": ["pictures/a.png", "pictures/b.jpg"], "instruction": "x", "id": "two"},
    ]
    Path("m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert joyedit("run", "m.jsonl", *MADE, "-o", "out", "-q").code == 0
    for name in ("t", "b", "two"):
        for source in (f"out/{name}.png", f"{name}.png"):  # with its record, and alone
            Path(f"{name}.png").write_bytes(Path(f"out/{name}.png").read_bytes())
            inputs = [] if name == "t" or source[:3] == "out" else ["--input", "pictures/a.png"]
            inputs += ["--input", "pictures/b.jpg"] if inputs and name == "two" else []
            ended = joyedit("run", source, *inputs, "-o", f"again-{source[:3]}-{name}", "-q")
            assert ended.code == 0, ended.err
            assert pixels(f"again-{source[:3]}-{name}/{name}_again.png") == pixels(f"out/{name}.png")
    assert "red box" in joyedit("show", "out/b.png").out
    assert "its instruction alone" in joyedit("show", "out/t.png").out


def test_loras(joyedit: Command, pictures: Path) -> None:
    layer = "double_blocks.0.attn.img_attn_qkv"
    write(Path("l.safetensors"), named(matrices({layer: (576, 192)}, (layer,))))
    run = ("run", "pictures/a.png", "-p", "x", *MADE, "--lora", "l.safetensors:0.5")
    assert joyedit(*run, "-o", "out", "-q").code == 0
    assert "l.safetensors (scale 0.5)" in joyedit("show", "out/a.png").out
    assert joyedit("run", "out/a.png", "-q").code == 0
    assert records()[0]["settings"]["lora"] == records("out")[0]["settings"]["lora"]
    assert pixels("edited/a_again.png") == pixels("out/a.png")
    Path("pictures/alone.png").write_bytes(Path("out/a.png").read_bytes())
    refused = joyedit("run", "pictures/alone.png")
    assert refused.err == (
        "joyedit: error: pictures/alone.png was made with the LoRA 'l.safetensors' (name its file: --lora FILE:0.5)\n"
    )
    assert joyedit("run", "pictures/alone.png", "--lora", "l.safetensors:0.5", "-o", "named", "-q").code == 0
    assert pixels("named/alone_again.png") == pixels("out/a.png")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--set", "stps=3"), "--set cannot change 'stps' of a picture (did you mean 'steps'?)"),
        (("--set", "steps=x"), "--set steps must be a whole number from 1 to 1000, not 'x'"),
        (("--set", "steps"), "--set takes name=value, not 'steps'"),
        (("--set", "steps=1", "--set", "steps=2"), "--set steps is given twice"),
        (("--set", "seed=1", "--seed", "2"), "--set seed and --seed are the same (leave one of them out)"),
        (("--exclude", "x"), "--exclude is for folders and patterns, and out/a.png is none (leave it out)"),
        (("--map", "image=x"), "--map is for the lines of a manifest, and out/a.png is none (leave it out)"),
        (("--steps", "0"), "--steps must be at least 1, not 0"),
    ],
)
def test_faults(joyedit: Command, made: Path, flags: tuple[str, ...], told: str) -> None:
    refused = joyedit("run", made, *flags)
    assert refused.code == 2
    assert told in refused.err
    assert not Path("edited").exists()


def test_input_is_for_pictures_of_joyedit(joyedit: Command, pictures: Path) -> None:
    refused = joyedit("run", "pictures", "-p", "x", *FAKE, "--input", "pictures/a.png")
    assert "--input is for a picture of joyedit that is made again, and SOURCE is none (leave it out)" in refused.err


def test_the_model(joyedit: Command, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = joyedit("run", made, "-m", "nano", "-n")
    assert "note: out/a.png was made with the model fake, and this is nano" in other.err
    text = Path("out/results.jsonl").read_text().replace('"model": "fake"', '"model": "Some-Folder"')
    Path("out/results.jsonl").write_text(text)
    monkeypatch.delenv("JOYEDIT_FAKE")
    refused = joyedit("run", made)
    assert refused.err == (
        "joyedit: error: out/a.png was made with the checkpoint Some-Folder: name its folder with -m\n"
    )
    assert joyedit("run", made, "-n").code == 0


def test_a_text_that_the_metadata_could_not_hold(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures/a.png", "-p", "x" * 70_000, *MADE, "--format", "jpg", "-o", "out", "-q")
    assert joyedit(*run).code == 0
    assert joyedit("run", "out/a.jpg", "-q").code == 0  # its record holds all of it
    Path("pictures/alone.jpg").write_bytes(Path("out/a.jpg").read_bytes())
    refused = joyedit("run", "pictures/alone.jpg")
    assert refused.code == 2
    assert "its metadata holds only the beginning of a long text" in refused.err


def test_from_python(made: Path) -> None:
    import joyedit

    assert joyedit.run(made, output="python").report.ok == 1
    assert joyedit.run(made, output="python", recipe_values={"steps": "1"}, input="pictures/a.png").report.ok == 1
    assert pixels("python/a_again.png") == pixels(made)
