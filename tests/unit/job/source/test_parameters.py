"""Typed parameters of recipes, their reader, matrices of recipes, and the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.matrix import SWEPT
from joyedit.job.source.parameter import Parameter
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.recipe_text import lines_about, record_of, write_new
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem, Settings


@pytest.mark.parametrize(
    ("parameter", "written", "read"),
    [
        (Parameter(kind="number"), "30.0", "30"),
        (Parameter(kind="number"), "+07.50", "7.5"),
        (Parameter(kind="number"), "-.5", "-0.5"),
        (Parameter(kind="number"), "-0", "0"),
        (Parameter(kind="number", minimum=-10), "-10", "-10"),
        (Parameter(kind="number", maximum=10), "10.5", None),
        (Parameter(kind="number"), "1e3", None),
        (Parameter(kind="number"), "x", None),
        (Parameter(kind="integer"), "3.0", "3"),
        (Parameter(kind="integer"), "3.5", None),
        (Parameter(kind="boolean"), " Yes ", "true"),
        (Parameter(kind="boolean"), "off", "false"),
        (Parameter(kind="boolean"), "maybe", None),
        (Parameter(kind="box"), "0.1, 0.2,0.5,1", "0.1,0.2,0.5,1"),
        (Parameter(kind="box"), "[10, 20, 30, 40]", "10,20,30,40"),
        (Parameter(kind="box"), "10,20,5,40", None),
        (Parameter(kind="box"), "1,2,3", None),
        (Parameter(kind="choice", choices=("a", "b")), "a", "a"),
        (Parameter(kind="choice", choices=("a", "b")), "A", None),
        (Parameter(), " as it is {x} ", " as it is {x} "),
    ],
)
def test_values(parameter: Parameter, written: str, read: str | None) -> None:
    assert parameter.read(written) == read
    problem = parameter.problem("it", written)
    assert (problem is None) == (read is not None)
    assert problem is None or problem.message.startswith("it must be ")


def test_what_a_value_puts_into_the_instruction() -> None:
    shadow = Parameter(kind="boolean", if_true=" Keep it.")
    assert (shadow.put("yes"), shadow.put("no")) == (" Keep it.", "")
    assert Parameter(kind="number").put("30.00") == "30"
    assert Parameter().put("30.00") == "30.00"


@pytest.mark.parametrize(
    ("parameter", "rule"),
    [
        (Parameter(kind="number", minimum=1, maximum=2.5), "a number from 1 to 2.5"),
        (Parameter(kind="number", minimum=1), "a number from 1"),
        (Parameter(kind="integer", maximum=2), "a whole number up to 2"),
        (Parameter(kind="boolean"), "true or false"),
        (Parameter(), "text"),
        (Parameter(kind="choice", choices=("a",)), "one of 'a'"),
    ],
)
def test_rules(parameter: Parameter, rule: str) -> None:
    assert parameter.rule == rule


def recipe(folder: Path, text: str) -> Recipe:
    (folder / "r.yaml").write_text(text)
    return load_recipe(str(folder / "r.yaml"))


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestError) as error:
        recipe(folder, text)
    return str(error.value).replace(str(folder / "r.yaml"), "r.yaml").split("\n")


GOOD = """\
instruction: "Turn it {angle}°{shadow}"
parameters:
  angle: {type: number, minimum: -90, maximum: 90, default: 15.0}
  shadow: {type: boolean, default: no, if_true: ", with its shadow"}
  box: {type: box, default: [0, 0, 0.5, 0.5]}
  count: {type: integer, choices: [1, 2]}
matrix:
  angle: [30, 60.0]
  steps: [3]
  seeds: 2
"""


def test_a_recipe_with_all_of_it(tmp_path: Path) -> None:
    read = recipe(tmp_path, GOOD.replace("  count: {type: integer, choices: [1, 2]}\n", ""))
    assert read.parameters["angle"].default == "15"
    assert read.render({"shadow": "true"}, None) == "Turn it 15°, with its shadow"
    assert (read.takes_box, read.parameters["box"].default) == (True, "0,0,0.5,0.5")
    assert read.matrix.size == 4
    assert [cell.suffix for cell in read.matrix.cells(7)][:2] == [
        "_angle-30_steps-3_seed-7",
        "_angle-30_steps-3_seed-8",
    ]
    assert read.matrix.first_values == {"angle": "30"}


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: nmber\n",
            [
                "r.yaml:4: the type of 'a' must be one of 'text', 'number', 'integer', 'choice', 'box', 'boolean', "
                "not 'nmber' (did you mean 'number'?)"
            ],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: choice\n",
            ["r.yaml:4: 'a' is of the type choice and has no choices"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: number\n    minimum: 3\n    default: 2\n    if_true: x\n",
            [
                "r.yaml:7: 'a' is of the type number and has no if_true (for the types boolean)",
                "r.yaml:6: the default of 'a' must be a number from 3, not '2'",
            ],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: number\n    minimum: 3\n    maximum: x\n",
            ["r.yaml:6: maximum must be a number, not 'x'"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: number\n    minimum: 3\n    maximum: 2\n",
            ["r.yaml:5: the minimum of 'a' is more than its maximum"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: integer\n    choices: [1, 2.5]\n",
            ["r.yaml:5: a choice of 'a' must be a whole number, not '2.5'"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: box\n",
            [
                "r.yaml:4: a box is always the parameter 'box', and 'box' is always a box "
                "(give this parameter another name or type)"
            ],
        ),
        (
            "parameters:\n  box:\n",
            ["r.yaml:2: a recipe with a box needs an instruction that names it"],
        ),
        (
            "instruction: '{a}'\nparameters:\n  a:\n    type: boolean\n    if_true: [x]\n",
            ["r.yaml:5: if_true must be text, not a list (write it in quotes)"],
        ),
        (
            "instruction: '{a}'\nparameters: {a: {choices: [x, y]}}\nmatrix:\n  a: [x, z]\n  b: [1]\n  steps: 4\n",
            [
                "r.yaml:4: matrix: a: a must be one of 'x', 'y', not 'z' (valid: x, y)",
                f"r.yaml:5: matrix: cannot change 'b' (valid: {', '.join(SWEPT)}, a)",
                "r.yaml:6: matrix: steps must be a list of values, not 4 (steps: [first, second])",
            ],
        ),
        (
            "matrix:\n  seeds: 2\n  seed: [1, 2]\n",
            ["r.yaml:2: matrix: seed and seeds are one axis (keep one of them)"],
        ),
        ("matrix: [x]\n", ["r.yaml:1: matrix must be a mapping, not a list"]),
        ("matrix: {seeds: 0}\n", [
            "r.yaml:1: matrix: seeds is from 1 to 10000 seeds, not 0 (one seed is 'seed' under settings)"
        ]),
    ],
)  # fmt: skip
def test_faults_of_a_file(tmp_path: Path, text: str, faults: list[str]) -> None:
    assert refused(tmp_path, text) == faults


def items(folder: Path, name: str, *lines: str, prompt: str | None = None, **values: str) -> list[EditItem]:
    (folder / "a.png").touch()
    (folder / "m.jsonl").write_text("".join(f"{line}\n" for line in lines))
    read = load_recipe(name)
    options = SourceOptions(
        output=folder / "out", recipe=read, recipe_values=values, prompt=prompt, matrix=read.matrix.without(set(values))
    )
    opened = open_source(str(folder / "m.jsonl"), options)
    opened.check()
    return [item for item in opened.items() if isinstance(item, EditItem)]


def test_turnaround_is_eight_edits_unless_somebody_names_the_side(tmp_path: Path) -> None:
    line = '{"image": "a.png", "object": "cup"}'
    found = items(tmp_path, "turnaround", line)
    assert [item.instruction for item in found][:2] == [
        "Rotate the cup to show the front side view.",
        "Rotate the cup to show the front right side view.",
    ]
    assert [item.id for item in found][1] == "a_view-front-right"
    assert len(found) == 8
    (one,) = items(tmp_path, "turnaround", line, view="rear")
    assert (one.id, one.instruction) == ("a", "Rotate the cup to show the rear side view.")
    mixed = items(tmp_path, "turnaround", '{"image": "a.png", "object": "cup", "view": "left", "id": "l"}', line)
    assert [item.id for item in mixed][:2] == ["l", "a_view-front"]


def test_two_edits_of_one_id_are_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="the id 'x_view-left', which a matrix gives, is taken by line 1"):
        items(
            tmp_path,
            "turnaround",
            '{"image": "a.png", "object": "cup", "id": "x"}',
            '{"image": "a.png", "object": "cup", "id": "x_view-left", "view": "left", "output": "y.png"}',
        )


def test_a_prompt_beside_a_recipe_with_its_own_instruction(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        items(tmp_path, "camera", '{"image": "a.png"}', prompt="x")
    assert str(error.value) == (
        "the recipe 'camera' has its own instruction and takes none with -p (leave -p out, or leave --recipe out)"
    )
    assert items(tmp_path, "draft", '{"image": "a.png"}', prompt="x")[0].sampling.steps == 12
    # What a line says itself is stronger than any recipe.
    assert items(tmp_path, "camera", '{"image": "a.png", "instruction": "y"}')[0].instruction == "y"


def test_values_of_flags_and_lines_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        items(tmp_path, "camera", '{"image": "a.png"}', yaw="300", pitch="x", zoom="inn")
    assert str(error.value).split("\n") == [
        "--set yaw must be a number from -180 to 180, not '300'",
        "--set pitch must be a number from -90 to 90, not 'x'",
        "--set zoom must be one of 'in', 'out', 'unchanged', not 'inn' (did you mean 'in'?)",
    ]
    with pytest.raises(ManifestError) as wrong:
        items(tmp_path, "restore", '{"image": "a.png", "colour": true}', '{"image": "a.png", "colour": [1]}')
    assert str(wrong.value).split("/")[-1] == (
        "m.jsonl:2: colour must be text or a number, not a list (write it in quotes)"
    )
    (made,) = items(tmp_path, "restore", '{"image": "a.png", "colour": true}')
    assert "natural, realistic colours. Keep" in made.instruction
    assert "colours" not in items(tmp_path, "restore", '{"image": "a.png"}')[0].instruction


def test_draft_and_quality_are_settings(tmp_path: Path) -> None:
    assert load_recipe("quality").settings == Settings(steps=50, guidance_scale=4.0, basesize=1024)
    assert load_recipe("quality").instruction is None


def test_object_move_is_worded_as_the_model_was_trained() -> None:
    made = load_recipe("object-move").render({"object": "cup", "box": "0,0,1,1"}, None)
    assert made == "Move the cup into the red box and finally remove the red box."
    with pytest.raises(ManifestError, match="needs a value for 'box'"):
        load_recipe("object-move").render({"object": "cup"}, None)


@pytest.mark.parametrize(("mine", "theirs"), [("turnaround", "object-rotate"), ("camera-orbit", "camera")])
def test_a_matrix_has_the_words_of_its_recipe(mine: str, theirs: str) -> None:
    assert load_recipe(mine).instruction == load_recipe(theirs).instruction


def test_a_new_recipe_is_valid_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_new("wall")
    assert path == Path("wall.yaml")
    read = load_recipe(str(path))
    assert (read.name, list(read.parameters)) == ("wall", ["thing", "colour"])
    # What stands behind a comment is valid too.
    text = path.read_text()
    for name in ("angle", "shadow", "box"):
        text = text.replace(f"  # {name}:", f"  {name}:")
    text = "\n".join(
        line.replace("  #  ", "    ", 1) if line.startswith("  #   ") else line for line in text.split("\n")
    )
    text = text.replace(
        "# matrix:\n#   colour: [red, blue]\n#   seeds: 2", "matrix:\n  colour: [red, blue]\n  seeds: 2"
    )
    text = text.replace("{colour}.", "{colour}.{angle}{shadow}")
    (tmp_path / "all.yaml").write_text(text)
    assert load_recipe("all.yaml").matrix.size == 4
    assert list(load_recipe("all.yaml").parameters) == ["thing", "colour", "angle", "shadow", "box"]
    with pytest.raises(UsageError, match="is there already, and is not replaced"):
        write_new("wall.yaml")
    with pytest.raises(UsageError, match="cannot be the name of a recipe"):
        write_new("a b")
    with pytest.raises(UsageError, match="cannot write no/such"):
        write_new("no/such")


def test_everything_about_a_recipe(tmp_path: Path) -> None:
    read = recipe(
        tmp_path, GOOD.replace("{shadow}", "{shadow} {count}").replace("matrix:", "settings:\n  steps: 3\nmatrix:")
    )
    told = "\n".join(lines_about(read, "r.yaml", Path("r.yaml")))
    assert told == (
        "r\n"
        "file: r.yaml\n"
        "instruction:\n"
        "  Turn it {angle}°{shadow} {count}\n"
        "parameters:\n"
        "  angle: number from -90 to 90, 2 values in turn\n"
        "  shadow: true or false, default false\n"
        "      true puts in ', with its shadow', false ''\n"
        "  box: four numbers [left, top, right, bottom], in pixels or in fractions from 0 to 1, default 0,0,0.5,0.5\n"
        "  count: one of '1', '2', must be given\n"
        "settings: steps 3\n"
        "matrix: 4 edits of each item (angle 30, 60 x steps 3 x 2 seeds)\n"
        "example: joyedit run photos/ --recipe r.yaml --set count=1 -m MODEL -o r"
    )
    assert record_of(read)["matrix"] == {"angle": ["30", "60"], "steps": [3], "seed": 2}
    assert record_of(load_recipe("draft"))["takes_prompt"]
