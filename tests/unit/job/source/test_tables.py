"""Tables as people have them: what spreadsheets, pandas and other tools write, and what the user says about columns."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.columns import MAX_KEPT, Columns
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / name)
    return tmp_path


def manifest(text: str | bytes, name: str = "m.csv") -> str:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return name


def options(**given: Any) -> SourceOptions:
    columns = Columns.of(given.pop("map", ()), given.pop("ignore", ()), given.pop("keep", ()))
    return SourceOptions(**{"output": Path("out"), "columns": columns, **given})


def items(source: str, **given: Any) -> list[EditItem]:
    opened = open_source(source, options(**given))
    opened.check()
    got = list(opened.items())
    assert all(isinstance(item, EditItem) for item in got), got
    return got  # type: ignore[return-value]


def refused(source: str, **given: Any) -> list[str]:
    with pytest.raises(ManifestError) as error:
        open_source(source, options(**given)).check()
    return str(error.value).split("\n")


def told(got: list[EditItem]) -> list[tuple[str, str]]:
    return [(item.id, item.instruction) for item in got]


AB = [("a", "x"), ("b", "y")]


# ---- forms of a table ----


@pytest.mark.parametrize(
    "text",
    [
        "image;instruction\na.png;x\nb.png;y\n",
        "image\tinstruction\na.png\tx\nb.png\ty\n",
        "image|instruction\na.png|x\nb.png|y\n",
        '"image";"instruction"\n"a.png";"x"\n"b.png";"y"\n',
        "sep=;\nimage;instruction\na.png;x\nb.png;y\n",
        '"sep=\t"\r\nimage\tinstruction\r\na.png\tx\r\nb.png\ty\r\n',
        "\n\nimage;instruction\n\na.png;x\nb.png;y\n",
    ],
)
def test_the_delimiter_is_found(text: str) -> None:
    assert told(items(manifest(text))) == AB


def test_the_delimiter_is_the_one_that_gives_keys() -> None:
    text = "instruction,image\nred; blue; green,a.png\n"
    assert told(items(manifest(text))) == [("a", "red; blue; green")]
    assert told(items(manifest("quelle;was\na.png;x, y\n"), map=("image=quelle", "instruction=was"))) == [("a", "x, y")]


def test_a_tsv_has_tabs_whatever_else_its_lines_hold() -> None:
    assert told(items(manifest("instruction\tfile_name\nred, blue; green\ta.png\n", "m.TSV"))) == [
        ("a", "red, blue; green")
    ]
    [item] = items(manifest("instruction\nred, blue\n", "m.tsv"))
    assert (item.instruction, item.images) == ("red, blue", ())


def test_several_pictures_in_a_cell_of_a_table_with_semicolons() -> None:
    [item] = items(manifest('images;instruction\n"a.png; b.png";x\n'))
    assert item.images == (Path("a.png"), Path("b.png"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json", "m.yaml"])
def test_unicode_in_other_encodings(name: str, encoding: str) -> None:
    line = {"image": "a.png", "instruction": "天 é"}
    text = {
        "m.csv": "image,instruction\r\na.png,天 é\r\n",
        "m.tsv": "image\tinstruction\na.png\t天 é\n",
        "m.jsonl": json.dumps(line, ensure_ascii=False) + "\n",
        "m.json": json.dumps([line]),
        "m.yaml": "defaults: {steps: 3}\nitems:\n- image: a.png\n  instruction: 天 é\n",
    }[name]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    assert told(items(manifest((mark + text).encode(encoding), name))) == [("a", "天 é")]


def test_broken_utf16_is_told() -> None:
    text = "image,instruction\na.png,x\n".encode("utf-16")
    assert refused(manifest(text + b"\x41")) == ["m.csv:3: not valid UTF-8 (save the file as UTF-8)"]
    lone = "\ufeffimage,instruction\na.png,\ud800\n".encode("utf-16-le", "surrogatepass")
    assert refused(manifest(lone)) == ["m.csv:2: not valid UTF-8 (save the file as UTF-8)"]


def test_long_lines_of_utf16_are_bounded() -> None:
    text = '{"image": "a.png", "instruction": "' + "天" * (2 << 20) + '"}\n{"image": "b.png", "instruction": "y"}\n'
    assert refused(manifest(text.encode("utf-16"), "m.jsonl")) == [
        "m.jsonl:1: this line is longer than 4 MiB (write each item on a line of its own)"
    ]


def test_blank_rows_are_passed_over() -> None:
    text = "image,instruction,seed\n,,\na.png,x,\n , ,\t\n\nb.png,y,\n,,\n"
    got = items(manifest(text))
    assert told(got) == AB
    assert [item.origin.line for item in got] == [3, 6]


@pytest.mark.parametrize(
    "text",
    [
        ",image,instruction\n0,a.png,x\n1,b.png,y\n",
        '"",image,instruction\n"1",a.png,x\n"2",b.png,y\n',
        "Unnamed: 0,image,instruction\n10,a.png,x\n7,b.png,y\n",
        ";image;instruction\n0;a.png;x\n1;b.png;y\n",
        "image,instruction,,\na.png,x,,\nb.png,y,,\n",
        "image,instruction\na.png,x,,\nb.png,y\n",
    ],
)
def test_an_index_and_empty_columns_are_passed_over(text: str) -> None:
    assert told(items(manifest(text))) == AB


def test_a_column_without_a_name_that_holds_something_is_told_once() -> None:
    assert refused(manifest(",instruction\na.png,x\nb.png,y\n")) == [
        "m.csv:1: column 1 has no name (the first line names the keys)"
    ]
    assert refused(manifest("image,,instruction\na.png,0,x\nb.png,1,y\n")) == [
        "m.csv:1: column 2 has no name (the first line names the keys)"
    ]


@pytest.mark.parametrize("cell", ["7", "7.0", '"7,0"', " 7 "])
def test_whole_numbers_as_spreadsheets_write_them(cell: str) -> None:
    [item] = items(manifest(f"image,instruction,seed,steps\na.png,x,{cell},{cell}\n"))
    assert (item.sampling.seed, item.sampling.steps) == (7, 7)


@pytest.mark.parametrize("cell", ["7.5", "7.00", '"7,5"', "1e1", "1_0", "0x7", "7."])
def test_other_numbers_are_no_whole_numbers(cell: str) -> None:
    [message] = refused(manifest(f"image,instruction,steps\na.png,x,{cell}\n"))
    assert message.startswith("m.csv:2: steps must be a whole number from 1 to 1000, not ")


def test_a_decimal_comma() -> None:
    got = items(manifest("image;instruction;guidance_scale\na.png;x;4,5\nb.png;y;3.25\n"))
    assert [item.sampling.guidance_scale for item in got] == [4.5, 3.25]


def test_whole_floats_of_json() -> None:
    line = {"image": "a.png", "instruction": "x", "seed": 7.0, "width": 640.0, "height": 480.0}
    [item] = items(manifest(json.dumps(line), "m.jsonl"))
    assert (item.sampling.seed, item.size) == (7, (480, 640))
    assert type(item.sampling.seed) is int


# ---- a picture that is left empty ----

EMPTY = "and an edit needs a picture (--text-to-image makes a picture of the instruction alone)"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("image,instruction\na.png,x\n,y\n", "m.csv", f"m.csv:3: image is empty, {EMPTY}"),
        ("file_name,instruction\n,y\n", "m.csv", f"m.csv:2: file_name is empty, {EMPTY}"),
        ("image,images,instruction\n,,y\n", "m.csv", f"m.csv:2: image is empty, {EMPTY}"),
        ("- image:\n  instruction: y\n", "m.yaml", f"m.yaml:1: image is empty, {EMPTY}"),
    ],
)
def test_an_empty_picture_is_a_fault(text: str, name: str, message: str) -> None:
    assert refused(manifest(text, name)) == [message]
    assert [item.images for item in items(name, text_to_image=True)][-1] == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"image": null, "instruction": "y"}\n{"instruction": "z"}\n', "m.jsonl"),
        ("- {image: null, instruction: y}\n- {image: ~, instruction: z}\n", "m.yaml"),
        ("instruction\ny\nz\n", "m.csv"),
    ],
)
def test_text_to_image_that_is_asked_for(text: str, name: str) -> None:
    assert [(item.images, item.instruction) for item in items(manifest(text, name))] == [((), "y"), ((), "z")]


def test_one_of_two_columns_of_pictures_is_enough() -> None:
    got = items(manifest("image,images,instruction\na.png,,x\n,b.png;c.png,y\n"))
    assert [len(item.images) for item in got] == [1, 2]


# ---- columns ----

LINES = [
    {"source_img": "a.png", "edit": "x", "task": "colour", "width": 640, "output": "gone.jpg"},
    {"source_img": "b.png", "edit": "y", "task": "shape", "width": 480, "output": "gone.jpg"},
]


def as_jsonl() -> str:
    return manifest("".join(json.dumps(line) + "\n" for line in LINES), "m.jsonl")


def as_json() -> str:
    return manifest(json.dumps(LINES), "m.json")


def as_yaml() -> str:
    return manifest("".join(f"- {json.dumps(line)}\n" for line in LINES), "m.yaml")


def as_csv() -> str:
    rows = [",".join(LINES[0]), *(",".join(map(str, line.values())) for line in LINES)]
    return manifest("\n".join(rows))


KINDS = pytest.mark.parametrize("write", [as_jsonl, as_json, as_yaml, as_csv])
MAP = ("image=source_img", "instruction=edit")


@KINDS
def test_columns_are_mapped_ignored_and_kept(write: Any) -> None:
    got = items(write(), map=MAP, ignore=("width,output",), keep=("task,width",))
    assert told(got) == AB
    assert [item.output for item in got] == ["a.png", "b.png"]
    assert [str(item.size) for item in got] == ["None", "None"]
    width: Any = str if write is as_csv else int
    assert [item.columns for item in got] == [
        {"task": "colour", "width": width(640)}, {"task": "shape", "width": width(480)}
    ]  # fmt: skip


@KINDS
def test_all_columns_are_ignored_or_kept(write: Any) -> None:
    got = items(write(), map=MAP, ignore=("all", "width,output"))
    assert told(got) == AB
    assert [item.columns for item in got] == [None, None]
    got = items(write(), map=MAP, ignore=("width", "output"), keep=("all",))
    assert [list(item.columns or ()) for item in got] == [["task", "width", "output"]] * 2


def test_an_unknown_column_is_one_message() -> None:
    header = "image,instruction,category,edit prompt\n"
    known = "(valid: image, images, instruction, id, negative_prompt, seed, steps, guidance_scale, basesize, "
    known += "width, height, size, fit, output, lora, box, mask, seeds, sweep, turns, prompt, edit_prompt, file_name, "
    known += "input_image, "
    known += "source; "
    assert refused(manifest(header + "a.png,x,1,2\n" * 300)) == [
        f"m.csv:1: unknown key 'category' {known}or --map KEY=category, or --ignore-columns category)",
        "m.csv:1: unknown key 'edit prompt' (did you mean 'edit_prompt'?; "
        "or --map instruction=NAME, or --ignore-columns NAME)",
    ]
    line = json.dumps({"image": "a.png", "instruction": "x", "category": 1})
    assert refused(manifest(f"{line}\n" * 300 + '{"image": "a.png"}\n', "m.jsonl")) == [
        f"m.jsonl:1: unknown key 'category', also in 299 more items {known}"
        "or --map KEY=category, or --ignore-columns category)",
        "m.jsonl:301: no instruction (give it with -p, or as 'instruction' of the item)",
    ]


def test_many_unknown_columns_are_told_once() -> None:
    line = json.dumps({"image": "a.png", "instruction": "x", **{f"q{number}": 1 for number in range(15)}})
    got = refused(manifest(f"{line}\n" * 50, "m.jsonl"))
    assert len(got) == 11
    assert got[-1] == "m.jsonl:1: ... and 5 more, also in 49 more items"


def test_a_mapped_key_beside_itself() -> None:
    text = '{"image": "a.png", "source_img": "b.png", "instruction": "x"}\n'
    assert refused(manifest(text, "m.jsonl"), map=("image=source_img",)) == [
        "m.jsonl:1: 'image' and 'source_img' mean the same key (--ignore-columns image reads 'source_img' alone)"
    ]
    assert told(items("m.jsonl", map=("image=source_img",), ignore=("image",))) == [("b", "x")]


def test_columns_may_change_places() -> None:
    text = "image,instruction\nx,a.png\n"
    assert told(items(manifest(text), map=("image=instruction", "instruction=image"))) == [("a", "x")]


def test_a_parameter_of_a_recipe_is_mapped() -> None:
    Path("r.yaml").write_text("instruction: '{thing}'\nparameters: {thing: {}}\n")
    source = manifest("image,what\na.png,cup\n")
    assert told(items(source, map=("thing=what",), recipe=load_recipe("r.yaml"))) == [("a", "cup")]


def test_a_name_that_no_item_has_is_told() -> None:
    source = manifest("image,instruction,tsk\na.png,x,1\n")
    assert refused(source, keep=("task",), ignore=("all",)) == [
        "m.csv: no item has the column 'task', which --map or --keep-columns names (correct its name)"
    ]
    assert told(items(source, ignore=("tsk,never",))) == [("a", "x")]


@KINDS
def test_a_wrong_map_of_the_picture_makes_no_text_to_image(write: Any) -> None:
    got = refused(write(), map=("image=sorce_img", "instruction=edit"), ignore=("all,width,output",))
    file = write()
    line = {"m.csv": 2, "m.json": 1}.get(file, 1)
    assert got == [
        f"{file}:{line}: the item has no 'sorce_img', and an edit needs a picture, also in 1 more item "
        "(--text-to-image makes a picture of the instruction alone)",
        f"{file}: no item has the column 'sorce_img', which --map or --keep-columns names (correct its name)",
    ]


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ({"map": ("image",)}, ["--map takes KEY=COLUMN, for example image=source_img, not 'image'"]),
        ({"map": ("=x",)}, ["--map takes KEY=COLUMN, for example image=source_img, not '=x'"]),
        ({"map": ("image=x", "image=y")}, ["--map gives 'image' twice"]),
        ({"map": ("image=x", "id=x")}, ["--map gives 'x' twice"]),
        ({"map": ("image=x",), "ignore": ("x",)}, ["--map and --ignore-columns both name the column 'x'"]),
        ({"keep": ("caf\udce9",)}, ["the name of a column has bytes that are no UTF-8"]),
        ({"map": ("imge=x",)}, ["--map: joyedit has no key 'imge' (did you mean 'image'?)"]),
    ],
)
def test_flags_that_cannot_work(given: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        open_source(as_jsonl(), options(**given))
    assert str(error.value).split("\n") == messages


def test_defaults_are_mapped_too() -> None:
    text = "defaults: {edit: x, note: 012}\nitems:\n- {image: a.png, note: 1_0}\n"
    assert told(items(manifest(text, "m.yaml"), map=("instruction=edit",), ignore=("note",))) == [("a", "x")]


def test_kept_columns_are_bounded_and_are_json() -> None:
    line = {"image": "a.png", "instruction": "x", "odd": [float("nan"), {"deep": None}, True], "big": "y" * 60_000}
    [item] = items(manifest(json.dumps(line), "m.jsonl"), keep=("odd", "big"))
    assert item.columns == {"odd": ["nan", {"deep": None}, True], "big": "y" * 60_000}
    too_large = (
        "the columns to keep have more than 64 KiB, or are too deep (name those to keep: --keep-columns NAME,NAME)"
    )
    for odd in ("y" * MAX_KEPT, ["y"] * MAX_KEPT, json.loads("[" * 30 + "]" * 30), 10**4000 * 10**200):
        line |= {"odd": odd, "big": "y"}
        source = manifest(json.dumps(line) + "\n", "m.jsonl")
        if isinstance(odd, int):
            assert items(source, keep=("odd,big",))[0].columns == {"odd": odd, "big": "y"}
        else:
            assert refused(source, keep=("odd,big",)) == [f"m.jsonl:1: {too_large}"]


@pytest.mark.parametrize(("name", "form"), [("m.jsonl", "{}\n"), ("m.json", "[{}]"), ("m.yaml", "- {}\n")])
def test_what_is_inside_a_kept_column_is_no_column(name: str, form: str) -> None:
    line = {"image": "a.png", "instruction": "x", "meta": {"score": [{"other": 3}]}, "score": 4}
    [item] = items(manifest(form.format(json.dumps(line)), name), keep=("meta",), ignore=("all",))
    assert item.columns == {"meta": {"score": [{"other": 3}]}}


def test_many_kept_columns_take_linear_time() -> None:
    """Each name was compared with all others: these would take minutes."""
    names = [f"c{number}" for number in range(50_000)]
    text = "image,instruction," + ",".join(names) + "\na.png,x" + "," * len(names) + "\n"
    [message] = refused(manifest(text), keep=("all",))
    assert message.startswith("m.csv:2: the columns to keep have more than 64 KiB")


def test_aliases_do_not_make_a_kept_column_huge() -> None:
    text = f"- {{image: a.png, instruction: x, note: &n {'y' * 5_000}, more: [{'*n, ' * 100}]}}\n"
    [message] = refused(manifest(text, "m.yaml"), keep=("all",))
    assert message.startswith("m.yaml:1: the columns to keep have more than 64 KiB")


@KINDS
def test_verify_reads_the_same_ids_again(write: Any) -> None:
    source = open_source(write(), options(map=MAP, ignore=("width", "output"), keep=("task",)))
    asked = json.loads(json.dumps(source.asked()))
    assert (
        [item.id for item in reopen(asked, Path("out")).items()] == [item.id for item in source.items()] == ["a", "b"]
    )


def test_ids_know_of_mapped_columns_before_the_first_line_is_taken() -> None:
    """Two lines of one picture have longer ids in any order, so the first pass must know what the columns mean."""
    lines = [{"src": "a.png", "edit": "x"}, {"src": "a.png", "edit": "y"}]
    ids = []
    for order in (lines, lines[::-1]):
        source = manifest("".join(json.dumps(line) + "\n" for line in order), "m.jsonl")
        ids.append({item.instruction: item.id for item in items(source, map=("image=src", "instruction=edit"))})
    assert ids[0] == ids[1]
    assert all(name.startswith("a-") for name in ids[0].values())


def test_what_changes_items_is_shared_and_nothing_else() -> None:
    plain = open_source(as_jsonl(), options()).shared()
    assert "columns" not in plain
    assert "text_to_image" not in plain
    assert open_source(as_jsonl(), options(keep=("task",), skip_missing=True)).shared() == plain
    for given in ({"map": MAP}, {"ignore": ("task",)}, {"text_to_image": True}):
        assert open_source(as_jsonl(), options(**given)).shared() != plain


def test_lines_of_standard_input_have_columns_too() -> None:
    text = "".join(json.dumps(line) + "\n" for line in LINES).encode()
    source = open_source("-", options(map=MAP, ignore=("width,output",), keep=("task",)), io.BytesIO(text))
    got = [item for item in source.items() if isinstance(item, EditItem)]
    assert [(item.id, item.columns) for item in got] == [("a", {"task": "colour"}), ("b", {"task": "shape"})]


# ---- pictures that are missing ----


def test_missing_pictures_are_skipped_and_recorded() -> None:
    lines = [{"image": name, "instruction": "x"} for name in ("a.png", "gone.png", "b.png")]
    source = manifest("".join(json.dumps(line) + "\n" for line in lines), "m.jsonl")
    assert refused(source) == [f"m.jsonl:2: no such picture: 'gone.png' (paths are relative to '{os.getcwd()}')"]
    opened = open_source(source, options(skip_missing=True))
    assert opened.check().items == 3
    assert [item.id for item in opened.items()] == ["a", "gone", "b"]


def test_a_manifest_without_any_of_its_pictures_is_refused() -> None:
    lines = [{"image": name, "instruction": "x"} for name in ("gone.png", "lost.png")]
    source = manifest("".join(json.dumps(line) + "\n" for line in lines), "m.jsonl")
    assert refused(source, skip_missing=True) == [
        "m.jsonl: the pictures of all 2 items are missing, and --skip-missing skips only some: "
        f"no such picture: 'gone.png' (paths are relative to '{os.getcwd()}')"
    ]


def test_other_faults_are_not_skipped() -> None:
    Path("folder").mkdir()
    source = manifest('{"image": "folder", "instruction": "x"}\n{"image": "gone.png"}\n', "m.jsonl")
    assert refused(source, skip_missing=True) == [
        "m.jsonl:1: 'folder' is a folder, not a picture",
        "m.jsonl:2: no instruction (give it with -p, or as 'instruction' of the item)",
    ]


@pytest.mark.parametrize("form", ["{}\n", '{{"image": "{}"}}\n'])
def test_a_missing_picture_on_standard_input_fails_alone(form: str) -> None:
    text = "".join(form.format(name) for name in ("lost.png", "a.png", "A.PNG")).encode()
    source = open_source("-", options(prompt="x"), io.BytesIO(text))
    source.check()
    got = list(source.items())
    assert [(item.id, getattr(item, "code", "ok")) for item in got] == [
        ("lost", "missing_picture"), ("a", "ok"), ("A-2", "missing_picture"),
    ]  # fmt: skip
    last = got[2]
    assert isinstance(last, FailedItem)
    assert last.item is not None
    assert last.message == "-:3: no such picture: 'A.PNG' (did you mean 'a.png'?)"
