"""Pictures that stand in a line of the source (`data:` URIs): what is read, refused, held, and how they are named."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image

from joyedit.errors import ItemError, ManifestError
from joyedit.job.data_picture import DataPicture, held_by
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.decode import header_size, load_picture
from joyedit.job.plan import plan
from joyedit.job.source import text
from joyedit.job.source.data_uris import DataUriError, is_data, picture_of
from joyedit.job.source.sources import SourceOptions, open_source, reopen
from joyedit.job.spec import Batch, EditItem, FailedItem


def encoded(colour: str, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def uri(data: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(data).decode()


RED, BLUE = encoded("red"), encoded("blue", "JPEG")


def id_of(data: bytes) -> str:
    return f"data-{hashlib.sha256(data).hexdigest()[:12]}"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def manifest(*lines: dict[str, Any], name: str = "m.jsonl") -> str:
    Path(name).write_text("".join(json.dumps({"instruction": "x"} | line) + "\n" for line in lines))
    return name


def options(**given: Any) -> SourceOptions:
    return SourceOptions(**{"output": Path("out"), **given})


def items(source: str, **given: Any) -> list[EditItem]:
    opened = open_source(source, options(**given))
    opened.check()
    got = list(opened.items())
    assert all(isinstance(item, EditItem) for item in got), got
    assert [item.id for item in reopen(opened.asked(), Path("out")).items()] == [item.id for item in got]
    return got  # type: ignore[return-value]


def only(item: EditItem) -> DataPicture:
    [picture] = item.images
    assert isinstance(picture, DataPicture)
    return picture


# ---- URIs ----


@pytest.mark.parametrize(
    "written",
    [
        uri(RED),
        uri(RED, "data:;base64,"),
        uri(RED, "DATA:image/PNG;Base64,"),
        uri(RED, "data:text/html;charset=utf-8;base64,"),
        uri(RED).rstrip("="),
        uri(RED).replace("=", "%3D").replace("+", "%2B").replace("/", "%2F"),
        "data:image/png;base64," + base64.urlsafe_b64encode(RED).decode(),
        "data:image/png;base64," + base64.encodebytes(RED).decode(),
        "data:image/png," + quote_from_bytes(RED),
        "data:," + quote_from_bytes(RED),
    ],
)
def test_every_form_gives_the_same_bytes_and_the_same_name(written: str) -> None:
    picture = picture_of(written)
    assert picture.data == RED
    assert str(picture) == f"data:image/png;sha256={hashlib.sha256(RED).hexdigest()}"
    assert picture.name == id_of(RED)
    assert picture == picture_of(uri(RED))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(BLUE, "image/jpeg"), (encoded("red", "WEBP"), "image/webp"), (encoded("red", "GIF"), "image/gif"),
     (encoded("red", "BMP"), "image/bmp"), (encoded("red", "TIFF"), "image/tiff"),
     (b"\0\0\0\x20ftypavif", "image/avif"), (b"\0\0\0\x20ftypheic", "image/heif"), (b"text", "")],
)  # fmt: skip
def test_the_kind_is_that_of_the_bytes(data: bytes, kind: str) -> None:
    assert picture_of(uri(data)).address == f"data:{kind};sha256={hashlib.sha256(data).hexdigest()}"


BROKEN = {
    "data:image/png;base64,AB@C": "the picture in this line is broken base64: '@' is no digit of it "
    "('data:image/png;base64') (write the file anew, for example with base64 -w0)",
    "data:image/png;base64,AB=CD": "the picture in this line is broken base64: '=' is no digit of it "
    "('data:image/png;base64') (write the file anew, for example with base64 -w0)",
    "data:image/png;base64,ABCDE": "the picture in this line is broken base64: 5 digits are no whole number of bytes "
    "('data:image/png;base64') (a part of it is missing)",
    "data:image/png;base64,": "the picture in this line has no data ('data:image/png;base64') "
    "(for example data:image/png;base64,iVBORw0...)",
    "data:,": "the picture in this line has no data ('data:') (for example data:image/png;base64,iVBORw0...)",
    "data:image/png;base64": "'data:image/png;base64' has no comma in front of its data "
    "(for example data:image/png;base64,iVBORw0...)",
    "data:,caf\u00e9": "the picture in this line has the character '\u00e9' ('data:') "
    "(its data are letters, digits, and %XX for other bytes)",
    "data:image/png;sha256=ab12": "'data:image/png;sha256=ab12' names a picture that stood in another line "
    "(give the picture itself, or run the manifest that holds it)",
}


@pytest.mark.parametrize("written", BROKEN)
def test_a_broken_one_is_told_with_file_and_line(written: str) -> None:
    with pytest.raises(DataUriError):
        picture_of(written)
    with pytest.raises(ManifestError) as error:
        items(manifest({"image": uri(RED)}, {"images": [uri(BLUE), written]}))
    assert str(error.value) == f"m.jsonl:2: {BROKEN[written]}"
    [_, failed] = open_source("m.jsonl", options()).items()
    assert isinstance(failed, FailedItem)
    assert failed.message == f"m.jsonl:2: {BROKEN[written]}"


@pytest.mark.parametrize("written", BROKEN)
def test_a_broken_first_picture_gives_no_second_fault(written: str) -> None:
    with pytest.raises(ManifestError) as error:
        items(manifest({"image": written}))
    assert str(error.value) == f"m.jsonl:1: {BROKEN[written]}"
    [failed] = open_source("m.jsonl", options()).items()
    assert isinstance(failed, FailedItem)
    assert [str(image) for image in failed.images] == [written]
    assert failed.id.startswith("item-")


@pytest.mark.parametrize("path", ["data:x", "data", "data:/x,y", "database.png", "Data.png"])
def test_what_is_no_data_uri_is_a_path(path: str) -> None:
    assert not is_data(path)


# ---- forms of a source ----


def test_a_line_holds_its_pictures() -> None:
    first, second = items(manifest({"image": uri(RED)}, {"images": [uri(BLUE), uri(RED)], "id": "two"}))
    assert (first.id, second.id) == (id_of(RED), "two")
    assert [only(first).data, *(image.data for image in second.images if isinstance(image, DataPicture))] == [
        RED, BLUE, RED,
    ]  # fmt: skip


def test_files_and_data_stand_together() -> None:
    Path("a.png").write_bytes(RED)
    [item] = items(manifest({"images": ["a.png", uri(BLUE)]}))
    assert [str(image) for image in item.images] == ["a.png", str(picture_of(uri(BLUE)))]
    assert item.id == "a"


def test_json_yaml_csv_and_lists() -> None:
    Path("m.json").write_text(json.dumps([{"image": uri(RED), "prompt": "x"}], indent=1))
    Path("m.yaml").write_text(f"- image: {uri(RED)}\n  prompt: x\n")
    Path("m.csv").write_text(f'image,prompt\n"{uri(RED)}",x\n')
    Path("semicolons.csv").write_text(f"image\tprompt\n{uri(RED)}\tx\n")
    Path("list.txt").write_text(uri(RED) + "\n")
    for source in ("m.json", "m.yaml", "m.csv", "semicolons.csv", "@list.txt"):
        [item] = items(source, prompt="x" if source[0] == "@" else None)
        assert (item.id, only(item).data) == (id_of(RED), RED), source


def test_several_pictures_in_one_cell() -> None:
    Path("a.png").write_bytes(RED)
    Path("m.csv").write_text(f'images,prompt\n"{uri(RED)}; a.png;{uri(BLUE)};data:,{quote_from_bytes(RED)}",x\n')
    [item] = items("m.csv")
    assert [getattr(image, "data", str(image)) for image in item.images] == [RED, "a.png", BLUE, RED]


@pytest.mark.parametrize(
    ("stream", "ids"),
    [
        (f'{{"image": "{uri(RED)}", "prompt": "x"}}\n', [id_of(RED)]),
        (f'image,prompt\n"{uri(RED)}",x\n', [id_of(RED)]),
        (f'[{{"image": "{uri(RED)}", "prompt": "x"}}]', [id_of(RED)]),
        (f"{uri(RED)}\n{uri(BLUE)}\n", [id_of(RED), id_of(BLUE)]),
        (f"{uri(RED)}\0{uri(BLUE)}\0", [id_of(RED), id_of(BLUE)]),
    ],
)
def test_standard_input(stream: str, ids: list[str]) -> None:
    prompt = "p" if stream.startswith("data:") else None
    source = open_source("-", options(prompt=prompt), io.BytesIO(stream.encode()))
    source.check()
    assert [item.id for item in source.items()] == ids


# ---- ids ----


def test_ids_depend_on_the_content_and_on_no_order() -> None:
    lines = [{"image": uri(RED)}, {"image": uri(BLUE)}, {"image": uri(RED), "instruction": "y"}]
    ids = {item.instruction + str(item.images): item.id for item in items(manifest(*lines))}
    turned = {item.instruction + str(item.images): item.id for item in items(manifest(*reversed(lines)))}
    assert ids == turned
    assert len(set(ids.values())) == 3
    assert all(re.fullmatch(f"{id_of(RED)}-[0-9a-f]{{10}}|{id_of(BLUE)}", name) for name in ids.values())


def test_the_same_picture_written_in_two_ways_is_one_picture() -> None:
    first, second = items(manifest({"image": uri(RED)}, {"image": "data:," + quote_from_bytes(RED)}))
    assert (first.id, second.id) == (id_of(RED), f"{id_of(RED)}-2")


def test_two_pictures_whose_hashes_begin_alike_have_ids_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.source.default_ids._SHORT_DATA", len("data-"))
    first, second = items(manifest({"image": uri(RED)}, {"image": uri(BLUE)}))
    assert {first.id.split("-")[1], second.id.split("-")[1]} == {
        hashlib.sha256(data).hexdigest() for data in (RED, BLUE)
    }


# ---- reading ----


def test_it_goes_through_the_checks_of_a_file(tmp_path: Path) -> None:
    picture = picture_of(uri(encoded("red", size=(40, 30))))
    assert header_size(picture) == (30, 40)
    read = load_picture(picture, hashes=HashCache())
    assert read.image.getpixel((0, 0)) == (255, 0, 0)
    assert read.seen is not None
    assert (read.seen.sha256, read.seen.stamp) == (picture.sha256, (len(picture.data), 0, 0))
    for read_it in (header_size, load_picture):
        with pytest.raises(ItemError) as error:
            read_it(picture, 1000)
        assert error.value.code == "picture_too_large"
        assert str(error.value).startswith(f"{picture}: 40 x 30 is more than 1000 pixels")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"<html>no picture</html>", "unreadable_picture"),
        (encoded("red", size=(99, 99))[:-40], "truncated_picture"),
        (encoded("red", "JPEG", size=(99, 99))[:-20], "truncated_picture"),
        (encoded("red", "WEBP", size=(99, 99))[:-20], "truncated_picture"),
    ],
)
def test_damage_has_the_code_of_a_file(data: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    told = []
    for given in (picture_of(uri(data)), tmp_path / "file"):
        with pytest.raises(ItemError) as error:
            load_picture(given)
        assert error.value.code == code
        told.append(str(error.value).replace(str(given), ""))
    assert told[0] == told[1]


# ---- long lines ----


def noise(length: int) -> bytes:
    """A picture of so many bytes, about."""
    file, width = io.BytesIO(), length // 3000
    Image.frombytes("RGB", (width, 1000), os.urandom(width * 3000)).save(file, "PNG", compress_level=0)
    return file.getvalue()


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "stdin", "list", "nul"])
def test_a_picture_of_many_megabytes(form: str) -> None:
    data = noise(6 << 20)
    line = json.dumps({"image": uri(data), "prompt": "x"})
    stream, prompt = None, None
    if form == "csv":
        Path("m.csv").write_text(f'image,prompt\n"{uri(data)}",x\n')
    elif form in ("stdin", "nul"):
        stream, prompt = io.BytesIO((uri(data) + "\0" if form == "nul" else line).encode()), "x"
    else:
        Path("m.json").write_text(f"[{line}]")
        Path("m.jsonl").write_text(line)
        Path("list.txt").write_text(uri(data))
    source = {"stdin": "-", "nul": "-", "list": "@list.txt"}.get(form, f"m.{form}")
    opened = open_source(source, options(prompt="x" if form == "list" else prompt), stream)
    opened.check()
    [item] = opened.items()
    assert isinstance(item, EditItem)
    assert only(item).data == data


def test_lines_that_are_longer_than_any_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_ITEM", 1000)
    monkeypatch.setattr(text, "MAX_LINE", 3000)
    lines = [{"image": uri(noise(3000))}, {"image": uri(RED)}, {"image": uri(RED), "instruction": "x" * 1100}]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ManifestError) as error:
        open_source("m.jsonl", options(prompt="x")).check()
    limits = "MiB (write its pictures to files, and give their paths)"
    assert str(error.value) == f"m.jsonl:1: this line is longer than 64 {limits}"


def test_beside_its_pictures_an_item_is_as_short_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.source.item_builder.MAX_ITEM", 1000)
    with pytest.raises(ManifestError) as error:
        items(manifest({"image": uri(RED), "instruction": "x" * 1001}))
    assert str(error.value) == "m.jsonl:1: this item has more than 4 MiB beside its pictures"


def many(count: int, data: bytes) -> str:
    with open("many.jsonl", "w") as file:
        for number in range(count):
            file.write(json.dumps({"image": uri(data + number.to_bytes(4, "big")), "prompt": "x"}) + "\n")
    return "many.jsonl"


def test_a_manifest_of_many_pictures_is_not_held() -> None:
    source = open_source(many(40, noise(1 << 20)), options())
    tracemalloc.start()
    try:
        source.check()
        for item in source.items():
            del item
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_the_plan_holds_no_more_than_it_may() -> None:
    source = open_source(many(30, noise(1 << 20)), options())
    out = 0

    def counted() -> Iterator[EditItem | FailedItem]:
        nonlocal out
        for item in source.items():
            out += 1
            yield item

    most = 0
    planned = plan(counted(), 4, 256, lambda picture: (64, 64), most_held=5 << 20)
    done = 0
    for batch in planned:
        assert isinstance(batch, Batch)
        most = max(most, out - done)
        done += len(batch.items)
        assert len(batch.items) <= 4
    assert done == 30
    assert most <= 7
    assert held_by(batch.items[0].item.images) > 1_000_000


# ---- what people write for it ----


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("size", [(8, 6), (400, 300)])
@pytest.mark.parametrize("begin", ["", "image/png;base64,"])
def test_base64_without_its_head_is_told(kind: str, size: tuple[int, int], begin: str) -> None:
    file = io.BytesIO()
    Image.effect_noise(size, 90).save(file, kind)
    written = begin + base64.b64encode(file.getvalue()).decode()
    with pytest.raises(ManifestError) as error:
        items(manifest({"image": written}))
    message = str(error.value)
    assert message.startswith("m.jsonl:1: this is no path but a picture in base64: ")
    assert message.endswith("(write data:image/png;base64, in front of it, or the type of the picture in place of png)")
    assert len(message) < 300


def test_a_path_that_begins_like_base64_is_a_path() -> None:
    name = "iVBORw0KGgo" + "x" * 60 + ".png"
    Path(name).write_bytes(RED)
    [item] = items(manifest({"image": name}))
    assert str(item.images[0]) == name
