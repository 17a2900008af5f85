"""Folders, single pictures and standard input."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ItemError, ManifestError, UsageError
from joyedit.job.pictures.decode import header_size
from joyedit.job.source.recipe_reader import load_recipe
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling, Settings


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        suffix = os.path.splitext(name)[1].lower()
        with open(name, "wb") as file:
            Image.new("RGB", (4, 4)).save(file, "JPEG" if suffix in (".jpg", ".jpeg") else "PNG")


def source(name: str, stdin: bytes | None = None, **given: Any) -> Source:
    given = {"output": Path("out"), "prompt": "go", **given}
    return open_source(name, SourceOptions(**given), None if stdin is None else io.BytesIO(stdin))


def names(opened: Source) -> list[tuple[str, str, str]]:
    """(picture, id, output) of each item."""
    got = []
    for item in opened.items():
        assert isinstance(item, EditItem)
        got.append((str(item.images[0]), item.id, item.output))
    return got


def refused(opened: Source) -> list[str]:
    with pytest.raises(ManifestError) as error:
        opened.check()
    return str(error.value).split("\n")


# ---- folders ----


def test_the_tree_is_mirrored() -> None:
    draw("in/b.png", "in/a.jpg", "in/sub/deep/c.JPEG", "in/B2.webp")
    Path("in/notes.txt").write_text("x")
    Path("in/sub/.hidden.png").write_text("x")
    draw("in/.git/d.png")
    opened = source("in")
    summary = opened.check()
    assert (summary.items, summary.passed.count) == (4, 3)
    assert names(opened) == [
        ("in/a.jpg", "a", "a.png"),
        ("in/b.png", "b", "b.png"),
        ("in/B2.webp", "B2", "B2.png"),
        ("in/sub/deep/c.JPEG", "sub/deep/c", "sub/deep/c.png"),
    ]


def test_an_item_of_a_folder_is_complete() -> None:
    draw("in/a.png")
    [item] = source("in", flags=Settings(steps=3, width=640, height=480)).items()
    assert item == EditItem(
        id="a",
        images=(Path("in/a.png"),),
        instruction="go",
        sampling=Sampling(steps=3),
        basesize=1024,
        size=(480, 640),
        result_size="640x480",
        fit="auto",
        output="a.png",
        origin=Origin(file="in"),
    )


@pytest.mark.parametrize(
    ("format", "wanted"),
    [
        ("png", {"a.png": "a.png.png", "a.jpg": "a.jpg.png", "a.webp": "a.webp.png", "A.gif": "A.gif.png"}),
        ("jpg", {"a.jpg": "a.jpg.jpg", "A.gif": "A.gif.jpg", "a.png": "a.png.jpg", "a.webp": "a.webp.jpg"}),
    ],
)
def test_pictures_of_one_stem_keep_their_endings(format: str, wanted: dict[str, str]) -> None:
    draw(*(f"in/{name}" for name in wanted))
    got = {Path(path).name: output for path, _, output in names(source("in", format=format))}
    assert got == wanted
    assert len({output.lower() for output in got.values()}) == 4


def test_pictures_that_differ_only_in_case_have_marks() -> None:
    draw("in/a.png", "in/A.PNG", "in/a.jpg")
    got = {path: re.sub("-[0-9a-f]{10}", "-#", name) for path, name, _ in names(source("in"))}
    assert got == {"in/a.png": "a.png-#", "in/A.PNG": "A.PNG-#", "in/a.jpg": "a.jpg"}
    assert len({name for _, name, _ in names(source("in"))}) == 3


def test_what_still_clashes_is_counted() -> None:
    draw("in/a.jpg", "in/a.png", "in/a.jpg.webp", "in/S/x.png", "in/s/x.png")
    assert [(path, output) for path, _, output in names(source("in"))] == [
        ("in/a.jpg", "a.jpg.png"),
        ("in/a.png", "a.png.png"),
        ("in/a.jpg.webp", "a.jpg.webp.png"),
        ("in/S/x.png", "S/x.png"),
        ("in/s/x.png", "s/x.png.png"),
    ]


def test_names_that_are_unsafe_are_made_safe() -> None:
    draw(
        "in/con.png",
        "in/a\nb.png",
        "in/c:d.png",
        "in/e\\f.png",
        "in/dir./g .png",
        "in/" + "é" * 110 + ".png",
    )
    got = {path: name for path, name, _ in names(source("in"))}
    long = got.pop("in/" + "é" * 110 + ".png")
    assert long.startswith("é" * 90 + "-")
    assert len(long.encode()) == 189
    assert got == {
        "in/con.png": "_con", "in/a\nb.png": "a_b", "in/c:d.png": "c_d", "in/e\\f.png": "e_f",
        "in/dir./g .png": "dir_/g_",
    }  # fmt: skip


def test_a_name_that_is_no_text_fails_alone(place: Path) -> None:
    draw("in/a.png")
    try:
        (place / "in" / os.fsdecode(b"b\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    first, second = source("in").items()
    assert isinstance(first, EditItem)
    assert second == FailedItem(
        id="b_",
        images=(),
        instruction="go",
        origin=Origin(file="in"),
        code="unreadable_picture",
        message="b\\udcff.png: the file name is not valid UTF-8; rename it",
    )


def test_a_picture_that_cannot_be_read_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as without the extra
    draw("in/a.png")
    Path("in/b.png").write_text("no picture")
    Path("in/c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    os.symlink("nowhere", "in/d.png")
    opened = source("in")
    assert opened.check().items == 4
    reasons = []
    for item in opened.items():
        assert isinstance(item, EditItem)
        try:
            header_size(item.images[0])
        except ItemError as error:
            reasons.append((error.code, str(error).split(": ")[1].split(" ")[0]))
    assert reasons == [("unreadable_picture", "it"), ("unreadable_picture", "HEIC"), ("missing_picture", "no")]


def test_links_are_followed_but_not_in_a_circle() -> None:
    draw("in/sub/a.png", "other/b.png")
    os.symlink("..", "in/sub/up")
    os.symlink(os.path.abspath("other"), "in/link")
    os.symlink("self", "in/self")
    opened = source("in")
    assert [path for path, _, _ in names(opened)] == ["in/sub/a.png", "in/link/b.png"]
    assert opened.check().passed.count == 1


def test_the_output_folder_inside_the_source_is_passed_over() -> None:
    draw("in/a.png", "in/out/a.png", "in/sub/b.png")
    opened = source("in", output=Path("in/out"))
    summary = opened.check()
    assert (summary.items, summary.passed.count) == (2, 0)
    assert [path for path, _, _ in names(opened)] == ["in/a.png", "in/sub/b.png"]


def test_the_source_cannot_be_the_output() -> None:
    draw("in/a.png")
    os.symlink("in", "link")
    for output in ("in", "./in/", "link"):
        with pytest.raises(UsageError) as error:
            source("in", output=Path(output))
        assert str(error.value) == "in: the output folder is the source folder (choose another with -o)"


def test_refusals_of_a_folder() -> None:
    Path("in").mkdir()
    Path("in/notes.txt").write_text("x")
    assert refused(source("in")) == ["in: no pictures in this folder, 1 x no picture"]
    draw("in/a.png")
    assert refused(source("in", prompt=None)) == [
        "in: no instruction (give it with -p, or in a text file beside each picture: x.txt beside x.jpg)"
    ]
    assert refused(source("in", prompt=None, recipe=load_recipe("object-rotate"), recipe_values={"view": "left"})) == [
        "in: the recipe 'object-rotate' needs a value for 'object' "
        "(give it with --set object=..., or as a key of the item)"
    ]
    assert refused(source("in", flags=Settings(width=64))) == ["in: width and height go together (give both or none)"]


def test_a_folder_with_a_recipe() -> None:
    draw("in/a.png")
    [item] = source("in", prompt=None, recipe=load_recipe("camera"), recipe_values={"yaw": "30"}).items()
    assert item.instruction.startswith("Move the camera.\n- Camera rotation: Yaw 30°, Pitch 0°.\n")


def test_a_source_folder_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    draw("in/a.png")

    def fails(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", fails)
    assert refused(source("in")) == ["in: cannot read this folder: Permission denied"]


# ---- one picture ----


def test_one_picture() -> None:
    draw("in/a.jpg")
    opened = source("in/a.jpg")
    summary = opened.check()
    assert (summary.items, summary.passed.count, opened.kind) == (1, 0, "picture")
    assert list(opened.items()) == [
        EditItem(
            id="a",
            images=(Path("in/a.jpg"),),
            instruction="go",
            sampling=Sampling(),
            basesize=1024,
            size=None,
            result_size="input",
            fit="auto",
            output="a.png",
            origin=Origin(file="in/a.jpg"),
        )
    ]
    assert refused(source("in/a.jpg", prompt=None)) == [
        "in/a.jpg: no instruction (give it with -p, or as 'instruction' of the item)"
    ]


def test_one_picture_is_not_overwritten() -> None:
    draw("a.png")
    assert names(source("a.png", output=Path("."))) == [("a.png", "a-2", "a-2.png")]


# ---- standard input ----


def test_json_lines_on_standard_input() -> None:
    draw("a.png", "b.png")
    lines = [{"image": "a.png", "instruction": "x"}, {"image": "b.png"}]
    opened = source("-", "".join(f"{json.dumps(line)}\n\n" for line in lines).encode())
    summary = opened.check()
    assert (summary.items, summary.settings.steps) == (None, 40)
    assert [(i.id, i.instruction, i.origin) for i in opened.items()] == [
        ("a", "x", Origin(file="-", line=1)),
        ("b", "go", Origin(file="-", line=3)),
    ]


def test_paths_on_standard_input() -> None:
    draw("a.png", "sub/b b .png", "{c}.png")
    opened = source("-", b"a.png\r\nsub/b b .png\n\n{c}.png\na.png\n")
    assert names(opened) == [
        ("a.png", "a", "a.png"),
        ("sub/b b .png", "sub/b b_", "sub/b b_.png"),
        ("{c}.png", "{c}", "{c}.png"),
        ("a.png", "a-2", "a-2.png"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "-: standard input is empty"),
        (b"\n \n", "-: standard input is empty"),
        (b'{"image": 3}', "-:1: image must be the path of one picture, not 3"),
        (b"{nonsense", "-:1: broken JSON: Expecting property name enclosed in double quotes (column 2) "
         "(each line is one JSON object)"),
        (b"\xff\n", "-:1: not valid UTF-8 (byte 0xff at column 1) (save the file as UTF-8)"),
    ],
)  # fmt: skip
def test_the_first_line_of_standard_input_is_checked(text: bytes, message: str, place: Path) -> None:
    assert refused(source("-", text)) == [message.replace("{here}", str(place))]


def test_later_bad_lines_of_standard_input_fail_alone() -> None:
    draw("a.png")
    good = json.dumps({"image": "a.png"})
    bad = [b'{"image": "gone.png"}', b"nonsense", b'{"image": "a.png", "id": "line-3", "steps": 0}', b"\xff"]
    opened = source("-", good.encode() + b"\n" + b"\n".join(bad) + b"\n" + good.encode())
    opened.check()
    got = list(opened.items())
    assert [(item.id, getattr(item, "code", "ok"), item.origin.line) for item in got] == [
        ("a", "ok", 1),
        ("gone", "missing_picture", 2),
        ("line-3", "bad_line", 3),
        ("line-4", "bad_line", 4),
        ("line-5", "bad_line", 5),
        ("a-2", "ok", 6),
    ]
    fourth = got[3]
    assert isinstance(fourth, FailedItem)
    assert fourth.message == "-:4: steps must be a whole number from 1 to 1000, not 0"


def test_standard_input_is_a_stream() -> None:
    """No line is read before it is asked for, and none behind the limit."""
    draw("a.png")
    read: list[int] = []

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.lines: Iterator[bytes] = iter(b'{"image": "a.png"}\n' for _ in range(100))

        def readline(self, size: int | None = -1, /) -> bytes:
            read.append(1)
            return next(self.lines, b"")

    opened = open_source(
        "-",
        SourceOptions(output=Path("out"), prompt="go", limit=3),
        Pipe(),  # type: ignore[arg-type]
    )
    opened.check()
    assert len(read) == 1
    items = opened.items()
    assert [next(items).id, next(items).id] == ["a", "a-2"]
    assert len(read) == 2
    assert [item.id for item in items] == ["a-3"]
    assert len(read) == 3
