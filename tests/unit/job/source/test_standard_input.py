"""What comes on standard input, by its first line; and lists of paths in files."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.sources import Source, SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem

NAMES = ("a.png", "sub/b.png", "two\nlines.png", "[1].png", "image,x.png")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(name)
    return tmp_path


def options(**more: Any) -> SourceOptions:
    return SourceOptions(**({"output": None, "prompt": "go"} | more))


def piped(data: bytes, **more: Any) -> list[EditItem | FailedItem]:
    return list(open_source("-", options(**more), io.BytesIO(data)).items())


def paths(items: list[EditItem | FailedItem]) -> list[str]:
    assert all(isinstance(item, EditItem) for item in items)
    return [str(item.images[0]) for item in items]


def test_paths_with_a_nul_behind_each() -> None:
    assert paths(piped(b"\0".join(name.encode() for name in NAMES) + b"\0")) == list(NAMES)
    assert paths(piped(b"a.png\0sub/b.png")) == ["a.png", "sub/b.png"]
    assert paths(piped(b"a.png\0two\nlines.png\0")) == ["a.png", "two\nlines.png"]


def test_a_name_with_a_line_end_becomes_a_safe_id() -> None:
    [_, item] = piped(b"a.png\0two\nlines.png\0")
    assert isinstance(item, EditItem)
    assert item.id == "two_lines"


def test_bytes_that_are_no_utf8_between_nuls_fail_alone() -> None:
    first, bad, last = piped(b"a.png\0\xff.png\0sub/b.png\0")
    assert isinstance(bad, FailedItem)
    assert bad.code == "bad_line"
    assert paths([first, last]) == ["a.png", "sub/b.png"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table(delimiter: str) -> None:
    rows = [["image", "instruction", "seed"], ["a.png", "blue", "7"], ["sub/b.png", "red", ""]]
    data = "".join(delimiter.join(row) + "\n" for row in rows).encode()
    one, other = piped(data, prompt=None)
    assert isinstance(one, EditItem)
    assert isinstance(other, EditItem)
    assert (str(one.images[0]), one.instruction, one.sampling.seed, one.origin.line) == ("a.png", "blue", 7, 2)
    assert (other.instruction, other.sampling.seed) == ("red", 42)


def test_a_table_of_one_column() -> None:
    assert paths(piped(b"image\na.png\n")) == ["a.png"]


def test_a_table_with_a_mark_in_front() -> None:
    assert paths(piped(b"\xef\xbb\xbfimage,instruction\na.png,x\n")) == ["a.png"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_list(indent: int | None) -> None:
    lines = [{"image": "a.png", "instruction": "blue"}, {"image": "sub/b.png", "instruction": "red"}]
    got = piped(json.dumps(lines, indent=indent).encode(), prompt=None)
    assert [item.instruction for item in got] == ["blue", "red"]


def test_names_of_files_that_look_like_something_else() -> None:
    assert paths(piped(b"[1].png\na.png\n")) == ["[1].png", "a.png"]
    assert paths(piped(b"image,x.png\na.png\n")) == ["image,x.png", "a.png"]


def test_blank_lines_in_front() -> None:
    assert paths(piped(b"\n\n  \na.png\n")) == ["a.png"]
    [item] = piped(b'\n\n{"image": "a.png"}\n')
    assert item.origin.line == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "is empty"), (b"\n \n", "is empty"), (b"[]", "has no items"), (b"image\n", "has no items")],
)
def test_nothing_comes(data: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=f"standard input {message}"):
        piped(data)


def test_a_table_that_gives_its_delimiter_first() -> None:
    assert paths(piped(b"sep=;\nimage;instruction\na.png;x\n")) == ["a.png"]


def test_a_broken_json_list() -> None:
    with pytest.raises(ManifestError, match="-:1: broken JSON"):
        piped(b'[{"image": ')


def test_a_table_gives_each_row_as_it_comes() -> None:
    """Whoever sends them may wait for a result before the next one."""
    reader, writer = os.pipe()
    with open(reader, "rb") as stream:
        source = open_source("-", options(), stream)
        os.write(writer, b"image,instruction\na.png,one\n")
        items = source.items()
        assert next(items).instruction == "one"
        os.write(writer, b"sub/b.png,two\n")
        assert next(items).instruction == "two"
        os.close(writer)
        assert next(items, None) is None


# ---- lists in files ----


def listed(data: bytes, name: str = "@list.txt") -> Source:
    Path(name[1:]).write_bytes(data)
    return open_source(name, options(output=Path("out")))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_a_list_of_paths(end: bytes) -> None:
    source = listed(b"a.png" + end + b"sub/b.png" + end)
    assert source.check().items == 2
    assert [item.id for item in source.items()] == ["a", "sub/b"]


def test_a_list_elsewhere_has_paths_from_here(place: Path) -> None:
    Path("lists").mkdir()
    source = listed(b"sub/b.png\n", "@lists/l.txt")
    source.check()
    assert paths(list(source.items())) == ["sub/b.png"]


def test_a_missing_picture_of_a_list_is_told_with_its_line() -> None:
    with pytest.raises(ManifestError, match=r"list\.txt:2: no such picture: 'gone\.png'"):
        listed(b"a.png\ngone.png\n").check()


def test_the_same_ids_from_what_the_report_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = listed(b"a.png\nsub/b.png\n").asked()
    monkeypatch.chdir("sub")
    assert [item.id for item in reopen(asked, Path("out")).items()] == ["a", "sub/b"]


def test_a_list_that_is_not_there_or_not_alone() -> None:
    with pytest.raises(UsageError, match=r"there is no list of paths 'gone\.txt'"):
        open_source("@gone.txt", options(output=Path("out")))
    with pytest.raises(UsageError, match="a list of paths is a source alone"):
        open_source(("@gone.txt", "a.png"), options(output=Path("out")))
    Path("list.txt").write_text("a.png")
    with pytest.raises(UsageError, match=r"@list\.txt reads a list of paths"):
        open_source("list.txt", options(output=Path("out")))


def test_a_file_whose_name_begins_with_the_sign() -> None:
    Image.new("RGB", (4, 4)).save("@x.png")
    assert [item.id for item in open_source("@x.png", options(output=Path("out"))).items()] == ["@x"]


# ---- UTF-16 and UTF-32 ----

ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def marked(text: str, encoding: str) -> bytes:
    data = text.encode(encoding)
    return data if encoding in ("utf-16", "utf-32") else "\ufeff".encode(encoding) + data


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "text",
    [
        '{"image": "a.png", "instruction": "bl\u00e4ue"}\r\n',
        "image\tinstruction\r\na.png\tbl\u00e4ue\r\n",
        '[{"image": "a.png", "instruction": "bl\u00e4ue"}]',
    ],
)
def test_other_encodings_begin_with_their_mark(encoding: str, text: str) -> None:
    [item] = piped(marked(text, encoding), prompt=None)
    assert isinstance(item, EditItem)
    assert (str(item.images[0]), item.instruction) == ("a.png", "bl\u00e4ue")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_paths_in_other_encodings(encoding: str) -> None:
    assert paths(piped(marked("a.png\r\nsub/b.png\r\n", encoding))) == ["a.png", "sub/b.png"]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("encoding", ["utf-8-sig", *ENCODINGS])
def test_a_stream_in_small_parts(size: int, encoding: str) -> None:
    reader, writer = os.pipe()
    data = marked("a.png\nsub/b.png\n", encoding) if encoding != "utf-8-sig" else "\ufeffa.png\nsub/b.png\n".encode()

    def send() -> None:
        for at in range(0, len(data), size):
            os.write(writer, data[at : at + size])
        os.close(writer)

    sender = threading.Thread(target=send)
    with open(reader, "rb", buffering=0) as stream:
        sender.start()
        assert paths(list(open_source("-", options(), stream).items())) == ["a.png", "sub/b.png"]
        sender.join()


@pytest.mark.parametrize("more", [b"\x00", b"\x00\xdc"])
def test_a_broken_end_fails_alone(more: bytes) -> None:
    first, bad = piped(marked("a.png\n", "utf-16-le") + more)
    assert paths([first]) == ["a.png"]
    assert isinstance(bad, FailedItem)
    assert bad.message.startswith("-:2: not valid UTF-8")


def test_a_line_that_breaks_in_the_middle_keeps_the_lines_before_it() -> None:
    data = marked("a.png\nsub/b.png\nsub", "utf-32-le") + b"\xff\xff\xff\xff" + "x.png\na.png\n".encode("utf-32-le")
    first, second, bad = piped(data)
    assert paths([first, second]) == ["a.png", "sub/b.png"]
    assert isinstance(bad, FailedItem)


@pytest.mark.parametrize("start", [b"\xff", b"\xfe", b"\xff\xfe", b"\0", b"\0\0\xfe"])
def test_only_a_mark(start: bytes) -> None:
    with pytest.raises(ManifestError):
        piped(start)
