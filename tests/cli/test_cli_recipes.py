"""Recipes on the command line: each shipped one runs, the box is drawn, and what `recipes` and `schema` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

from joyedit.job.source.recipe_reader import list_recipes
from joyedit.runtime.fake import FakeBackend
from support.pictures import read_metadata

FAKE = ("-m", "fake", "--steps", "1", "--basesize", "256")
VALUES = {
    "object": "cup", "view": "rear left", "box": "0.1,0.2,0.5,0.6", "background": "a beach", "old": "OPEN",
    "new": "CLOSED", "style": "a watercolour painting",
}  # fmt: skip
WORDS = {
    "object-rotate": "Rotate the cup to show the rear left side view.",
    "object-move": "Move the cup into the red box and finally remove the red box.",
    "text-replace": 'Replace the text "OPEN" with "CLOSED".',
    "style": "Turn this picture into a watercolour painting.",
    "background-replace": "Replace the background with a beach.",
    "product-white": "Leave a soft, natural shadow below the product. Keep",
    "restore": "clear again. Keep",
    "draft": "Make it red.",
    "quality": "Make it red.",
}


def records(folder: str = "edited") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_every_shipped_recipe_runs(joyedit: Command, pictures: Path, recipe: Any) -> None:
    needed = [name for name, one in recipe.parameters.items() if one.default is None and not recipe.matrix.axis(name)]
    values = [word for name in needed for word in ("--set", f"{name}={VALUES[name]}")]
    prompt = () if recipe.instruction is not None else ("-p", "Make it red.")
    run = ("run", "pictures", "--recipe", recipe.name, *values, *prompt)
    dry = joyedit(*run, *FAKE, "-n")
    assert dry.code == 0, dry.err
    ended = joyedit(*run, *FAKE)
    assert ended.code == 0, ended.err
    made = records()
    assert len(made) == 3 * recipe.matrix.size
    assert all(WORDS.get(recipe.name, "") in record["instruction"] for record in made)
    assert "{" not in made[0]["instruction"]
    assert joyedit("verify", "edited").code == 0
    # Without the flags for a quick test, the recipe's own settings are in force.
    settings = joyedit(*run, "-n", "-m", "fake", "-o", "other").err
    for name, value in (("steps", recipe.settings.steps), ("basesize", recipe.settings.basesize)):
        assert value is None or f"{name}: {value} (recipe {recipe.name})" in settings


def test_a_recipe_without_its_values(joyedit: Command, pictures: Path) -> None:
    refused = joyedit("run", "pictures", "--recipe", "object-move", "--set", "object=cup", *FAKE, "-n")
    assert (refused.code, refused.err) == (
        2,
        "joyedit: error: pictures: the recipe 'object-move' needs a value for 'box' "
        "(give it with --set box=..., or as a key of the item)\n",
    )
    refused = joyedit("run", "pictures", "--recipe", "camera", "-p", "x", *FAKE, "-n")
    assert "the recipe 'camera' has its own instruction and takes none with -p" in refused.err


def seen_by_the_model(monkeypatch: pytest.MonkeyPatch) -> dict[str, Image.Image]:
    seen: dict[str, Image.Image] = {}
    encode = FakeBackend.encode

    def look(self: FakeBackend, batch: Any) -> Any:
        seen.update({ready.item.id: ready.pictures[0] for ready in batch.items if ready.pictures})
        return encode(self, batch)

    monkeypatch.setattr(FakeBackend, "encode", look)
    return seen


def is_red(image: Image.Image, x: int, y: int) -> bool:
    red, green, blue = image.getpixel((x, y))  # type: ignore[misc]
    return bool(red > 200 and green < 60 and blue < 60)


def test_the_model_sees_the_box_and_the_record_has_it(
    joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = seen_by_the_model(monkeypatch)
    lines = [
        {"image": "pictures/deep/c.png", "id": "fractions", "box": [0.25, 0.25, 0.75, 0.75]},
        {"image": "pictures/deep/c.png", "id": "pixels", "box": "25,25,75,75"},
        {"image": "pictures/deep/c.png", "id": "plain"},
        {"image": "pictures/deep/c.png", "id": "outside", "box": [50, 50, 101, 60]},
    ]
    Path("m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = ("run", "m.jsonl", "-p", "Move it into the red box.", *FAKE)
    dry = joyedit(*run, "-n")
    assert dry.code == 3
    assert "from pictures/deep/c.png (100 x 100), red box 25,25,75,75" in dry.out
    assert "failed: outside: bad_box: pictures/deep/c.png: the box 50,50,101,60 leads out of the picture" in dry.out
    ended = joyedit(*run)
    assert ended.code == 3
    assert is_red(seen["fractions"], 65, 128)
    assert is_red(seen["pixels"], 65, 128)
    assert not is_red(seen["plain"], 65, 128)
    assert not is_red(seen["fractions"], 128, 128)
    found = {record["id"]: record for record in records()}
    assert found["fractions"]["settings"]["box"] == [0.25, 0.25, 0.75, 0.75]
    assert found["pixels"]["settings"]["box"] == [25, 25, 75, 75]
    assert "box" not in found["plain"]["settings"]
    assert found["outside"]["error"]["code"] == "bad_box"
    assert read_metadata(Path("edited/pixels.png"))["box"] == "25,25,75,75"
    assert json.loads(Path("edited/failed.jsonl").read_text())["box"] == [50, 50, 101, 60]
    # Another box is another edit of the same item.
    lines[0]["box"] = [0.25, 0.25, 0.75, 0.8]
    Path("m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines[:3]))
    again = joyedit(*run)
    assert "1 finished picture is edited again" in again.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            '"box": [1, 2, 3]',
            "box must be four numbers [left, top, right, bottom], in pixels or in fractions from 0 to 1",
        ),
        ('"box": [3, 2, 1, 4]', "not '[3.0, 2.0, 1.0, 4.0]' (left is less than right, top is less than bottom)"),
        ('"box": "x"', "box must be four numbers"),
        ('"box": {"a": 1}', "box must be four numbers"),
        (
            '"images": ["pictures/a.png", "pictures/b.jpg"], "box": [0, 0, 1, 1]',
            "a box is drawn on one picture, and this",
        ),
    ],
)
def test_faults_of_boxes(joyedit: Command, pictures: Path, line: str, told: str) -> None:
    image = "" if "images" in line else '"image": "pictures/a.png", '
    Path("m.jsonl").write_text(f"{{{image}{line}}}\n")
    refused = joyedit("run", "m.jsonl", "-p", "x", *FAKE, "-n")
    assert refused.code == 2
    assert told in refused.err


def boxes(folder: str) -> dict[str, Any]:
    return {record["id"]: record["settings"].get("box") for record in records(folder)}


def test_a_box_in_a_table_and_under_defaults(joyedit: Command, pictures: Path) -> None:
    Path("m.csv").write_text('image,box\npictures/a.png,"0.1,0.1,0.5,0.5"\npictures/b.jpg,\n')
    assert joyedit("run", "m.csv", "-p", "x", *FAKE, "-o", "one").code == 0
    assert boxes("one") == {"pictures/a": [0.1, 0.1, 0.5, 0.5], "pictures/b": None}
    Path("m.yaml").write_text(
        "defaults: {box: [0.1, 0.1, 0.5, 0.5], object: cup}\n"
        "items:\n- image: pictures/a.png\n- image: pictures/b.jpg\n  box: [0, 0, 1, 1]\n"
    )
    assert joyedit("run", "m.yaml", "--recipe", "object-move", *FAKE, "-o", "two").code == 0
    assert boxes("two") == {"pictures/a": [0.1, 0.1, 0.5, 0.5], "pictures/b": [0, 0, 1, 1]}
    sweep = ("--recipe", "object-move", "--set", "object=cup", "--sweep", "box=[[0,0,1,1],[0,0,0.5,0.5]]")
    assert joyedit("run", "pictures/a.png", *sweep, *FAKE, "-o", "three").code == 0
    assert sorted(record["settings"]["box"] for record in records("three")) == [[0, 0, 0.5, 0.5], [0, 0, 1, 1]]


def test_show_new_and_schema(joyedit: Command) -> None:
    shown = joyedit("recipes", "show", "camera")
    assert (shown.code, shown.err) == (0, "")
    assert "  yaw: number from -180 to 180, default 0\n" in shown.out
    assert json.loads(joyedit("recipes", "show", "turnaround", "--json").out)["edits_of_each_item"] == 8
    assert joyedit("recipes", "show", "camra").err.startswith(
        "joyedit: error: no recipe is named 'camra' (did you mean"
    )
    assert joyedit("recipes", "new", "wall").err == (
        "wrote wall.yaml: change it, and see what it does with joyedit recipes show wall.yaml\n"
    )
    assert joyedit("recipes", "show", "wall.yaml").code == 0
    assert joyedit("recipes", "new", "wall").code == 2
    assert joyedit("recipes").out.count("\n") > 12
    assert json.loads(joyedit("schema", "recipe").out)["title"] == "joyedit recipe"
    assert "yaw" in joyedit("schema", "manifest", "--recipe", "camera").out
    assert joyedit("schema", "recipe", "--recipe", "camera").code == 2
    assert joyedit("schema", "x").code == 2
