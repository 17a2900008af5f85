"""`--name`: the checked fields of a template, and the names that it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.columns import Columns
from joyedit.job.source.name_template import NameTemplate, read_template
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem

FACTS = {
    "stem": "x",
    "folder": "a/b",
    "id": "a/b/x_seed-1",
    "index": 3,
    "seed": 7,
    "guidance_scale": 3.5,
    "word": "r/d",
}


def template(text: str, **more: object) -> NameTemplate:
    given = {"format": "png", "recipe": None, "columns": ()} | more
    return read_template(text, **given)  # type: ignore[arg-type]


def faults(text: str, **more: object) -> list[str]:
    with pytest.raises(UsageError) as refused:
        template(text, **more)
    return str(refused.value).split("\n")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{stem}_{seed}", "x_7"),
        ("{id}", "a/b/x_seed-1"),
        ("{folder}/{index:03}-{stem}", "a/b/003-x"),
        ("{seed:05}.png", "00007"),
        ("{guidance_scale}-{guidance_scale:.2f}", "3.5-3.50"),
        ("{{{stem}}}", "{x}"),
        ("{stem}-{word}", "x-r_d"),
    ],
)
def test_names(text: str, made: str) -> None:
    assert template(text, columns=["word"]).fill(FACTS) == made


def test_an_empty_folder_leaves_no_slash() -> None:
    assert template("{folder}/{stem}").fill({"folder": "", "stem": "x"}) == "x"
    assert template("all/{folder}/{stem}").fill({"folder": "", "stem": "x"}) == "all/x"


NUMBERS = "takes no format like this (only numbers take one, such as {seed:04})"
LIST = "stem, folder, id, index, line, seed, steps, guidance_scale, basesize"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["--name '' is no template (for example {stem}_{seed})"]),
        ("x", ["--name has no field, so all pictures would have one name (for example {stem}_{seed})"]),
        ("{stm}", [f"--name: the place {{stm}} is none of the fields (did you mean 'stem'?; fields: {LIST})"]),
        ("{}", [f"--name: the place {{}} is none of the fields (write a name; fields: {LIST})"]),
        ("{recipe}", ["--name: the place {recipe} needs a recipe (give one with --recipe)"]),
        (
            "{stem.__class__}",
            [f"--name: the place {{stem.__class__}} is none of the fields (fields: {LIST})"],
        ),
        ("{stem[0]}", [f"--name: the place {{stem[0]}} is none of the fields (did you mean 'stem'?; fields: {LIST})"]),
        ("{seed!r}", [f"--name: the place {{seed!r}} {NUMBERS}"]),
        ("{stem:>9}", [f"--name: the place {{stem:>9}} {NUMBERS}"]),
        ("{seed:099999}", [f"--name: the place {{seed:099999}} {NUMBERS}"]),
        ("{seed:{stem}}", [f"--name: the place {{seed:{{stem}}}} {NUMBERS}"]),
        ("{stem", [
            "--name: the braces do not match: expected '}' before end of string "
            "(a place is {stem}; braces are written {{ and }})"
        ]),
        ("{stem}.jpg", ["--name ends with .jpg, which does not fit --format png"]),
        ("a:b/{stem}", ["--name 'a:b/{stem}': the name contains a colon"]),
        ("../{stem}", ["--name '../{stem}': the name has the part '..'"]),
        ("results.jsonl/{stem}", [
            "--name 'results.jsonl/{stem}': the name begins with 'results.jsonl', which is a file of joyedit itself"
        ]),
    ],
)  # fmt: skip
def test_faults(text: str, told: list[str]) -> None:
    assert faults(text) == told


def source(
    folder: Path, name: str, *lines: str, recipe: str | None = None, keep: tuple[str, ...] = ()
) -> list[EditItem]:
    (folder / "m.jsonl").write_text("".join(f"{line}\n" for line in lines))
    read = None if recipe is None else load_recipe(recipe)
    columns = Columns.of((), (), keep)
    options = SourceOptions(
        output=folder / "out",
        prompt=None if recipe else "x",
        recipe=read,
        columns=columns,
        template=read_template(name, format="png", recipe=read and read.parameters, columns=columns.kept),
    )
    opened = open_source(str(folder / "m.jsonl"), options)
    opened.check()
    return [item for item in opened.items() if isinstance(item, EditItem)]


def test_lines_recipes_and_columns(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.png").touch()
    found = source(
        tmp_path,
        "{page}/{line:02}_{folder}/{stem}_{recipe}_{yaw}_{zoom}",
        '{"image": "a.png", "yaw": 30, "page": "p/1"}',
        '{"image": "b/c.png", "page": 2}',
        '{"image": "b/c.png", "page": 2, "zoom": "in", "output": "mine.png"}',
        recipe="camera",
        keep=("page",),
    )
    assert [item.output for item in found] == [
        "p_1/01_/a_camera_30_unchanged.png",
        "2/02_b/c_camera_0_unchanged.png",
        "mine.png",
    ]
    assert found[0].id == "a"  # --name changes no id


def test_one_name_for_two_items_is_told_before_anything_happens(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ManifestError) as refused:
        source(tmp_path, "{stem}", '{"image": "a.png", "id": "1"}', '{"image": "a.png", "id": "2"}')
    assert "m.jsonl:2: the output 'a.png' is taken by line 1" in str(refused.value)


def test_an_item_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    lines = ('{"image": "a.png", "id": "1", "page": "p"}', '{"image": "a.png", "id": "2"}')
    with pytest.raises(ManifestError) as refused:
        source(tmp_path, "{page}", *lines, keep=("page",))
    assert "m.jsonl:2: --name: this item has no value for {page} (leave the field out" in str(refused.value)


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ManifestError) as refused:
        source(tmp_path, "{page}", '{"image": "a.png", "page": "con"}', keep=("page",))
    assert "--name gives this item the name 'con', which has the part 'con', which Windows reserves" in str(
        refused.value
    )
