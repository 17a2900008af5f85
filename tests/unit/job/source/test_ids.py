"""Default ids: from the path of the picture and from the line itself, and the same in any order of the lines."""

from __future__ import annotations

import io
import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.own_files import OWN_NAMES
from joyedit.job.source.names import name_problem, safe_name
from joyedit.job.source.sources import SourceOptions, open_source
from joyedit.job.spec import EditItem


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("set/m/own.png", "set/a/x.png", "set/b/x.png", "set/b/c/x.png", "other/a/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(lines: list[dict[str, Any]], name: str = "set/m/m.jsonl") -> dict[str, str]:
    """The id of each line, by the line."""
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    opened = open_source(name, SourceOptions(output=Path("out"), prompt="go"))
    opened.check()
    got = list(opened.items())
    assert all(isinstance(item, EditItem) for item in got)
    assert [item.id for item in got] == [item.id for item in opened.items()]
    return {json.dumps(line): item.id for line, item in zip(lines, got, strict=True)}


def test_pictures_of_one_base_name_get_ids_from_their_paths(place: Path) -> None:
    lines = [
        {"image": "../a/x.png"},
        {"image": "../b/x.png"},
        {"image": "../b/c/x.png"},
        {"image": str(place / "other/a/x.png")},
        {"image": "own.png"},
    ]
    first = ids(lines)
    assert len(set(first.values())) == 5
    assert first[json.dumps(lines[4])] == "own"
    for order in permutations(lines):
        assert ids(list(order)) == first


def test_an_id_outside_the_manifest_names_the_folder_and_is_the_same_alone() -> None:
    line = {"image": "../a/x.png"}
    [alone] = ids([line]).values()
    assert re.fullmatch("a-[0-9a-f]{10}/x", alone)
    assert ids([{"image": "../b/x.png"}, line])[json.dumps(line)] == alone


def test_a_project_that_is_moved_keeps_its_ids(place: Path) -> None:
    line = {"image": "../a/x.png"}
    before = ids([line])
    (place / "set").rename(place / "moved")
    assert ids([line], "moved/m/m.jsonl") == before


def test_lines_about_one_picture_do_not_depend_on_their_order() -> None:
    lines = [{"image": "own.png", "instruction": text} for text in ("red", "green", "blue")]
    lines.append({"image": "own.png", "instruction": "red", "output": "mine.png"})
    first = ids(lines)
    assert all(re.fullmatch("own-[0-9a-f]{10}", name) for name in first.values())
    for order in permutations(lines):
        assert ids(list(order)) == first
    fewer = ids([lines[0], lines[3]])
    assert fewer[json.dumps(lines[3])] == first[json.dumps(lines[3])]


def test_pictures_that_differ_in_their_ending_do_not_depend_on_their_order(place: Path) -> None:
    names = ["own.jpg", "OWN.webp", "Own.PNG", "oWn.png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(place / "set/m" / name)
    lines = [{"image": name} for name in ("own.png", *names)]
    first = ids(lines)
    made = [re.sub("-[0-9a-f]{10}", "-#", first[json.dumps(line)]) for line in lines]
    assert made == ["own.png-#", "own.jpg", "OWN.webp", "Own.PNG-#", "oWn.png-#"]
    for order in permutations(lines):
        assert ids(list(order)) == first
    assert ids(lines[1:2]) == {json.dumps(lines[1]): "own"}


def test_an_item_knows_the_ids_that_it_would_have_beside_other_lines() -> None:
    """Its picture may be finished under one of them."""
    red, green = ({"image": "own.png", "instruction": text} for text in ("red", "green"))
    Path("m.jsonl").write_text(json.dumps({"image": "set/m/own.png"}) + "\n")
    source = open_source("m.jsonl", SourceOptions(output=Path("out"), prompt="go"))
    assert [item.id for item in source.items()] == ["set/m/own"]
    ids([red, green])
    source = open_source("set/m/m.jsonl", SourceOptions(output=Path("out"), prompt="go"))
    first, _ = (item for item in source.items() if isinstance(item, EditItem))
    assert {"own", "own.png", first.id.replace("own", "own.png")} <= set(first.other_ids)
    assert first.id not in first.other_ids


def test_a_manifest_that_changes_between_two_passes_gives_the_ids_of_its_present_lines() -> None:
    one, other = ({"image": "set/a/x.png", "instruction": text} for text in ("red", "green"))
    Path("m.jsonl").write_text(json.dumps(one) + "\n")
    source = open_source("m.jsonl", SourceOptions(output=Path("out")))
    assert [item.id for item in source.items()] == ["set/a/x"]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (one, other)))
    assert all(re.fullmatch("set/a/x-[0-9a-f]{10}", item.id) for item in source.items())


@pytest.mark.parametrize("folder", ["set/a", "other"])
def test_ids_on_standard_input_do_not_depend_on_the_current_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    paths = [str(place / "set/a/x.png"), str(place / "other/a/x.png")]

    def piped() -> list[str]:
        stream = io.BytesIO("".join(path + "\n" for path in paths).encode())
        return [item.id for item in open_source("-", SourceOptions(output=None, prompt="go"), stream).items()]

    before = piped()
    assert all(re.fullmatch("a-[0-9a-f]{10}/x", name) for name in before)
    monkeypatch.chdir(folder)
    assert piped() == before


def test_relative_paths_on_standard_input_are_ids(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("set/m")
    stream = io.BytesIO(b"own.png\n./../m/own.png\n../a/x.png\n")
    got = [item.id for item in open_source("-", SourceOptions(output=None, prompt="go"), stream).items()]
    assert got[0] == "own"
    assert re.fullmatch("m-[0-9a-f]{10}/own", got[1])
    assert re.fullmatch("a-[0-9a-f]{10}/x", got[2])


def test_settings_and_references_tell_lines_apart() -> None:
    lines: list[dict[str, Any]] = [{"image": "own.png"}, {"image": "own.png", "seed": 1}]
    lines += [{"images": ["own.png", "../a/x.png"]}, {"images": ["own.png", "../b/x.png"]}]
    first = ids(lines)
    assert len(set(first.values())) == 4
    assert ids([lines[0], lines[3], lines[2], lines[1]]) == first


def test_lines_without_a_picture_do_not_depend_on_their_order() -> None:
    lines = [{"instruction": text} for text in ("a cat", "a dog", "a cow")]
    first = ids(lines)
    assert ids(lines[::-1]) == first
    assert ids(lines[1:]) == {key: name for key, name in first.items() if "cat" not in key}


def test_a_broken_line_takes_no_id_of_another_line() -> None:
    lines = [{"image": "set/a/x.png"}, {"image": "set/b/x.png", "id": "line-1"}, {"image": "set/m/own.png", "id": "q"}]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = open_source("m.jsonl", SourceOptions(output=Path("out"), prompt="go"))
    source.check()
    lines[2] = {"nonsense": 1, "id": "line-1"}
    Path("m.jsonl").write_text("5\n" + "".join(json.dumps(line) + "\n" for line in lines[1:]))
    assert [item.id for item in source.items()] == ["line-1-broken", "line-1", "line-1-2"]


def test_equal_lines_are_counted() -> None:
    Path("m.jsonl").write_text('{"image": "set/a/x.png"}\n' * 3)
    got = open_source("m.jsonl", SourceOptions(output=Path("out"), prompt="go")).items()
    assert [item.id for item in got] == ["set/a/x", "set/a/x-2", "set/a/x-3"]


# ---- joyedit's own files ----


def spellings(name: str) -> list[str]:
    return [name, name.upper(), name.title(), name.replace("s", "\u017f").replace("fi", "\ufb01")]


@pytest.mark.parametrize("own", sorted(OWN_NAMES))
def test_no_id_lies_at_or_under_a_file_of_joyedit(own: str) -> None:
    for name in spellings(own):
        for below in ("", "/x", "/y/z"):
            assert name_problem(name + below) == f"begins with '{name}', which is a file of joyedit itself"
            made = safe_name(name + below)
            assert made == name + "_" + below
            assert name_problem(made) is None
        assert name_problem(f"sub/{name}") is None  # only the output folder itself holds them


@pytest.mark.parametrize("part", [".0123456789abcdef.joyedit-tmp", ".0123456789ABCDEF.Joyedit-TMP"])
def test_no_part_looks_like_an_unfinished_file(part: str) -> None:
    for name in (part, f"{part}/x", f"x/{part}", f"x/{part}/y"):
        assert name_problem(name) == f"has the part '{part}', which is a name for unfinished files"
        assert name_problem(safe_name(name)) is None


@pytest.mark.parametrize("key", ["id", "output"])
@pytest.mark.parametrize("name", ["results.jsonl/x", "Joyedit.log/y", ".joyedit.lock/z", "report.json/a"])
def test_such_names_in_a_manifest_are_refused(key: str, name: str) -> None:
    written = name + ".png" if key == "output" else name
    Path("m.jsonl").write_text(json.dumps({"image": "set/a/x.png", key: written}) + "\n")
    with pytest.raises(ManifestError) as error:
        open_source("m.jsonl", SourceOptions(output=Path("out"), prompt="go")).check()
    own = name.split("/")[0]
    assert f"m.jsonl:1: the {key} '{written}' begins with '{own}', which is a file of joyedit itself" in str(
        error.value
    )


def test_a_folder_of_pictures_avoids_them() -> None:
    for name in ("in/report.json/a.png", "in/Results.JSONL/b.png", "in/sub/report.json/c.png"):
        Path(name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(name)
    got = open_source("in", SourceOptions(output=Path("out"), prompt="go")).items()
    assert [item.id for item in got] == ["report.json_/a", "Results.JSONL_/b", "sub/report.json/c"]
