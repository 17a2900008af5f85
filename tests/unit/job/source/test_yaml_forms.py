"""What YAML writes in forms of its own: merge keys, sections for anchors, and numbers that are not what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.source import yaml_reader
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(yaml_reader, "_Loader", yaml_reader.loader_class(getattr(yaml, request.param)))
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 6), "red").save(name)


def source(text: str, **given: Any) -> Any:
    Path("m.yaml").write_text(text)
    return open_source("m.yaml", SourceOptions(output=Path("out"), **given))


def items(text: str, **given: Any) -> list[EditItem]:
    opened = source(text, **given)
    opened.check()
    return list(opened.items())


def refused(text: str) -> list[str]:
    with pytest.raises(ManifestError) as error:
        source(text).check()
    return str(error.value).split("\n")


# ---- merge keys ----


def test_a_merge_key_gives_what_the_item_does_not_say_itself() -> None:
    text = (
        "x-base: &base {instruction: x, steps: 5, seed: 1}\n"
        "items:\n"
        "- {<<: *base, image: a.png}\n"
        "- image: b.png\n  seed: 2\n  <<: *base\n"
    )
    got = [(item.id, item.instruction, item.sampling.steps, item.sampling.seed) for item in items(text)]
    assert got == [("a", "x", 5, 1), ("b", "x", 5, 2)]


def test_of_several_mappings_the_first_counts() -> None:
    text = "- &one {image: a.png, instruction: x}\n- &two {image: b.png, instruction: y, seed: 3}\n"
    text += "- {<<: [*one, *two], id: both}\n- {<<: *two, <<: *one, id: too, seed: 4}\n"
    got = [(item.id, item.instruction, item.sampling.seed) for item in items(text)]
    assert got == [("a", "x", 42), ("b", "y", 3), ("both", "x", 3), ("too", "y", 4)]


def test_a_merged_mapping_may_merge_another() -> None:
    text = "x-a: &a {steps: 5, seed: 1}\nx-b: &b {<<: *a, seed: 2}\nitems:\n- {<<: *b, image: a.png, instruction: x}\n"
    [item] = items(text)
    assert (item.sampling.steps, item.sampling.seed) == (5, 2)


def test_defaults_and_recipes_merge_too() -> None:
    text = "x-base: &base {steps: 5}\ndefaults: {<<: *base, instruction: x}\nitems:\n- image: a.png\n"
    assert items(text)[0].sampling.steps == 5
    Path("r.yaml").write_text("instruction: '{p}'\nsettings: &s {steps: 6}\nparameters: {p: {<<: {default: q}}}\n")
    recipe = load_recipe("r.yaml")
    assert (recipe.settings.steps, recipe.parameters["p"].default) == (6, "q")


def test_faults_in_merged_keys_have_the_line_where_they_stand() -> None:
    text = "x-base: &base\n  stps: 5\n  steps: 0\nitems:\n- image: a.png\n  instruction: x\n  <<: *base\n"
    assert refused(text) == [
        "m.yaml:2: unknown key 'stps' (did you mean 'steps'?; or --map steps=stps, or --ignore-columns stps)",
        "m.yaml:3: steps must be a whole number from 1 to 1000, not 0",
    ]


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        ("x", "<< takes a mapping or a list of mappings, not 'x'"),
        ("[{seed: 1}, 3]", "<< takes a mapping or a list of mappings, not 3"),
        ("*gone", "the alias *gone refers to an anchor that is not complete before it"),
    ],
)
def test_what_cannot_be_merged(merged: str, message: str) -> None:
    assert refused(f"- image: a.png\n  instruction: x\n  <<: {merged}\n")[0] == f"m.yaml:3: {message}"


def test_a_quoted_merge_key_is_a_key() -> None:
    assert refused("- {'<<': {seed: 1}, image: a.png, instruction: x}\n")[0].startswith("m.yaml:1: unknown key '<<'")


def test_merge_keys_expand_within_the_limits() -> None:
    text = "- &a0 {" + ", ".join(f"k{number}: 0" for number in range(100)) + "}\n"
    text += "".join(f"- &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}\n" for n in range(1, 6))
    assert "m.yaml:3: more than 10000 values in one item, with aliases expanded" in refused(text)


# ---- numbers ----


@pytest.mark.parametrize(
    "number",
    ["0x10", "012", "010", "1_000", "0b11", "1:30", "12:30:45", "-0x1", "1_0.5", "1:30.5", "1.5e+3", "00", "07.5"],
)
@pytest.mark.parametrize("key", ["seed", "id", "guidance_scale", "instruction"])
def test_numbers_that_are_not_what_they_show_are_refused(number: str, key: str) -> None:
    rest = {"image": "a.png", "instruction": "x"}
    line = ", ".join(f"{name}: {value}" for name, value in rest.items() if name != key)
    got = refused(f"- {{{line}}}\n- {{{line}, {key}: {number}}}\n")
    remedy = "(write a number in plain digits, and a text in quotes)"
    assert f"m.yaml:2: '{number}' means another number to YAML than it shows {remedy}" in got


@pytest.mark.parametrize("number", ["0o17", "1e3", "1e+3", "0128"])
def test_numbers_of_other_readers_stay_text(number: str) -> None:
    [message] = refused(f"- {{image: a.png, instruction: x, seed: {number}}}\n")
    assert message.endswith(f"not '{number}' (write it in plain digits)")
    assert items(f"- {{image: a.png, instruction: x, id: {number}}}\n")[0].id == number


@pytest.mark.parametrize(("number", "value"), [("7", 7), ("+7", 7), ("0", 0), ("7.0", 7)])
def test_plain_numbers(number: str, value: int) -> None:
    [item] = items(f"- {{image: a.png, instruction: x, seed: {number}, guidance_scale: 2.50}}\n")
    assert (item.sampling.seed, item.sampling.guidance_scale) == (value, 2.5)


def test_such_texts_in_quotes_are_texts() -> None:
    [item] = items("- {image: a.png, instruction: '12:30:45', id: '012'}\n")
    assert (item.instruction, item.id) == ("12:30:45", "012")
