"""The JSON Schemas against good and bad examples, and against what joyedit itself takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from joyedit.job.source.json_schema import ABOUT, manifest_schema, recipe_schema
from joyedit.job.source.recipe_reader import file_of, list_recipes, load_recipe
from joyedit.job.source.recipe_text import NEW
from joyedit.job.source.schema import ALIASES, ITEM_KEYS

MANIFEST, RECIPE = manifest_schema(), recipe_schema()


def fits(schema: dict[str, Any], value: object) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize("schema", [MANIFEST, RECIPE, manifest_schema(load_recipe("object-move"))])
def test_the_schemas_are_valid(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_has_a_description() -> None:
    keys = MANIFEST["$defs"]["item"]["properties"]
    assert set(keys) == {*ITEM_KEYS, *ALIASES}
    assert set(ABOUT) == set(ITEM_KEYS)
    assert all(keys[key]["description"] for key in keys)
    recipe_keys = [*RECIPE["properties"].values(), *RECIPE["$defs"]["parameter"]["properties"].values()]
    assert all(key["description"] for key in recipe_keys)


MORE = {"steps": 3, "matrix": {"steps": [1, 2], "seeds": 3}}
GOOD = [
    {"image": "a.jpg", "instruction": "x", "seed": 7, "steps": 30},
    {"file_name": "a.jpg", "prompt": "x", "guidance_scale": 2.5, "basesize": 512, "output": None},
    {"images": ["a.jpg", "b.jpg"], "instruction": "x", "id": "deep/x", "width": 512, "height": 512},
    {"image": "a.jpg", "box": [0.1, 0.2, 0.5, 1], "lora": [{"file": "l.safetensors", "scale": 0.5}, "m:2"]},
    {"image": "a.jpg", "mask": "m.png"},
    {"image": "a.jpg", "box": "1,2,3,4", "lora": "l.safetensors", "negative_prompt": ""},
    {"image": "a.jpg", "seeds": 3, "sweep": {"steps": [20, 40], "guidance_scale": [3, 4.5]}},
    {"image": "a.jpg", "seeds": [7, 8], "sweep": {"negative_prompt": ["", "x"], "colour": ["red"]}},
    {"image": "a.jpg", "seeds": None, "sweep": None},
]
BAD = [
    {"image": "a.jpg", "promt": "x"},
    {"image": ["a.jpg"]},
    {"image": "a.jpg", "mask": ["m.png"]},
    {"image": "a.jpg", "mask": ""},
    {"image": ""},
    {"images": "a.jpg"},
    {"images": ["x"] * 65},
    {"seed": -1},
    {"seed": 1.5},
    {"steps": 0},
    {"steps": "30"},
    {"guidance_scale": 101},
    {"basesize": 500},
    {"width": 8},
    {"box": [1, 2, 3]},
    {"lora": {"file": "x", "size": 2}},
    {"instruction": "  "},
    {"seeds": "many"},
    {"seeds": 0},
    {"seeds": [-1]},
    {"sweep": [20]},
    {"sweep": {"steps": 20}},
    {"sweep": {"steps": [0]}},
]


@pytest.mark.parametrize("item", GOOD)
def test_good_items(item: dict[str, Any]) -> None:
    for manifest in (item, [item], {"items": [item]}, {"items": [item], "defaults": MORE, "x-a": [1]}):
        assert fits(MANIFEST, manifest), manifest


@pytest.mark.parametrize("item", BAD)
def test_bad_items(item: dict[str, Any]) -> None:
    for manifest in (item, [item], {"items": [item]}):
        assert not fits(MANIFEST, manifest), manifest


@pytest.mark.parametrize(
    "manifest",
    [
        [], 3, {"items": []}, {"defaults": {}}, {"items": [{}], "more": 1}, {"items": [{}], "defaults": {"id": "x"}},
        {"items": [{}], "defaults": {"matrix": {"seeds": 0}}},
    ],
)  # fmt: skip
def test_bad_manifests(manifest: object) -> None:
    assert not fits(MANIFEST, manifest)


def test_the_parameters_of_a_recipe_are_keys() -> None:
    item = {"image": "a.jpg", "yaw": 30, "zoom": "in"}
    assert not fits(MANIFEST, item)
    camera = manifest_schema(load_recipe("camera"))
    assert fits(camera, item)
    assert fits(camera, {"items": [item], "defaults": {"pitch": "10"}})
    assert not fits(camera, item | {"yaw": 300})
    assert not fits(camera, item | {"zoom": "near"})
    move = manifest_schema(load_recipe("object-move"))
    assert fits(move, {"items": [{"image": "a.jpg", "object": "cup"}], "defaults": {"box": [0, 0, 1, 1]}})
    restore = manifest_schema(load_recipe("restore"))
    assert fits(restore, {"image": "a.jpg", "colour": True})
    assert not fits(restore, {"image": "a.jpg", "colour": "maybe"})


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_the_shipped_recipes_fit(recipe: Any) -> None:
    assert fits(RECIPE, yaml.safe_load(file_of(recipe.name).read_text()))


def test_a_new_recipe_fits() -> None:
    assert fits(RECIPE, yaml.safe_load(NEW.format(name="x", file=Path("x.yaml"))))


@pytest.mark.parametrize(
    "text",
    [
        "name: ''",
        "instructions: x",
        "settings: {step: 4}",
        "settings: {basesize: 500}",
        "parameters: {'a b': {}}",
        "parameters: {a: {type: nmber}}",
        "parameters: {a: {type: text, minimum: 3}}",
        "parameters: {a: {type: number, if_true: x}}",
        "parameters: {a: {type: boolean, choices: [x]}}",
        "parameters: {a: {choices: []}}",
        "matrix: {steps: 4}",
        "matrix: {steps: [0]}",
        "matrix: {seeds: 0}",
        "matrix: {view: []}",
    ],
)
def test_bad_recipes(text: str) -> None:
    assert not fits(RECIPE, yaml.safe_load(text))
