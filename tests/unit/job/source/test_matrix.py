"""A matrix: axes, cells, the ids that they give, and every fault of `--seeds` and `--sweep`."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.matrix import Axis, Matrix, slug
from joyedit.job.source.matrix_reader import flag_matrix
from joyedit.job.source.name_template import read_template
from joyedit.job.source.names import name_problem
from joyedit.job.source.recipe import Recipe
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, Settings


def matrix(*sweeps: str, seeds: str | None = None, recipe: Recipe | None = None, **flags: int) -> Matrix:
    return flag_matrix(seeds, sweeps, recipe, Settings(**flags), {})  # type: ignore[arg-type]


def faults(*sweeps: str, seeds: str | None = None, recipe: Recipe | None = None, **flags: int) -> list[str]:
    with pytest.raises(UsageError) as refused:
        matrix(*sweeps, seeds=seeds, recipe=recipe, **flags)
    return str(refused.value).split("\n")


def test_seeds_from_the_item_on_and_seeds_of_a_list() -> None:
    counted = matrix(seeds="3")
    assert [cell.settings["seed"] for cell in counted.cells(7)] == [7, 8, 9]
    assert [cell.suffix for cell in counted.cells(7)] == ["_seed-7", "_seed-8", "_seed-9"]
    assert [cell.settings["seed"] for cell in matrix(seeds="5,1").cells(7)] == [5, 1]
    assert (counted.size, counted.text) == (3, "3 seeds")


def test_the_last_axis_changes_fastest() -> None:
    made = matrix("guidance_scale=3,4.5", "steps=20,40", seeds="2")
    assert made.size == 8
    assert [cell.suffix for cell in made.cells(1)][:3] == [
        "_seed-1_guidance_scale-3_steps-20",
        "_seed-1_guidance_scale-3_steps-40",
        "_seed-1_guidance_scale-4.5_steps-20",
    ]
    assert made.text == "2 seeds x guidance_scale 3, 4.5 x steps 20, 40"
    assert made.mean("steps", 10) == 30
    assert made.mean("basesize", 1024) == 1024


def test_texts_with_commas_are_a_json_list() -> None:
    made = matrix('negative_prompt=["", "red, blue"]')
    assert [cell.settings["negative_prompt"] for cell in made.cells(0)] == ["", "red, blue"]
    assert len({cell.suffix for cell in made.cells(0)}) == 2


@pytest.mark.parametrize(
    ("sweeps", "more", "told"),
    [
        ((), {"seeds": "x"}, ["--seeds is a count such as 4, or a list of seeds such as 1,2,3, not 'x'"]),
        ((), {"seeds": "0"}, ["--seeds is from 1 to 10000 seeds, not 0 (one seed is --seed 0)"]),
        ((), {"seeds": "1,1"}, ["--seeds: 1 is given twice (keep one of them)"]),
        ((), {"seeds": "1,2", "seed": 3}, ["--seed and a list of --seeds exclude each other (leave --seed out)"]),
        (
            (),
            {"seeds": "2", "seed": 2**64 - 1},
            ["--seeds 2 from the seed 18446744073709551615 on leads beyond the largest seed"],
        ),
        (("steps",), {}, ["--sweep takes KEY=VALUE,VALUE, for example steps=20,40, not 'steps'"]),
        (("step=1",), {}, ["--sweep cannot change 'step' (did you mean 'steps'?)"]),
        (
            ("steps=1,x,0",),
            {},
            [
                "--sweep steps: steps must be a whole number from 1 to 1000, not 'x'",
                "--sweep steps: steps must be a whole number from 1 to 1000, not 0",
            ],
        ),
        (
            ("steps=1,,2",),
            {},
            ["--sweep steps: a value is empty (give several values, with commas between them, or a JSON list)"],
        ),
        (
            ("steps=[]",),
            {},
            ["--sweep steps has no values (give several values, with commas between them, or a JSON list)"],
        ),
        (("steps=[1",), {}, ["--sweep steps: this is no JSON list: '[1'"]),
        (("steps=1,2", "steps=3"), {}, ["two flags sweep steps (put all its values into one --sweep)"]),
        (("seed=1,2",), {"seeds": "2"}, ["two flags sweep seed (put all its values into one --sweep)"]),
        (
            ("steps=1,2",),
            {"steps": 3},
            ["--steps gives one value, and --sweep steps gives several (keep one of them)"],
        ),
        (
            ("steps=[" + ",".join(map(str, range(1, 102))) + "]",),
            {"seeds": "100"},
            ["the matrix has 10,100 edits of each item, and 10,000 edits of one item are the most"],
        ),
    ],
)
def test_faults(sweeps: tuple[str, ...], more: dict[str, int], told: list[str]) -> None:
    assert faults(*sweeps, **more) == told  # type: ignore[arg-type]


VALUES = st.one_of(
    st.integers(-(2**64), 2**64), st.floats(allow_nan=False, allow_infinity=False, width=16), st.text(max_size=40)
)


@given(st.lists(VALUES, min_size=2, max_size=20))
def test_other_values_have_other_names(values: list[int | float | str]) -> None:
    different = {f"{value:.12g}" if isinstance(value, float) else str(value) for value in values}
    slugs = {slug(value) for value in values}
    assert len(slugs) == len(different)
    for made in slugs:
        assert "_" not in made
        assert name_problem(f"x_steps-{made}") is None


def test_a_word_and_a_dash_are_two_values() -> None:
    assert slug("front left") == "front-left"
    assert slug("front-left") != "front-left"
    assert slug("Red") != slug("red")
    assert slug("-30") == "-30"
    assert slug("x" * 100)[:25] == "x" * 24 + "-"


def test_a_matrix_survives_json() -> None:
    made = matrix("guidance_scale=3,4.5", seeds="2")
    assert Matrix.read(made.as_json()) == made
    assert Matrix.read([3, ["a"], ["a", "b", "c", "d"], ["k", [1, None], 0, True]]) == Matrix(
        axes=(Axis(key="k", values=(1,), is_weak=True),)
    )
    assert not Matrix.read("x")


PAINT = """\
instruction: "Paint it {colour}."
parameters:
  colour: {choices: [red, blue, green]}
"""


@pytest.fixture
def paint(tmp_path: Path) -> Recipe:
    (tmp_path / "paint.yaml").write_text(PAINT)
    return load_recipe(str(tmp_path / "paint.yaml"))


def test_a_parameter_of_the_recipe(paint: Recipe) -> None:
    made = matrix("colour=red,blue", recipe=paint)
    assert [cell.values for cell in made.cells(0)] == [{"colour": "red"}, {"colour": "blue"}]
    assert faults("colour=red,bleu", recipe=paint) == [
        "--sweep colour: colour must be one of 'red', 'blue', 'green', not 'bleu' (did you mean 'blue'?)"
    ]
    assert faults("color=red", recipe=paint) == ["--sweep cannot change 'color' (did you mean 'colour'?)"]


def manifest(folder: Path, *lines: str) -> str:
    path = folder / "m.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def items(source: str, folder: Path, made: Matrix, **more: object) -> list[EditItem]:
    options = SourceOptions(output=folder / "out", matrix=made, prompt="x", **more)  # type: ignore[arg-type]
    opened = open_source(source, options)
    summary = opened.check()
    found = [item for item in opened.items() if isinstance(item, EditItem)]
    assert summary.items == len(found)
    return found


def test_lines_are_multiplied_and_keep_their_own_seeds(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    source = manifest(
        tmp_path,
        '{"image": "a.png", "id": "one", "seed": 5, "steps": 9}',
        '{"image": "a.png", "id": "two", "output": "deep/t.png"}',
    )
    found = items(source, tmp_path, matrix("steps=1,2", seeds="2"))
    assert [(i.id, i.output, i.sampling.seed, i.sampling.steps) for i in found] == [
        ("one_seed-5_steps-1", "one_seed-5_steps-1.png", 5, 1),
        ("one_seed-5_steps-2", "one_seed-5_steps-2.png", 5, 2),
        ("one_seed-6_steps-1", "one_seed-6_steps-1.png", 6, 1),
        ("one_seed-6_steps-2", "one_seed-6_steps-2.png", 6, 2),
        ("two_seed-42_steps-1", "deep/t_seed-42_steps-1.png", 42, 1),
        ("two_seed-42_steps-2", "deep/t_seed-42_steps-2.png", 42, 2),
        ("two_seed-43_steps-1", "deep/t_seed-43_steps-1.png", 43, 1),
        ("two_seed-43_steps-2", "deep/t_seed-43_steps-2.png", 43, 2),
    ]


def test_a_limit_counts_edits(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    source = manifest(tmp_path, *(f'{{"image": "a.png", "id": "{n}"}}' for n in range(3)))
    found = items(source, tmp_path, matrix(seeds="2"), limit=3)
    assert [item.id for item in found] == ["0_seed-42", "0_seed-43", "1_seed-42"]


def test_a_seed_near_the_largest_one_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    source = manifest(tmp_path, f'{{"image": "a.png", "seed": {2**64 - 1}}}')
    options = SourceOptions(output=tmp_path / "out", matrix=matrix(seeds="2"), prompt="x")
    with pytest.raises(ManifestError, match=r"m.jsonl:1: 2 seeds from 18446744073709551615 on lead beyond"):
        open_source(source, options).check()


def test_a_long_id_is_shortened_or_told(tmp_path: Path) -> None:
    long = "x" * 190
    (tmp_path / f"{long}.png").touch()
    source = manifest(tmp_path, f'{{"image": "{long}.png"}}')
    made = items(source, tmp_path, matrix("guidance_scale=3,4"))
    assert len({item.id for item in made}) == 2
    assert all(len(item.id) < 200 for item in made)
    source = manifest(tmp_path, f'{{"image": "{long}.png", "id": "{long}"}}')
    assert len({item.id for item in items(source, tmp_path, matrix("guidance_scale=3,4"))}) == 2


def test_verify_finds_the_ids_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    source = manifest(tmp_path, '{"image": "a.png"}', '{"image": "a.png", "seed": 3}')
    made = matrix("steps=1,2", seeds="2")
    options = SourceOptions(
        output=tmp_path / "out", matrix=made, prompt="x", flags=Settings(seed=100), checkpoint=Settings(seed=7)
    )
    opened = open_source(source, options)
    names = [item.id for item in opened.items()]
    assert len(set(names)) == 8
    assert [item.id for item in reopen(opened.asked(), tmp_path / "out").items()] == names
    plain = open_source(source, SourceOptions(output=tmp_path / "out", prompt="x")).asked()
    assert {"matrix", "seeds", "named"}.isdisjoint(plain)


def test_a_folder_is_multiplied(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        (folder / name).touch()
    found = items(str(folder), tmp_path, matrix(seeds="1,2"))
    assert [item.id for item in found] == ["a_seed-1", "a_seed-2", "deep/b_seed-1", "deep/b_seed-2"]
    # What is finished under another default id of the picture is finished for each cell of it.
    assert "a.png_seed-1" in list(found[0].other_ids)
    for one, other in itertools.combinations(found, 2):
        assert not {one.id, *one.other_ids} & {other.id, *other.other_ids}


YAML = """\
defaults:
  steps: 7
  matrix:
    guidance_scale: [3, 4]
    seeds: 2
items:
- {image: a.png, id: x}
- {image: a.png, id: y, guidance_scale: 9}
"""


def test_a_matrix_under_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "m.yaml").write_text(YAML)
    found = items(str(tmp_path / "m.yaml"), tmp_path, Matrix(), checkpoint=Settings(seed=5))
    assert [item.id for item in found] == [
        "x_guidance_scale-3_seed-5",
        "x_guidance_scale-3_seed-6",
        "x_guidance_scale-4_seed-5",
        "x_guidance_scale-4_seed-6",
        "y_seed-5",
        "y_seed-6",
    ]
    assert found[-1].sampling.guidance_scale == 9
    # Flags end the part that they name; what they sweep comes behind.
    flags = Settings(guidance_scale=2)
    options = SourceOptions(output=tmp_path / "out", matrix=matrix("steps=1,2"), prompt="x", flags=flags)
    opened = open_source(str(tmp_path / "m.yaml"), options)
    assert opened.check().items == 8
    assert opened.outline().matrix.text == "2 seeds x steps 1, 2"
    names = [item.id for item in opened.items()]
    assert names[:2] == ["x_seed-42_steps-1", "x_seed-42_steps-2"]
    assert [item.id for item in reopen(opened.asked(), tmp_path / "out").items()] == names


def test_one_name_for_several_edits_under_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "m.yaml").write_text(YAML)
    template = read_template("{id}-{stem}", format="png", recipe=None, columns=())
    assert len(items(str(tmp_path / "m.yaml"), tmp_path, Matrix(), template=template)) == 6
    template = read_template("{stem}", format="png", recipe=None, columns=())
    options = SourceOptions(output=tmp_path / "out", prompt="x", template=template)
    with pytest.raises(ManifestError) as refused:
        open_source(str(tmp_path / "m.yaml"), options).check()
    first, *_ = str(refused.value).split("\n")
    assert first == (
        f"{tmp_path}/m.yaml:7: --name gives several edits of this item the name 'a.png', also in 3 more items "
        "(add {id} or {index} to the template)"
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  matrix: [1]", "matrix must be a mapping, not a list (steps: [20, 40])"),
        ("  matrix: {steps: 4}", "matrix: steps must be a list of values, not 4 (steps: [first, second])"),
        (
            "  matrix: {view: [a]}",
            "matrix: cannot change 'view' (valid: seed, steps, guidance_scale, basesize, negative_prompt)",
        ),
        ("  matrix: {seeds: 9000}", "matrix: with that of the command or the recipe it has 18,000 edits of each item"),
    ],
)
def test_faults_under_defaults(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "m.yaml").write_text(f"defaults:\n{line}\nitems:\n- image: a.png\n")
    options = SourceOptions(output=tmp_path / "out", matrix=matrix("steps=1,2"), prompt="x")
    with pytest.raises(ManifestError) as refused:
        open_source(str(tmp_path / "m.yaml"), options).check()
    assert str(refused.value) == f"{tmp_path}/m.yaml:2: {told}"
