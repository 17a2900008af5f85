"""Paths as people write them, and the file that somebody meant whose picture is missing."""

from __future__ import annotations

import io
import json
import os
import re
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.source import likely_files
from joyedit.job.source.sources import SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder `here`, with the folders `home` and `data` beside it."""
    for name in ("here/a.png", "home/h.png", "home/deep/d.png", "data/set/x.png", "data/a b.png"):
        draw(tmp_path / name)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NO_SUCH", raising=False)
    return tmp_path


def draw(path: Path | str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (8, 6), "red").save(file, "PNG")


def manifest(*images: str) -> str:
    Path("m.jsonl").write_text("".join(json.dumps({"image": image}) + "\n" for image in images))
    return "m.jsonl"


def options() -> SourceOptions:
    return SourceOptions(output=Path("out"), prompt="x")


def items(*images: str) -> list[EditItem]:
    source = open_source(manifest(*images), options())
    source.check()
    got = list(source.items())
    assert all(isinstance(item, EditItem) for item in got), got
    assert [item.id for item in reopen(source.asked(), Path("out")).items()] == [item.id for item in got]
    return got  # type: ignore[return-value]


def refused(*images: str) -> list[str]:
    with pytest.raises(ManifestError) as error:
        open_source(manifest(*images), options()).check()
    return [message.partition(": ")[2] for message in str(error.value).split("\n")]


@pytest.mark.parametrize(
    ("written", "path", "name"),
    [
        ("~/h.png", "home/h.png", "home-#/h"),
        ("~/deep/d.png", "home/deep/d.png", "deep-#/d"),
        ("$DATA/set/x.png", "data/set/x.png", "set-#/x"),
        ("${DATA}/a b.png", "data/a b.png", "DATA-#/a b"),
        ("$DATA/a b.png", "data/a b.png", "DATA-#/a b"),
    ],
)
def test_home_and_variables(written: str, path: str, name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [item] = items(written)
    assert item.images == (place / path,)
    assert re.sub("-[0-9a-f]{10}", "-#", item.id) == name
    moved = place / "moved"  # the same manifest on another machine has the same ids
    moved.mkdir()
    for folder in ("home", "data"):
        (place / folder).rename(moved / folder)
    monkeypatch.setenv("HOME", str(moved / "home"))
    monkeypatch.setenv("DATA", str(moved / "data"))
    assert [one.id for one in items(written)] == [item.id]


def test_an_id_does_not_depend_on_what_a_variable_holds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on whether it is set, nor on whether the pictures lie below the manifest's folder."""
    written = ("$DATA/set/x.png", "${DATA}/a b.png")
    before = [item.id for item in items(*written)]
    (place / "data").rename(place / "here" / "data")
    monkeypatch.setenv("DATA", str(place / "here" / "data"))
    assert [item.id for item in items(*written)] == before
    monkeypatch.delenv("DATA")
    source = open_source("m.jsonl", options())
    assert [item.id for item in source.items()] == before
    assert [item.id for item in reopen(source.asked(), Path("out")).items()] == before
    assert [item.id for item in items_of_paths("$DATA/set/x.png")] == [before[0]]


def items_of_paths(*images: str) -> list[EditItem | FailedItem]:
    stream = io.BytesIO("".join(f"{image}\n" for image in images).encode())
    return list(open_source("-", options(), stream).items())


def test_both_forms_of_a_variable_are_one(place: Path) -> None:
    [one], [other] = items("$DATA/set/x.png"), items("${DATA}/set/x.png")
    assert one.id == other.id


def test_what_was_finished_under_another_spelling_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(place / "home" / "deep"))
    spellings = ["$DATA/d.png", "~/deep/d.png", f"{place}/home/deep/d.png", "../home/deep/d.png", "$HOME/deep/d.png"]
    for written in spellings:
        [item] = items(written)
        for other in spellings:
            [before] = items(other)
            assert before.id == item.id or before.id in set(item.other_ids), (written, other)


@pytest.mark.parametrize("written", ["~/h.png", "$DATA/x.png", "${DATA}.png", "set/$DATA/x.png", "file:/h.png"])
def test_a_file_that_has_such_a_name_is_meant(written: str) -> None:
    draw(written)
    [item] = items(written)
    assert (item.images, item.id) == ((Path(written),), os.path.splitext(written)[0].replace(":", "_"))


def test_one_picture_however_it_is_written(place: Path) -> None:
    got = items("../home/h.png", "~/h.png", f"{place}/home/h.png", f"file://{place}/home/h.png", "$DATA/../home/h.png")
    assert len({os.path.realpath(item.images[0]) for item in got}) == 1
    assert all(item.id.partition("/")[2].startswith("h-") for item in got), "several lines are about one picture"
    assert len({item.id for item in got}) == 5


def test_addresses_of_files(place: Path) -> None:
    address = f"file://{place}/data/a%20b.png"
    [item] = items(address)
    assert item.images == (place / "data/a b.png",)
    [plain] = items(f"{place}/data/a b.png")
    assert item.id == plain.id
    assert items(f"file://localhost{place}/here/a.png")[0].id == "a"
    remedy = "(write file:///folder/picture.png, or the path alone)"
    for wrong in ("file://server/a.png", "file://a.png", "file:///%00.png", "file:///caf%e9.png"):
        assert refused(wrong) == [f"'{wrong}' is the address of no file on this machine {remedy}"]


def test_a_missing_file_at_an_address(place: Path) -> None:
    assert refused(f"file://{place}/gone.png", f"file://{place}/HERE/a.png") == [
        f"no such picture: 'file://{place}/gone.png' (paths are relative to '{place}/here')",
        f"no such picture: 'file://{place}/HERE/a.png' (did you mean '{place}/here/a.png'?)",
    ]


def test_what_is_not_set(place: Path) -> None:
    assert refused("$NO_SUCH/a.png", "~nobody_here/a.png", "$DATA/gone.png") == [
        "no such picture: '$NO_SUCH/a.png' (the environment variable 'NO_SUCH' is not set)",
        "no such picture: '~nobody_here/a.png' (there is no home folder of this name)",
        f"no such picture: '$DATA/gone.png' (paths are relative to '{place}/here')",
    ]


def test_no_password_comes_into_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hidden")
    for written in ("$TOKEN/a.png", "${TOKEN}/a.png", "$TOKEN", "a/$TOKEN/a.png", "$TOKEN.png", "~/$TOKEN/a.png"):
        assert "hidden" not in str(refused(written))
        assert "hidden" not in str(list(open_source("m.jsonl", options()).items()))
    assert refused("$TOKEN/a.png") == [
        "no such picture: '$TOKEN/a.png' (the environment variable 'TOKEN' holds no absolute path)"
    ]


def test_a_web_address_is_refused() -> None:
    assert refused("https://example.org/$DATA/a.png") == [
        "'https://example.org/$DATA/a.png' is a web address (download the picture first)"
    ]


# ---- the likely file ----

NFC = "caf\u00e9.png"
NFD = unicodedata.normalize("NFD", NFC)
FORM = "; it looks the same, but its letters are stored in another Unicode form"


@pytest.mark.parametrize(
    ("there", "written", "remedy"),
    [
        ("Photo.JPG", "photo.jpg", "did you mean 'Photo.JPG'?"),
        ("Sub/Deep/x.png", "sub/deep/X.png", "did you mean 'Sub/Deep/x.png'?"),
        ("sub/x.png", "sub\\x.png", "did you mean 'sub/x.png'?"),
        ("sub/x.png", "Sub\\X.png", "did you mean 'sub/x.png'?"),
        ("sub/x.jpg", "sub/x.png", "did you mean 'sub/x.jpg'?"),
        ("x.jpeg", "X", "did you mean 'x.jpeg'?"),
        ("x y.png", "x%20y.png", "did you mean 'x y.png'?"),
        ("x.png", "x.png ", "did you mean 'x.png'?"),
        (NFD, NFC, f"did you mean '{NFD}'?{FORM}"),
        (NFC, NFD, f"did you mean '{NFC}'?{FORM}"),
        (NFD, NFC.upper(), f"did you mean '{NFD}'?"),
        ("x.txt", "x.png", "paths are relative to '{here}'"),
        ("y.png", "x.png", "paths are relative to '{here}'"),
    ],
)
def test_the_likely_file(there: str, written: str, remedy: str) -> None:
    draw(there)
    told = written.replace("\\", "\\\\")
    assert refused(written) == [f"no such picture: '{told}' ({remedy.replace('{here}', os.getcwd())})"]


def test_a_path_with_a_variable_has_likely_files_too(place: Path) -> None:
    assert refused("$DATA/Set/X.png") == [
        f"no such picture: '$DATA/Set/X.png' (did you mean '{place}/data/set/x.png'?)"
    ]


def test_absolute_paths_have_likely_files_too(place: Path) -> None:
    assert refused(f"{place}/HOME/H.png") == [
        f"no such picture: '{place}/HOME/H.png' (did you mean '{place}/home/h.png'?)"
    ]


def test_many_missing_pictures_list_few_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    real = os.scandir
    monkeypatch.setattr(likely_files.os, "scandir", lambda folder: listed.append(folder) or real(folder))
    for number in range(600):
        os.mkdir(f"f{number}")
    with pytest.raises(ManifestError) as error:
        open_source(manifest(*[f"f{number % 600}/x{number}.png" for number in range(3_000)]), options()).check()
    assert error.value.total == 3_000
    assert len(listed) <= 200, "only the first few messages are told, so only those need an answer"
