from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings

OUT = "take-out"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the pictures a.png, b.jpg and sub/c.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.jpg", "sub/c.png"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / name)
    return tmp_path


def options(**given: Any) -> SourceOptions:
    return SourceOptions(**{"output": Path(OUT), **given})


def items(source: str, stdin: bytes | None = None, **given: Any) -> list[EditItem]:
    """The items of a source that passes its check."""
    opened = open_source(source, options(**given), None if stdin is None else io.BytesIO(stdin))
    opened.check()
    got = list(opened.items())
    assert all(isinstance(item, EditItem) for item in got), got
    return got  # type: ignore[return-value]


def manifest(text: str | bytes, name: str = "m.jsonl") -> str:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return name


def jsonl(*lines: dict[str, Any]) -> str:
    return manifest("".join(json.dumps(line) + "\n" for line in lines))


def refused(source: str, stdin: bytes | None = None, **given: Any) -> list[str]:
    opened = open_source(source, options(**given), None if stdin is None else io.BytesIO(stdin))
    with pytest.raises(ManifestError) as error:
        opened.check()
    assert error.value.exit_code == 2
    return str(error.value).split("\n")


LINE = {"image": "a.png", "instruction": "make it red"}


# ---- what every kind of manifest gives ----


def as_jsonl(lines: list[dict[str, Any]]) -> str:
    return jsonl(*lines)


def as_json(lines: list[dict[str, Any]]) -> str:
    return manifest("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n", "m.json")


def as_yaml(lines: list[dict[str, Any]]) -> str:
    return manifest("items:\n" + "".join(f"- {json.dumps(line)}\n" for line in lines), "m.yaml")


def as_csv(lines: list[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for line in lines for key in line))
    rows = [keys]
    for line in lines:
        row = []
        for key in keys:
            value = line.get(key, "")
            row.append(json.dumps(value) if isinstance(value, list) else str(value))
        rows.append(row)
    text = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows)
    return manifest(text, "m.csv")


@pytest.mark.parametrize("write", [as_jsonl, as_json, as_yaml, as_csv])
def test_every_key_in_every_kind(write: Callable[[list[dict[str, Any]]], str]) -> None:
    got = items(
        write(
            [
                {
                    "image": "a.png",
                    "instruction": 'say "hi", \n天',
                    "id": "x/1",
                    "negative_prompt": "blur",
                    "seed": 7,
                    "steps": 3,
                    "guidance_scale": 1.5,
                    "width": 640,
                    "height": 480,
                    "output": "deep/one.PNG",
                },
                {"images": ["b.jpg", "sub/c.png"], "instruction": "join"},
                {"instruction": "draw"},
            ]
        ),
        text_to_image=True,
    )
    file = got[0].origin.file
    first = {"jsonl": 1, "json": 2, "yaml": 2, "csv": 2}[file.removeprefix("m.")]
    # The second record of the CSV follows one with a newline in it.
    lines = [first, first + 1 + (file == "m.csv"), first + 2 + (file == "m.csv")]
    assert got == [
        EditItem(
            id="x/1",
            images=(Path("a.png"),),
            instruction='say "hi", \n天',
            sampling=Sampling(steps=3, guidance_scale=1.5, seed=7, negative_prompt="blur"),
            basesize=1024,
            size=(480, 640),
            result_size="640x480",
            fit="auto",
            output="deep/one.PNG",
            origin=Origin(file=file, line=lines[0]),
        ),
        EditItem(
            id="b",
            images=(Path("b.jpg"), Path("sub/c.png")),
            instruction="join",
            sampling=Sampling(),
            basesize=1024,
            size=None,
            result_size="input",
            fit="auto",
            output="b.png",
            origin=Origin(file=file, line=lines[1]),
        ),
        EditItem(
            id="item-b9f459a656",
            images=(),
            instruction="draw",
            sampling=Sampling(),
            basesize=1024,
            size=None,
            result_size="input",
            fit="auto",
            output="item-b9f459a656.png",
            origin=Origin(file=file, line=lines[2]),
        ),
    ]


@pytest.mark.parametrize("image", ["image", "file_name", "input_image", "source"])
@pytest.mark.parametrize("instruction", ["instruction", "prompt", "edit_prompt"])
def test_aliases(image: str, instruction: str) -> None:
    [item] = items(jsonl({image: "a.png", instruction: "go"}))
    assert (item.images, item.instruction) == ((Path("a.png"),), "go")


def test_paths_are_relative_to_the_manifest() -> None:
    Path("m").mkdir()
    lines = [{**LINE, "image": image} for image in ("../a.png", "../sub/../sub/c.png", os.path.abspath("b.jpg"))]
    Image.new("RGB", (4, 4)).save("m/own.png")
    lines += [{**LINE, "image": "./own.png"}, {**LINE, "image": os.path.abspath("m/own.png")}]
    got = items(manifest("\n".join(json.dumps(line) for line in lines), "m/m.jsonl"))
    assert [str(item.images[0]) for item in got] == [
        "m/../a.png", "m/../sub/../sub/c.png", os.path.abspath("b.jpg"), "m/own.png",
        os.path.abspath("m/own.png"),
    ]  # fmt: skip
    assert [re.sub("-[0-9a-f]{10}", "-#", item.id) for item in got] == [
        "parent-#/a", "sub-#/c", f"{Path.cwd().name}-#/b", "own-#", "own-#",
    ]  # fmt: skip


def test_default_ids_of_equal_lines_are_counted() -> None:
    got = items(jsonl(LINE, {**LINE, "id": "a-2"}, LINE, {**LINE, "image": "sub/c.png"}))
    assert [(item.id, item.output) for item in got] == [
        ("a", "a.png"), ("a-2", "a-2.png"), ("a-3", "a-3.png"), ("sub/c", "sub/c.png"),
    ]  # fmt: skip


def test_items_come_out_the_same_each_time() -> None:
    source = open_source(jsonl(LINE, LINE, LINE), options())
    assert list(source.items()) == list(source.items())
    assert source.check() == source.check()


@pytest.mark.parametrize(("format", "ending"), [("png", "png"), ("jpg", "jpg"), ("webp", "webp")])
def test_outputs_end_as_the_format_says(format: str, ending: str) -> None:
    assert items(jsonl(LINE), format=format)[0].output == f"a.{ending}"
    assert items(jsonl({**LINE, "output": f"q.{ending}"}), format=format)[0].output == f"q.{ending}"


def test_jpeg_is_an_ending_of_jpg() -> None:
    assert items(jsonl({**LINE, "output": "q.JPEG"}), format="jpg")[0].output == "q.JPEG"


def test_null_is_a_key_that_is_not_given() -> None:
    [item] = items(jsonl({**LINE, "id": None, "seed": None, "images": None}))
    assert (item.id, item.sampling.seed) == ("a", 42)


def test_an_empty_list_of_images_is_text_to_image() -> None:
    assert items(jsonl({"images": [], "instruction": "draw"}))[0].images == ()


def test_blank_lines_a_byte_order_mark_and_windows_line_ends() -> None:
    text = b"\xef\xbb\xbf\r\n" + json.dumps(LINE).encode() + b"\r\n  \r\n" + json.dumps(LINE).encode()
    assert [item.origin.line for item in items(manifest(text))] == [2, 4]


def test_the_limit() -> None:
    source = open_source(jsonl(LINE, LINE, LINE), options(limit=2))
    assert source.check().items == 2
    assert [item.id for item in source.items()] == ["a", "a-2"]
    assert open_source(jsonl(LINE), options(limit=2)).check().items == 1


# ---- precedence ----


def test_precedence() -> None:
    Path("r.yaml").write_text("settings: {steps: 3, seed: 3, guidance_scale: 3, basesize: 256}\n")
    text = "defaults: {steps: 4, seed: 4, guidance_scale: 4, negative_prompt: four, basesize: 512}\n"
    text += "items:\n- {image: a.png, instruction: x, steps: 1}\n"
    given = {
        "flags": Settings(steps=2, seed=2),
        "recipe": load_recipe("r.yaml"),
        "checkpoint": Settings(negative_prompt="five", width=640, height=512, seed=5),
    }
    source = open_source(manifest(text, "m.yaml"), options(**given))
    assert source.check().settings == Settings(
        steps=2, seed=2, guidance_scale=3, negative_prompt="four", basesize=256, width=640, height=512,
        size="input", fit="auto",
    )  # fmt: skip
    [item] = source.items()
    assert isinstance(item, EditItem)
    assert item.sampling == Sampling(steps=1, seed=2, guidance_scale=3, negative_prompt="four")
    assert (item.basesize, item.size) == (256, (512, 640))


def test_what_is_built_in() -> None:
    assert open_source(jsonl(LINE), options()).check().settings == Settings(
        steps=40, guidance_scale=4.0, seed=42, negative_prompt="", basesize=1024, size="input", fit="auto"
    )


def test_the_instruction_of_the_command_line_and_of_the_defaults() -> None:
    text = "defaults: {prompt: from defaults}\nitems:\n- {image: a.png}\n- {image: b.jpg, instruction: own}\n"
    assert [i.instruction for i in items(manifest(text, "m.yaml"))] == ["from defaults", "own"]
    assert [i.instruction for i in items("m.yaml", prompt="typed")] == ["typed", "own"]


def test_defaults_may_follow_the_items() -> None:
    text = "items:\n- {image: a.png, instruction: x}\ndefaults: {steps: 9}\n"
    assert items(manifest(text, "m.yaml"))[0].sampling.steps == 9


def test_a_recipe_fills_its_template_from_the_line_the_command_line_and_the_defaults() -> None:
    Path("r.yaml").write_text(
        "instruction: '{a} {b} {c} {d} {instruction}'\n"
        "parameters: {a: {default: a0}, b: {default: b0}, c: {default: c0}, d: {default: d0}}\n"
    )
    text = "defaults: {a: a1, b: b1, c: c1}\nitems:\n- {image: a.png, prompt: mine, a: 3}\n- {image: a.png}\n"
    given = {"recipe": load_recipe("r.yaml"), "recipe_values": {"a": "a2", "b": "b2"}, "prompt": "typed"}
    got = [item.instruction for item in items(manifest(text, "m.yaml"), **given)]
    assert got == ["3 b2 c1 d0 mine", "a2 b2 c1 d0 typed"]


def test_an_instruction_of_the_line_stands_above_a_template_without_a_place_for_it() -> None:
    recipe = load_recipe("camera")
    source = jsonl({"image": "a.png", "yaw": 90}, LINE)
    first, second = (item.instruction for item in items(source, recipe=recipe, recipe_values={"pitch": "5"}))
    assert "Yaw 90°, Pitch 5°." in first
    assert second == "make it red"
    with pytest.raises(UsageError, match="has its own instruction and takes none with -p"):
        items(source, recipe=recipe, prompt="typed")


def test_recipe_faults_of_a_line() -> None:
    lines = [
        {"image": "a.png", "object": "cup", "view": "left"},
        {"image": "a.png", "object": "cup", "view": "lft"},
        {"image": "a.png", "objct": "cup", "view": "left"},
        {"image": "a.png", "object": True, "view": 3},
        LINE,
    ]
    views = "'front', 'right', 'left', 'rear', 'front right', 'front left', 'rear right', 'rear left'"
    assert refused(jsonl(*lines), recipe=load_recipe("object-rotate")) == [
        f"m.jsonl:2: view must be one of {views}, not 'lft' (did you mean 'left'?)",
        "m.jsonl:3: unknown key 'objct' (did you mean 'object'?; or --map object=objct, or --ignore-columns objct)",
        "m.jsonl:3: the recipe 'object-rotate' needs a value for 'object' "
        "(give it with --set object=..., or as a key of the item)",
        "m.jsonl:4: object must be text or a number, not true (write it in quotes)",
        "m.jsonl:4: the recipe 'object-rotate' needs a value for 'object' "
        "(give it with --set object=..., or as a key of the item)",
        f"m.jsonl:4: view must be one of {views}, not '3' (valid: front, right, left, rear, front right, "
        "front left, rear right, rear left)",
    ]


# ---- refusals ----

NAMES = "give each item an id or output of its own; names that differ only in case count as one"
OUTPUT = "it is a path below the output folder, with / between its parts"
LONG = "x" * 201

REFUSALS: list[tuple[dict[str, Any], str]] = [
    (
        {"promt": "x"},
        "unknown key 'promt' (did you mean 'prompt'?; or --map instruction=promt, or --ignore-columns promt)",
    ),
    ({"Steps": 3}, "unknown key 'Steps' (did you mean 'steps'?; or --map steps=Steps, or --ignore-columns Steps)"),
    (
        {"qqqqqq": 3},
        "unknown key 'qqqqqq' (valid: image, images, instruction, id, negative_prompt, seed, steps, guidance_scale, "
        "basesize, width, height, size, fit, output, lora, box, mask, seeds, sweep, turns, prompt, edit_prompt, "
        "file_name, input_image, source; "
        "or --map KEY=qqqqqq, or --ignore-columns qqqqqq)",
    ),
    ({"prompt": "x"}, "'instruction' and 'prompt' mean the same key (keep one of them)"),
    ({"source": "a.png"}, "'image' and 'source' mean the same key (keep one of them)"),
    ({"images": ["a.png"]}, "'image' and 'images' are both given (keep one of them)"),
    ({"instruction": ""}, "instruction must be text that is not empty, not ''"),
    ({"instruction": " \n"}, "instruction must be text that is not empty, not ' \\n'"),
    ({"instruction": 3}, "instruction must be text that is not empty, not 3"),
    ({"instruction": "a\0b"}, "instruction must be text that is not empty, not 'a\\x00b'"),
    ({"instruction": "\ud800"}, "instruction is not valid Unicode: '\\ud800'"),
    ({"instruction": None}, "no instruction (give it with -p, or as 'instruction' of the item)"),
    ({"negative_prompt": 3}, "negative_prompt must be text, not 3"),
    ({"steps": 0}, "steps must be a whole number from 1 to 1000, not 0"),
    ({"steps": 1001}, "steps must be a whole number from 1 to 1000, not 1001"),
    ({"steps": True}, "steps must be a whole number from 1 to 1000, not true"),
    ({"steps": 3.5}, "steps must be a whole number from 1 to 1000, not 3.5"),
    ({"seed": 2.0**53}, "seed must be a whole number from 0 to 18446744073709551615, not 9007199254740992.0"),
    ({"steps": "3"}, "steps must be a whole number from 1 to 1000, not '3' (write it without quotes)"),
    ({"steps": [3]}, "steps must be a whole number from 1 to 1000, not a list"),
    ({"steps": {"a": 1}}, "steps must be a whole number from 1 to 1000, not a mapping"),
    ({"seed": -1}, "seed must be a whole number from 0 to 18446744073709551615, not -1"),
    (
        {"seed": 2**64},
        "seed must be a whole number from 0 to 18446744073709551615, not 18446744073709551616",
    ),
    ({"seed": 10**99}, "seed must be a whole number from 0 to 18446744073709551615, not a huge number"),
    ({"guidance_scale": float("nan")}, "guidance_scale must be a number from 0 to 100, not nan"),
    ({"guidance_scale": float("inf")}, "guidance_scale must be a number from 0 to 100, not inf"),
    ({"guidance_scale": -0.5}, "guidance_scale must be a number from 0 to 100, not -0.5"),
    ({"guidance_scale": False}, "guidance_scale must be a number from 0 to 100, not false"),
    ({"guidance_scale": 10**400}, "guidance_scale must be a number from 0 to 100, not a huge number"),
    ({"width": 15, "height": 64}, "width must be a whole number from 16 to 16384, not 15"),
    ({"width": 64, "height": 16385}, "height must be a whole number from 16 to 16384, not 16385"),
    ({"width": 64}, "width and height go together (give both or none)"),
    (
        {"image": ["a.png"]},
        "image must be the path of one picture, not a list (write several pictures under 'images')",
    ),
    ({"image": ""}, "image must be the path of one picture, not ''"),
    ({"image": "a\0.png"}, "image must be the path of one picture, not 'a\\x00.png'"),
    ({"image": "gone.png"}, "no such picture: 'gone.png' (paths are relative to '{here}')"),
    ({"image": "sub"}, "'sub' is a folder, not a picture"),
    ({"image": "a.png/b.png"}, "Not a directory: 'a.png/b.png' (paths are relative to '{here}')"),
    (
        {"image": "https://example.org/a.png"},
        "'https://example.org/a.png' is a web address (download the picture first)",
    ),
    ({"id": 7}, "id must be text, not 7 (write it in quotes)"),
    ({"id": ""}, "the id '' is empty (it becomes the name of a file)"),
    ({"id": "../x"}, "the id '../x' has the part '..' (it becomes the name of a file)"),
    ({"id": "/x"}, "the id '/x' is absolute (it becomes the name of a file)"),
    ({"id": "a//b"}, "the id 'a//b' has an empty part (it becomes the name of a file)"),
    ({"id": "a\0b"}, "the id 'a\\x00b' contains a control character (it becomes the name of a file)"),
    ({"id": "a\nb"}, "the id 'a\\nb' contains a control character (it becomes the name of a file)"),
    ({"id": "a\\b"}, "the id 'a\\\\b' contains a backslash (it becomes the name of a file)"),
    ({"id": "C:x"}, "the id 'C:x' contains a colon (it becomes the name of a file)"),
    ({"id": "x."}, "the id 'x.' has a part that ends with a dot or a space (it becomes the name of a file)"),
    (
        {"id": "x /y"},
        "the id 'x /y' has a part that ends with a dot or a space (it becomes the name of a file)",
    ),
    (
        {"id": "a/NUL.x"},
        "the id 'a/NUL.x' has the part 'NUL.x', which Windows reserves (it becomes the name of a file)",
    ),
    (
        {"id": LONG},
        f"the id '{'x' * 56}... has a part of more than 200 bytes (it becomes the name of a file)",
    ),
    ({"output": "../x.png"}, f"the output '../x.png' has the part '..' ({OUTPUT})"),
    ({"output": "a/../../x.png"}, f"the output 'a/../../x.png' has the part '..' ({OUTPUT})"),
    ({"output": "/tmp/x.png"}, f"the output '/tmp/x.png' is absolute ({OUTPUT})"),
    ({"output": "C:/x.png"}, f"the output 'C:/x.png' contains a colon ({OUTPUT})"),
    ({"output": "..\\x.png"}, f"the output '..\\\\x.png' contains a backslash ({OUTPUT})"),
    ({"output": "x\0.png"}, f"the output 'x\\x00.png' contains a control character ({OUTPUT})"),
    ({"output": "con.png"}, f"the output 'con.png' has the part 'con', which Windows reserves ({OUTPUT})"),
    ({"output": "x.jpg"}, "the output 'x.jpg' does not fit the format png (it ends with .png)"),
    ({"output": "x"}, "the output 'x' does not fit the format png (it ends with .png)"),
    ({"output": ""}, f"the output '' is empty ({OUTPUT})"),
    ({"output": ["x"]}, "output must be text, not a list"),
]


@pytest.mark.parametrize("write", [as_jsonl, as_json])
@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_refusals(
    change: dict[str, Any], message: str, write: Callable[[list[dict[str, Any]]], str], place: Path
) -> None:
    lines = [{**LINE, "id": "fine"}, {**LINE, **change}]
    source = write(lines)
    line = 2 if source == "m.jsonl" else 3
    assert refused(source) == [f"{source}:{line}: {message.replace('{here}', str(place))}"]


def test_faults_of_images() -> None:
    assert refused(
        jsonl(
            {"images": "a.png", "instruction": "x"},
            {"images": ["a.png", 3], "instruction": "x"},
            {"images": ["a.png", "gone.png", "lost.png"], "instruction": "x"},
        )
    ) == [
        "m.jsonl:1: images must be a list of paths, not 'a.png' (write one picture under 'image')",
        "m.jsonl:2: images must be a list of paths, not 3 in the list",
        f"m.jsonl:3: no such picture: 'gone.png' (paths are relative to '{os.getcwd()}')",
        f"m.jsonl:3: no such picture: 'lost.png' (paths are relative to '{os.getcwd()}')",
    ]


def test_every_fault_is_told_at_once() -> None:
    assert refused(jsonl({"image": "gone.png", "stps": 3, "seed": -1}, LINE, {"image": "a.png"})) == [
        "m.jsonl:1: unknown key 'stps' (did you mean 'steps'?; or --map steps=stps, or --ignore-columns stps)",
        "m.jsonl:1: seed must be a whole number from 0 to 18446744073709551615, not -1",
        "m.jsonl:3: no instruction (give it with -p, or as 'instruction' of the item)",
    ]


def test_a_hundred_faults_are_kept_and_all_are_counted() -> None:
    with pytest.raises(ManifestError) as error:
        open_source(jsonl(*[{"image": "a.png"}] * 250), options()).check()
    assert (len(error.value.problems), error.value.total) == (100, 250)
    assert str(error.value).endswith("\n... and 150 more")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"id": "x"},
            {"id": "x", "output": "y.png"},
            "the id 'x' is taken by line 1 (give each item an id of its own)",
        ),
        ({"id": "x"}, {"id": "X"}, f"the output 'X.png' is taken by line 1 ({NAMES})"),
        ({"output": "x.png"}, {"output": "x.PNG"}, f"the output 'x.PNG' is taken by line 1 ({NAMES})"),
        ({"id": "x"}, {"output": "x.png"}, f"the output 'x.png' is taken by line 1 ({NAMES})"),
        ({}, {"id": "a"}, "the id 'a' is taken by line 1 (give each item an id of its own)"),
        ({"id": "a"}, {}, "the id 'a' is taken by line 1 (give each item an id of its own)"),
        ({}, {"image": "b.jpg", "output": "a.png"}, f"the output 'a.png' is taken by line 1 ({NAMES})"),
        ({"image": "b.jpg", "output": "a.png"}, {}, f"the output 'a.png' is taken by line 1 ({NAMES})"),
        ({"id": "é"}, {"id": "e\u0301"}, f"the output 'e\u0301.png' is taken by line 1 ({NAMES})"),
        ({"id": "É"}, {"id": "e\u0301"}, f"the output 'e\u0301.png' is taken by line 1 ({NAMES})"),
        ({"id": "s/x"}, {"id": "S/x"}, f"the output 'S/x.png' is taken by line 1 ({NAMES})"),
        (
            {"id": "x"},
            {"id": "X.png/y"},
            f"the output 'X.png/y.png' lies in a folder that is the output of line 1 ({NAMES})",
        ),
        ({"id": "x.png/y"}, {"id": "x"}, f"line 1 uses the output 'x.png' as a folder ({NAMES})"),
    ],
)
def test_names_that_are_taken(first: dict[str, Any], second: dict[str, Any], message: str) -> None:
    assert refused(jsonl({**LINE, **first}, {**LINE, **second})) == [f"m.jsonl:2: {message}"]


def test_an_output_must_not_overwrite_an_input() -> None:
    message = "(choose another output folder, or give an id)"
    assert refused(jsonl({**LINE, "output": "a.png"}), output=Path(".")) == [
        f"m.jsonl:1: the output 'a.png' would overwrite an input picture {message}"
    ]
    lines = [{"image": "b.jpg", "instruction": "x", "output": "a.png"}, {**LINE, "id": "z"}]
    assert refused(jsonl(*lines), output=Path(".")) == [
        f"m.jsonl:2: line 1 would overwrite the picture 'a.png' in the output folder {message}"
    ]
    assert [item.output for item in items(jsonl(LINE), output=Path("."))] == ["a-2.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "a.png",', "broken JSON: Expecting property name enclosed in double quotes (column 19)"),
        ('{"image": "a.png"} {}', "broken JSON: Extra data (column 20)"),
    ],
)
def test_broken_jsonl(text: str, message: str) -> None:
    good = json.dumps(LINE)
    assert refused(manifest(f"{good}\n{text}\n\n{good}\n{text}")) == [
        f"m.jsonl:2: {message} (each line is one JSON object)",
        f"m.jsonl:5: {message} (each line is one JSON object)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"image": "\xff"}', "not valid UTF-8 (byte 0xff at column 12) (save the file as UTF-8)"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "broken JSON: a number has too many digits"),
        (b"[" * 200_000, "broken JSON: too many brackets inside each other"),
        (b'["a.png"]', "an item is a mapping of keys, not a list (for example image and instruction)"),
        (b'"a.png"', "an item is a mapping of keys, not 'a.png' (for example image and instruction)"),
        (
            b'{"image": "a.png", "prompt": "x", "image": "b.jpg", "steps": 0}',
            "the key 'image' is given twice (keep one of them)\n"
            "m.jsonl:1: steps must be a whole number from 1 to 1000, not 0",
        ),
        (b'"' + b"x" * (5 << 20) + b'"', "this line is longer than 4 MiB (write each item on a line of its own)"),
    ],
)
def test_hostile_jsonl(text: bytes, message: str) -> None:
    bad = b'\n{"image": "a.png"}'
    assert refused(manifest(text + bad)) == [
        *f"m.jsonl:1: {message}".split("\n"),
        "m.jsonl:2: no instruction (give it with -p, or as 'instruction' of the item)",
    ]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.yaml", "m.csv"])
def test_an_empty_manifest(name: str) -> None:
    text = {"m.json": "[ ]", "m.csv": "image,instruction\n", "m.yaml": "# nothing\n"}.get(name, "\n\n")
    assert refused(manifest(text, name)) == [f"{name}: this manifest has no items"]


# ---- JSON lists ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": 1}', "m.json:1: a JSON manifest is a list (write [ ... ], or name the file .jsonl)"),
        ("", "m.json:1: a JSON manifest is a list (write [ ... ], or name the file .jsonl)"),
        ("[\n{good},\n\n{good} {good}]", "m.json:4: broken JSON: expecting ',' or ']' after an item"),
        ("[\n{good},\n]", "m.json:3: broken JSON: Expecting value (remove the comma before the closing bracket)"),
        ("[\n{good}", "m.json:2: broken JSON: expecting ',' or ']' after an item"),
        ('[\n{good},\n\n{"image": \n nope}]', "m.json:5: broken JSON: Expecting value"),
        ("[{good}]\n\n[]", "m.json:3: broken JSON: something follows the end of the list"),
        ("[\n" + "[" * 100_000, "m.json:2: broken JSON: too many brackets inside each other"),
        ("[\n" + "9" * 5000 + "]", "m.json:2: broken JSON: a number has too many digits"),
        (b'[\n{good},\n"\xff"]', "m.json:3: not valid UTF-8 (save the file as UTF-8)"),
        (
            "[\n12, {good}]",
            "m.json:2: an item is a mapping of keys, not 12 (for example image and instruction)",
        ),
        ('[\n"' + "x" * (5 << 20) + '"]', "m.json:2: this item is longer than 4 MiB"),
    ],
)
def test_broken_json_lists(text: str | bytes, message: str) -> None:
    data = text.encode() if isinstance(text, str) else text
    assert refused(manifest(data.replace(b"{good}", json.dumps(LINE).encode()), "m.json")) == [message]


@pytest.mark.parametrize("name", ["m.json", "m.yaml"])
def test_what_is_read_as_a_whole_has_a_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.job.source import readers, yaml_reader

    monkeypatch.setattr(readers, "MAX_JSON", 1 << 20)
    monkeypatch.setattr(yaml_reader, "MAX_YAML", 1 << 20)
    text = f"[{json.dumps(LINE)}]"
    kind = {"m.json": "a JSON list", "m.yaml": "a YAML file"}[name]
    message = f"{kind} can have 1 MiB at most, and this file is larger (write JSONL, which has no limit)"
    assert refused(manifest(text.ljust((1 << 20) + 1), name)) == [f"{name}: {message}"]
    assert len(items(manifest(text.ljust(1 << 20), name))) == 1


def test_the_limits_are_those_of_the_documents() -> None:
    from joyedit.job.source import readers, yaml_reader

    assert (readers.MAX_JSON, yaml_reader.MAX_YAML) == (64 << 20, 16 << 20)


def test_json_items_after_a_bad_one_are_checked_too() -> None:
    bad = b'{"image": "a.png"}'
    text = b'[\n"\xff",\n\n{"instruction": "\n",\n"' + b"x" * (5 << 20) + b'", ' + bad + b",\n" + bad + b"]"
    text = text.replace(b'{"instruction": "\n",', b'{"instruction": "x"},')
    remedy = "no instruction (give it with -p, or as 'instruction' of the item)"
    assert refused(manifest(text, "m.json")) == [
        "m.json:2: not valid UTF-8 (save the file as UTF-8)",
        "m.json:5: this item is longer than 4 MiB",
        f"m.json:5: {remedy}",
        f"m.json:6: {remedy}",
    ]


def test_a_bad_byte_between_the_items_of_a_json_list() -> None:
    text = b"[\n" + json.dumps(LINE).encode() + b',\n\xff{"image": 1}]'
    assert refused(manifest(text, "m.json")) == ["m.json:3: not valid UTF-8 (save the file as UTF-8)"]


def test_long_items_of_a_json_list_and_their_lines() -> None:
    lines = [{**LINE, "id": f"i{n}", "instruction": "天" * (n * 37 % 5000) + "x"} for n in range(200)]
    text = "[" + ",\n".join(json.dumps(line, ensure_ascii=n % 2 == 0, indent=1) for n, line in enumerate(lines)) + "]"
    got = items(manifest(text, "m.json"))
    assert [(item.id, item.instruction) for item in got] == [(line["id"], line["instruction"]) for line in lines]
    assert [item.origin.line for item in got] == [1 + 5 * n for n in range(200)]


# ---- CSV ----


def test_csv_cells() -> None:
    text = (
        "\ufefffile_name, prompt ,images,steps,guidance_scale,seed\r\n"
        "a.png,one,,3,2,\r\n"
        ',"two\nlines, ""quoted""",a.png; b.jpg,,,7\r\n'
        "\r\n"
        ',three,"[""a.png""]",,1e0,\r\n'
    )
    got = items(manifest(text, "m.csv"))
    assert [(i.origin.line, i.instruction, [str(p) for p in i.images]) for i in got] == [
        (2, "one", ["a.png"]),
        (3, 'two\nlines, "quoted"', ["a.png", "b.jpg"]),
        (6, "three", ["a.png"]),
    ]
    assert [i.sampling for i in got] == [
        Sampling(steps=3, guidance_scale=2.0),
        Sampling(seed=7),
        Sampling(guidance_scale=1.0),
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "imge,prompt,instruction,,steps,steps\na.png,x,,,3,\na.png,x,,y,3,\na.png,x,,y,3,\n",
            [
                "m.csv:1: unknown key 'imge' (did you mean 'image'?; or --map image=imge, or --ignore-columns imge)",
                "m.csv:1: 'prompt' and 'instruction' mean the same key (keep one of them)",
                "m.csv:1: the key 'steps' is given twice (keep one of them)",
                "m.csv:1: column 4 has no name (the first line names the keys)",
            ],
        ),
        (
            "image,instruction\na.png,x,y\nb.jpg\n",
            [
                "m.csv:2: this row has 3 cells, the header has 2 (put a cell with a comma in it between quotes)",
                "m.csv:3: this row has 1 cells, the header has 2 (put a cell with a comma in it between quotes)",
            ],
        ),
        (
            'image,instruction\na.png,"x\ny"\na.png,\na.png,x"y"\na.png,"x" y\n',
            [
                "m.csv:4: no instruction (give it with -p, or as 'instruction' of the item)",
                "m.csv:6: broken CSV: ',' expected after '\"' (put a cell with quotes in it between quotes)",
            ],
        ),
        (
            'image,instruction\na.png,"never closed\n',
            ["m.csv:2: broken CSV: unexpected end of data (put a cell with quotes in it between quotes)"],
        ),
        (
            "image,instruction,steps,guidance_scale,images\na.png,x,1.5,much,\n,x,,nan,[3\n",
            [
                "m.csv:2: steps must be a whole number from 1 to 1000, not '1.5'",
                "m.csv:2: guidance_scale must be a number from 0 to 100, not 'much'",
                "m.csv:3: guidance_scale must be a number from 0 to 100, not nan",
                "m.csv:3: images must be a list of paths, not '[3' (write one picture under 'image')",
            ],
        ),
        (b"image,instruction\na.png,\xff\n", ["m.csv:2: not valid UTF-8 (save the file as UTF-8)"]),
        (b"image,\xff\na.png,x\n", ["m.csv:1: not valid UTF-8 (save the file as UTF-8)"]),
    ],
)  # fmt: skip
def test_csv_faults(text: str | bytes, messages: list[str]) -> None:
    assert refused(manifest(text, "m.csv")) == messages


# ---- YAML ----


def test_yaml_list_with_its_lines_and_aliases() -> None:
    text = (
        "# comment\n- image: a.png\n  instruction: &i |\n    make\n    it\n\n"
        "- {image: b.jpg, instruction: *i, id: 2024-01-01}\n- <<\n"
    )
    got = items(manifest(text.replace("- <<\n", ""), "m.yaml"))
    assert [(i.origin.line, i.id, i.instruction) for i in got] == [
        (2, "a", "make\nit\n"),
        (7, "2024-01-01", "make\nit\n"),
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "- image: a.png\n  instruction: x\n  stps: 3\n  seed: 130\n  steps: true\n",
            [
                "m.yaml:3: unknown key 'stps' (did you mean 'steps'?; or --map steps=stps, or --ignore-columns stps)",
                "m.yaml:5: steps must be a whole number from 1 to 1000, not true",
            ],
        ),
        ("- image: a.png\n", [
            "m.yaml:1: no instruction (give it with -p, or as 'instruction' of the item)"
        ]),
        ("- {image: a.png, prompt: x,\n   image: b.jpg}\n", [
            "m.yaml:1: the key 'image' is given twice (keep one of them)"
        ]),
        ("- !!python/object/apply:os.system ['true']\n- {image: a.png}\n", [
            "m.yaml:1: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is refused "
            "(plain YAML has no tags)",
            "m.yaml:2: no instruction (give it with -p, or as 'instruction' of the item)",
        ]),
        ("- image: !!str a.png\n  prompt: x\n", [
            "m.yaml:1: the tag 'tag:yaml.org,2002:str' is refused (plain YAML has no tags)"
        ]),
        ("- {image: a.png, id: 7, prompt: x}\n", ["m.yaml:1: id must be text, not 7 (write it in quotes)"]),
        ("- {1: a.png}\n", ["m.yaml:1: a key must be text, not 1 (write it in quotes)"]),
        ("- &a [*a]\n", ["m.yaml:1: the alias *a refers to an anchor that is not complete before it"]),
        ("- *b\n", ["m.yaml:1: the alias *b refers to an anchor that is not complete before it"]),
        ("- " + "[" * 30 + "]" * 30 + "\n", ["m.yaml:1: more than 20 lists or mappings inside each other"]),
        ("- a\n- 3\n-\n", [
            "m.yaml:1: an item is a mapping of keys, not 'a' (for example image and instruction)",
            "m.yaml:2: an item is a mapping of keys, not 3 (for example image and instruction)",
            "m.yaml:3: an item is a mapping of keys, not nothing (for example image and instruction)",
        ]),
        ("hello\n", [
            "m.yaml:1: a YAML manifest is a list of items, not 'hello' "
            "(or a mapping with 'items:' and 'defaults:')"
        ]),
        ("defaults: {steps: 3}\n", ["m.yaml:1: there is no 'items:' (the list of items stands under it)"]),
        ("items: {image: a.png}\n", [
            "m.yaml:1: items must be a list, not a mapping (each item begins with '- ')"
        ]),
        ("items: []\nitem: []\nitems: []\n", [
            "m.yaml:2: unknown key 'item' (did you mean 'items'?)",
            "m.yaml:3: the key 'items' is given twice (keep one of them)",
        ]),
        ("defaults: 3\nitems:\n- {image: a.png, prompt: x}\n", [
            "m.yaml:1: defaults must be a mapping, not 3"
        ]),
        ("items:\n- {image: a.png, prompt: x}\ndefaults:\n  steps: 0\n  image: a.png\n  basesize: 333\n", [
            "m.yaml:5: unknown key 'image' (valid: instruction, steps, guidance_scale, seed, "
            "negative_prompt, basesize, width, height, size, fit, lora, prompt, edit_prompt)",
            "m.yaml:4: steps must be a whole number from 1 to 1000, not 0",
        ]),
        ("- {image: a.png, prompt: x}\n---\n- a\n", [
            "m.yaml:2: a second YAML document begins here (keep one in each file)"
        ]),
        ("- image: a.png\n  prompt: [\n- x: y: z\n", [
            "m.yaml:3: broken YAML: while parsing a flow node did not find expected node content"
        ]),
        ("- image: a.png\n  prompt: a\x07b\n", [
            "m.yaml:2: the control character '\\x07' is not allowed in YAML (remove it)"
        ]),
        (b"- image: a.png\n  prompt: \xc3\x28\n", ["m.yaml:2: not valid UTF-8 (save the file as UTF-8)"]),
    ],
)  # fmt: skip
def test_yaml_faults(text: str | bytes, messages: list[str]) -> None:
    assert refused(manifest(text, "m.yaml")) == messages


def test_an_alias_bomb_is_refused_at_once() -> None:
    text = "- &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for n in range(1, 12):
        text += f"- &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]\n"
    got = refused(manifest(text, "m.yaml"))
    assert "m.yaml:5: more than 10000 values in one item, with aliases expanded" in got


NO_TEXT = "no instruction (give it with -p, or as 'instruction' of the item)"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("[" + "x, " * 10_000 + "]", "more than 10000 values in one item, with aliases expanded"),
        ("{image: [" + "[" * 60 + "]" * 60 + ", x], steps: 0}", "more than 20 lists or mappings inside each other"),
        ("{image: a.png, steps: [*none]}", "the alias *none refers to an anchor that is not complete before it"),
        ("&b {image: &b [*b]}", "the alias *b refers to an anchor that is not complete before it"),
        ("{image: *a, steps: &c [*a, *a, *b]}", "the alias *b refers to an anchor that is not complete before it"),
    ],
)
def test_a_yaml_item_beyond_the_limits_hides_no_other(item: str, message: str) -> None:
    text = f"- {{image: &a a.png, instruction: x}}\n- {item}\n-\n  image: *a\n"
    assert refused(manifest(text, "m.yaml")) == [f"m.yaml:2: {message}", f"m.yaml:4: {NO_TEXT}"]


def test_yaml_that_nests_without_end_is_not_read_to_its_end() -> None:
    text = "- {image: a.png}\n- " + "[" * 300 + "]" * 300 + "\n- {image: a.png}\n"
    assert refused(manifest(text, "m.yaml")) == [
        f"m.yaml:1: {NO_TEXT}",
        "m.yaml:2: more than 200 lists or mappings inside each other (joyedit reads nothing after this line)",
    ]


def test_values_under_anchors_have_a_limit_for_the_file() -> None:
    """They stay in memory; twelve lists of 9,000 values are too many, and the item with the last is refused."""
    text = "".join(f"- &a{n} [{'x, ' * 9_000}]\n" for n in range(12))
    got = refused(manifest(text, "m.yaml"))
    assert got[11:] == ["m.yaml:12: more than 100000 values under anchors"]
    assert got[0] == "m.yaml:1: an item is a mapping of keys, not a list (for example image and instruction)"


def test_aliases_that_nest_deeper_and_deeper_are_refused() -> None:
    text = "- &a0 [x]\n" + "".join(f"- &a{n} [*a{n - 1}]\n" for n in range(1, 2_000))
    with pytest.raises(ManifestError) as error:
        open_source(manifest(text, "m.yaml"), options()).check()
    assert error.value.total == 2_000
    assert str(error.value.problems[19]).startswith("m.yaml:20: an item is a mapping of keys, not a list")
    assert str(error.value.problems[20]) == "m.yaml:21: more than 20 lists or mappings inside each other"


def test_an_anchor_may_be_given_anew() -> None:
    text = "- {image: &p a.png, instruction: x}\n- {image: &p b.jpg, instruction: x}\n- {image: *p, instruction: x}\n"
    assert [str(item.images[0]) for item in items(manifest(text, "m.yaml"))] == ["a.png", "b.jpg", "b.jpg"]


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_both_yaml_loaders_read_alike(monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    import yaml

    from joyedit.job.source import yaml_reader

    monkeypatch.setattr(yaml_reader, "_Loader", yaml_reader.loader_class(getattr(yaml, loader)))
    text = "defaults: {seed: 16}\nitems:\n- image: a.png\n  instruction: 'x'\n"
    text += '- {image: b.jpg, prompt: "天\\n"}\n'
    got = items(manifest(text, "m.yaml"))
    assert [(i.id, i.instruction, i.sampling.seed, i.origin.line) for i in got] == [
        ("a", "x", 16, 3),
        ("b", "天\n", 16, 5),
    ]
    assert refused(manifest("- a: &x !!binary z\n", "m.yaml")) == [
        "m.yaml:1: the tag 'tag:yaml.org,2002:binary' is refused (plain YAML has no tags)"
    ]


# ---- opening ----


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.jsonl", "gone.jsonl: no such file or folder"),
        ("", "'' cannot be the name of a file or folder"),
        ("a\0b", "'a\\x00b' cannot be the name of a file or folder"),
        (
            "m.jsnl",
            "m.jsnl: no manifest and no picture ends like this (did you mean '.jsonl'?; @m.jsnl reads a list of paths)",
        ),
        (
            "list",
            "list: no manifest and no picture ends like this "
            "(valid: .jsonl, .ndjson, .json, .yaml, .yml, .csv, .tsv; @list reads a list of paths)",
        ),
    ],
)
def test_what_cannot_be_opened(source: str, message: str) -> None:
    manifest("x", "m.jsnl")
    manifest("x", "list")
    with pytest.raises(UsageError) as error:
        open_source(source, options())
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": " "}, "the instruction given with -p is empty"),
        ({"limit": 0}, "--limit is a whole number from 1, not 0"),
        ({"format": "bmp"}, "--format is one of png, jpg, webp, tiff, avif, heic, same, not 'bmp'"),
        ({"flags": Settings(steps=0)}, "--steps must be a whole number from 1 to 1000, not 0"),
        ({"recipe_values": {"yaw": "3"}}, "--set yaw needs a recipe (give it with --recipe)"),
    ],
)
def test_options_that_cannot_work(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        open_source(jsonl(LINE), options(**given))
    assert str(error.value) == message


def test_set_is_checked_against_the_recipe() -> None:
    with pytest.raises(UsageError) as error:
        open_source(jsonl(LINE), options(recipe=load_recipe("camera"), recipe_values={"yow": "3", "zoom": "inn"}))
    assert str(error.value).split("\n") == [
        "the recipe 'camera' has no parameter 'yow' (did you mean 'yaw'?)",
        "--set zoom must be one of 'in', 'out', 'unchanged', not 'inn' (did you mean 'in'?)",
    ]


def test_a_manifest_that_changes_after_its_check_gives_failed_items() -> None:
    source = open_source(jsonl({**LINE, "id": "x"}, LINE), options())
    source.check()
    manifest('{"image": "a.png", "id": "x"}\nnonsense\n' + json.dumps({**LINE, "id": "x"}) + "\n")
    got = list(source.items())
    assert [(type(item), item.id) for item in got] == [
        (FailedItem, "x"),
        (FailedItem, "line-2"),
        (FailedItem, "x-2"),
    ]
    assert [getattr(item, "code", None) for item in got] == ["bad_line"] * 3
    first = got[0]
    assert isinstance(first, FailedItem)
    assert first.message == "m.jsonl:1: no instruction (give it with -p, or as 'instruction' of the item)"
    assert (first.images, first.origin) == ((Path("a.png"),), Origin(file="m.jsonl", line=1))


def test_kinds() -> None:
    manifest("", "x.ndjson")
    manifest("", "x.YML")
    kinds = {"x.ndjson": "jsonl", "x.YML": "yaml", "a.png": "picture", "sub": "folder", "-": "stdin"}
    for name, kind in kinds.items():
        source: Source = open_source(name, options(), io.BytesIO())
        assert (source.name, source.kind) == (name, kind)
