"""A folder with its instructions in it: a list of its pictures, or a text file beside each of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import Source, SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b.jpg", "in/sub/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), "red").save(name)
    return tmp_path


def write(**texts: str | bytes) -> None:
    """The text files of pictures, by their paths below `in` with _ for /."""
    for name, text in texts.items():
        path = Path("in", name.replace("_", "/") + ".txt")
        path.write_bytes(text.encode() if isinstance(text, str) else text)


def source(name: str = "in", **given: Any) -> Source:
    return open_source(name, SourceOptions(**{"output": Path("out"), **given}))


def told(opened: Source) -> list[tuple[str, str]]:
    summary = opened.check()
    got = list(opened.items())
    assert summary.items == len(got)
    assert all(isinstance(item, EditItem) for item in got), got
    return [(item.id, item.instruction) for item in got]


def refused(opened: Source) -> list[str]:
    with pytest.raises(ManifestError) as error:
        opened.check()
    return str(error.value).split("\n")


# ---- text files ----


def test_text_files_are_instructions() -> None:
    write(a="make it red\n", b="\ufeffmake it\r\nblue \n", sub_c="天".encode("utf-16"))
    Path("in/notes.md").write_text("no picture")
    opened = source()
    assert told(opened) == [("a", "make it red"), ("b", "make it\r\nblue"), ("sub/c", "天")]
    assert opened.check().passed.count == 1
    assert [item.id for item in reopen(opened.asked(), Path("out")).items()] == ["a", "b", "sub/c"]


def test_an_instruction_for_all_is_stronger() -> None:
    write(a="x", b="y", sub_c="z")
    opened = source(prompt="typed")
    assert {text for _, text in told(opened)} == {"typed"}
    assert opened.check().passed.count == 3


def test_a_template_takes_the_texts_in() -> None:
    write(a="x", b="y", sub_c="z")
    Path("r.yaml").write_text("instruction: 'Do: {instruction}'\n")
    assert told(source(recipe=load_recipe("r.yaml")))[0] == ("a", "Do: x")
    assert "Yaw" in told(source(recipe=load_recipe("camera")))[0][1]


def test_each_picture_without_a_text_is_told() -> None:
    write(a="x", b=" \n")
    remedy = "(write it there, or give it with -p)"
    assert refused(source()) == [
        f"in/b.jpg: no instruction: 'in/b.txt' is empty {remedy}",
        f"in/sub/c.png: no instruction: there is no 'in/sub/c.txt' beside this picture {remedy}",
    ]


def test_no_text_at_all() -> None:
    remedy = "(give it with -p, or in a text file beside each picture: x.txt beside x.jpg)"
    assert refused(source()) == [f"in: no instruction {remedy}"]


def test_texts_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.job.source import beside_pictures

    monkeypatch.setattr(beside_pictures, "MAX_ITEM", 1 << 20)
    write(a=b"\xff", b="x\0y")
    os.mkfifo("in/sub/c.txt")
    Image.new("RGB", (8, 6)).save("in/d.png")
    Image.new("RGB", (8, 6)).save("in/e.png")
    write(d=b"x" * ((1 << 20) + 1), e="fine")
    holds = "(it holds the instruction of the picture beside it)"
    assert refused(source()) == [
        "in/a.png: 'in/a.txt' is not valid UTF-8 (save the file as UTF-8)",
        "in/b.jpg: no instruction: 'in/b.txt' has a NUL character (write it there, or give it with -p)",
        f"in/d.png: 'in/d.txt' has more than 1 MiB {holds}",
        f"in/sub/c.png: 'in/sub/c.txt' is no file {holds}",
    ]


def test_a_text_that_is_gone_since_the_check_fails_its_picture() -> None:
    write(a="x", b="y", sub_c="z")
    opened = source()
    opened.check()
    os.remove("in/b.txt")
    got = list(opened.items())
    assert [(item.id, getattr(item, "code", "ok")) for item in got] == [
        ("a", "ok"), ("b", "no_instruction"), ("sub/c", "ok")
    ]  # fmt: skip
    failed = got[1]
    assert isinstance(failed, FailedItem)
    assert failed.message == (
        "in/b.jpg: no instruction: there is no 'in/b.txt' beside this picture (write it there, or give it with -p)"
    )


def test_a_text_beside_one_picture() -> None:
    write(a="make it red\n")
    assert told(source("in/a.png")) == [("a", "make it red")]
    assert told(source("in/a.png", prompt="typed")) == [("a", "typed")]
    assert refused(source("in/b.jpg")) == [
        "in/b.jpg: no instruction (give it with -p, or as 'instruction' of the item)"
    ]


# ---- a list ----


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "edit_prompt": "x"}\n{"file_name": "sub/c.png", "prompt": "y"}\n'),
        ("metadata.csv", "file_name,edit_prompt\na.png,x\nsub/c.png,y\n"),
    ],
)
def test_the_list_of_an_image_folder_is_read(name: str, text: str) -> None:
    Path("in", name).write_text(text)
    opened = source()
    assert told(opened) == [("a", "x"), ("sub/c", "y")]
    assert (opened.name, opened.kind) == ("in", "imagefolder")
    assert [item.id for item in reopen(opened.asked(), Path("out")).items()] == ["a", "sub/c"]
    assert [name for name, _ in told(source(prompt="typed"))] == ["a", "b", "sub/c"]


def test_a_list_gives_the_parameters_of_a_recipe() -> None:
    Path("in/metadata.csv").write_text("file_name,object,view\na.png,cup,left\n")
    [(name, text)] = told(source(recipe=load_recipe("object-rotate")))
    assert name == "a"
    assert "cup" in text


def test_two_lists_are_refused() -> None:
    for name in ("metadata.jsonl", "metadata.csv"):
        Path("in", name).write_text("")
    with pytest.raises(UsageError) as error:
        source()
    assert str(error.value) == (
        "in: the lists metadata.csv and metadata.jsonl are both there (leave one out with --exclude)"
    )
    assert source("in/metadata.csv").kind == "csv"


def test_a_torn_table_of_parquet_is_named() -> None:
    Path("in/metadata.parquet").write_bytes(b"PAR1")
    [message] = refused(source())
    assert message.startswith("in/metadata.parquet: this Parquet file cannot be read: ")
    assert message.endswith("(download or write this file again, or leave it out with --exclude)")


@pytest.mark.parametrize("name", ["M.XLSX", "m.xls", "m.ods", "m.feather"])
def test_other_tables_are_refused_with_a_remedy(name: str) -> None:
    Path(name).write_bytes(b"x")
    with pytest.raises(UsageError, match=rf"^{name}: joyedit reads no .* \(save it as .csv or .jsonl\)$"):
        source(name)


@pytest.mark.parametrize("names", [("data:image/png;base64,AAAA",), ("in", "data:,x")])
def test_a_picture_is_no_name_of_a_source(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"is no name but a picture \(send it to standard input"):
        open_source(names, SourceOptions(prompt="x", output=None))
