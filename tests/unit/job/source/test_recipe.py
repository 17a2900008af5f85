from __future__ import annotations

import os
from pathlib import Path

import pytest

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.recipe_reader import list_recipes, load_recipe
from joyedit.job.spec import Settings

GOOD = """\
name: paint
description: Paint a thing.
instruction: "Paint the {thing} {colour}. {instruction} {{literal}}"
parameters:
  thing:
    description: What to paint.
  colour: {default: red, choices: [red, blue, 7]}
settings: {steps: 5, guidance_scale: 2, prompt: }
"""


def write(folder: Path, text: str | bytes) -> str:
    file = folder / "r.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(file)


def refused(folder: Path, text: str | bytes) -> list[str]:
    file = write(folder, text)
    with pytest.raises(ManifestError) as error:
        load_recipe(file)
    assert error.value.exit_code == 2
    return str(error.value).replace(file, "r.yaml").split("\n")


def paint(folder: Path) -> Recipe:
    return load_recipe(write(folder, GOOD.replace(", prompt: ", "")))


NAMES = [
    "background-replace", "camera", "camera-orbit", "draft", "object-move", "object-rotate", "product-white", "quality",
    "restore", "style", "text-replace", "turnaround",
]  # fmt: skip


def test_the_packaged_recipes() -> None:
    assert [recipe.name for recipe in list_recipes()] == NAMES
    assert all(recipe.description for recipe in list_recipes())


def test_camera_is_worded_as_the_model_was_trained() -> None:
    recipe = load_recipe("camera")
    assert recipe.render({"yaw": "45", "pitch": "-10.5", "zoom": "in"}, None) == (
        "Move the camera.\n"
        "- Camera rotation: Yaw 45°, Pitch -10.5°.\n"
        "- Camera zoom: in.\n"
        "- Keep the 3D scene static; only change the viewpoint."
    )
    assert recipe.render({}, None) == (
        "Move the camera.\n- Camera rotation: Yaw 0°, Pitch 0°.\n- Camera zoom: unchanged.\n"
        "- Keep the 3D scene static; only change the viewpoint."
    )
    assert recipe.parameters["zoom"].choices == ("in", "out", "unchanged")


def test_object_rotate_is_worded_as_the_model_was_trained() -> None:
    recipe = load_recipe("object-rotate")
    made = recipe.render({"object": "chair", "view": "rear left"}, None)
    assert made == "Rotate the chair to show the rear left side view."
    assert recipe.parameters["view"].choices == (
        "front", "right", "left", "rear", "front right", "front left", "rear right", "rear left",
    )  # fmt: skip


def test_draft_sets_and_says_nothing() -> None:
    recipe = load_recipe("draft")
    assert recipe.instruction is None
    assert recipe.settings == Settings(steps=12, basesize=512)
    assert recipe.render({}, "make it {red}") == "make it {red}"
    with pytest.raises(ManifestError, match="has no instruction, and none was given"):
        recipe.render({}, None)


def test_a_template_is_filled_once(tmp_path: Path) -> None:
    recipe = paint(tmp_path)
    assert recipe.render({"thing": "{colour}"}, "{thing}") == "Paint the {colour} red. {thing} {literal}"
    assert recipe.render({"thing": "door", "colour": "7"}, "Now.") == "Paint the door 7. Now. {literal}"
    assert recipe.settings == Settings(steps=5, guidance_scale=2.0)


def test_values_are_checked_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as error:
        paint(tmp_path).render({"color": "red", "colour": "bleu"}, None)
    assert str(error.value).replace(f"{tmp_path}/", "").split("\n") == [
        "r.yaml: the recipe 'paint' has no parameter 'color' (did you mean 'colour'?)",
        "r.yaml: colour must be one of 'red', 'blue', '7', not 'bleu' (did you mean 'blue'?)",
        "r.yaml: the recipe 'paint' needs a value for 'thing' (give it with --set thing=..., or as a key of the item)",
        "r.yaml: the recipe 'paint' needs an instruction from each item (give it with -p, or as 'instruction')",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "camra",
            "no recipe is named 'camra' (did you mean 'camera'?; a recipe file ends in .yaml)",
        ),
        (
            "zzz",
            f"no recipe is named 'zzz' (valid: {', '.join(NAMES)}; a recipe file ends in .yaml)",
        ),
        ("no/such.yaml", "no/such.yaml: cannot read this recipe: No such file or directory"),
    ],
)
def test_a_recipe_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe(name)
    assert str(error.value) == message


def test_a_name_that_no_file_has() -> None:
    """Python's own words for it depend on its version."""
    with pytest.raises(UsageError, match=r"^'a\\x00\.yaml': cannot read this recipe: .*embedded null"):
        load_recipe("a\0.yaml")


KEYS = "its keys: name, description, instruction, parameters, settings, matrix"
PARAMETER_KEYS = "description, type, default, choices, minimum, maximum, if_true, if_false"
PLACE = "a place is {name}; braces are written {{ and }}"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", [f"r.yaml:1: a recipe is a mapping, not nothing ({KEYS})"]),
        ("- a\n", [f"r.yaml:1: a recipe is a mapping, not a list ({KEYS})"]),
        (
            "name: x\ninstructions: y\n",
            ["r.yaml:2: unknown key 'instructions' (did you mean 'instruction'?)"],
        ),
        ("name: x\nname: y\n", ["r.yaml:1: the key 'name' is given twice (keep one of them)"]),
        ("name: [x]\n", ["r.yaml:1: name must be text that is not empty, not a list"]),
        (
            "settings:\n  step: 4\n  guidance_scale: .nan\n  basesize: 500\n",
            [
                "r.yaml:2: unknown key 'step' (did you mean 'steps'?)",
                "r.yaml:3: guidance_scale must be a number from 0 to 100, not nan",
            ],
        ),
        ("settings:\n  basesize: 500\n", ["r.yaml:2: basesize must be one of 256, 512, 768, 1024, not 500"]),
        ("settings: {steps: yes}\n", ["r.yaml:1: steps must be a whole number from 1 to 1000, not true"]),
        ("settings: {instruction: x}\n", [
            "r.yaml:1: unknown key 'instruction' (valid: steps, guidance_scale, seed, negative_prompt, "
            "basesize, width, height, size, fit, lora)"
        ]),
        ("settings: 4\n", ["r.yaml:1: settings must be a mapping, not 4"]),
        (
            "instruction: go {there.x} {0} {a!r} {a:3} {}\nparameters: {a: }\n",
            [
                f"r.yaml:1: the instruction cannot have the place '{{there.x}}' ({PLACE})",
                f"r.yaml:1: the instruction cannot have the place '{{0}}' ({PLACE})",
                f"r.yaml:1: the instruction cannot have the place '{{a!r}}' ({PLACE})",
                f"r.yaml:1: the instruction cannot have the place '{{a:3}}' ({PLACE})",
                f"r.yaml:1: the instruction cannot have the place '{{}}' ({PLACE})",
            ],
        ),
        (
            "instruction: go {\n",
            [
                "r.yaml:1: the braces of the instruction do not match: "
                "Single '{' encountered in format string "
                f"({PLACE})"
            ],
        ),
        (
            "instruction: see {vew}\nparameters:\n  view: {}\n",
            [
                "r.yaml:1: the instruction names an unknown parameter 'vew' (did you mean 'view'?)",
                "r.yaml:3: the instruction has no place for the parameter 'view' (write {view} where it belongs)",
            ],
        ),
        (
            "instruction: '{seed}'\nparameters:\n  seed: {}\n",
            ["r.yaml:3: a parameter cannot have the name 'seed' (manifests have a key of that name)"],
        ),
        (
            "instruction: '{a} {b}'\nparameters:\n  a: 3\n  b:\n    defalt: 4\n  c d: {}\n",
            [
                f"r.yaml:3: a parameter is a mapping, not 3 (its keys: {PARAMETER_KEYS})",
                "r.yaml:5: unknown key 'defalt' (did you mean 'default'?)",
                "r.yaml:6: 'c d' cannot be the name of a parameter (it can have letters, digits, _ and -)",
                "r.yaml:6: the instruction has no place for the parameter 'c d' (write {c d} where it belongs)",
            ],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    default: x\n    choices: [y, z]\n",
            ["r.yaml:4: the default of 'a' must be one of 'y', 'z', not 'x' (valid: y, z)"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    choices: [off]\n",
            ["r.yaml:4: choices must be text or a number, not false (write it in quotes)"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    choices: []\n",
            ["r.yaml:4: choices must be a list, not an empty list"],
        ),
        ("name: !!python/object:os.system x\n", [
            "r.yaml:1: the tag 'tag:yaml.org,2002:python/object:os.system' is refused "
            "(plain YAML has no tags)"
        ]),
        ("a: b\n---\nc: d\n", ["r.yaml:2: a second YAML document begins here (keep one in each file)"]),
        ("name: x\ninstruction: [\n", [
            "r.yaml:3: broken YAML: while parsing a flow node did not find expected node content"
        ]),
        (b"name: x\ninstruction: \xff\n", ["r.yaml:2: not valid UTF-8 (save the file as UTF-8)"]),
    ],
)  # fmt: skip
def test_faults_name_file_and_line(tmp_path: Path, text: str | bytes, faults: list[str]) -> None:
    assert refused(tmp_path, text) == faults


def test_the_name_is_that_of_the_file_by_default(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "settings: {steps: 3}")).name == "r"


@pytest.mark.parametrize("has_writer", [True, False])
def test_a_recipe_that_is_a_pipe_is_refused_at_once(tmp_path: Path, has_writer: bool) -> None:
    path = tmp_path / "recipe.yaml"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR) if has_writer else None
    with pytest.raises(UsageError, match="this recipe is no file"):
        load_recipe(str(path))
    if writer is not None:
        os.close(writer)
