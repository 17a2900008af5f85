"""No input is ever an output: compared by device and inode of the folders, however a path is spelled."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ManifestError, UsageError
from joyedit.job.source.output_tree import OutputTree
from joyedit.job.source.sources import Source, SourceOptions, open_source
from joyedit.job.spec import EditItem, FailedItem

OVERWRITES = (
    "line 1 would overwrite the picture '{}' in the output folder (choose another output folder, or give an id)"
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name, "PNG")


def source(name: str, output: str, stdin: bytes | None = None) -> Source:
    options = SourceOptions(output=Path(output), prompt="go")
    return open_source(name, options, None if stdin is None else io.BytesIO(stdin))


def mount(folder: str, at: str) -> None:
    Path(at).mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(["mount", "--bind", folder, at], capture_output=True, check=False).returncode
    except OSError:
        done = 1
    if done:
        pytest.skip("nobody may mount here")


@pytest.fixture
def bound() -> Iterator[Callable[[str, str], None]]:
    """Shows a folder at a second place."""
    places: list[str] = []

    def bind(folder: str, at: str) -> None:
        mount(folder, at)
        places.append(os.path.abspath(at))

    yield bind
    for at in places:
        subprocess.run(["umount", at], check=True)


# ---- the folders of the output ----


def test_names_of_files_however_they_are_spelled(place: Path) -> None:
    draw("out/sub/x.png", "else/y.png")
    os.symlink("out", "link")
    os.symlink("../out/sub/x.png", "else/l.png")
    os.symlink("l.png", "else/ll.png")
    os.symlink("nowhere/../../out/new.png", "else/broken.png")
    tree = OutputTree(Path("out"))
    for path in ("out/sub/x.png", "link/sub/x.png", f"{place}/else/../link/./sub/x.png", "else/l.png", "else/ll.png"):
        assert tree.file_names(path) == ("sub/x.png",), path
    assert tree.file_names("link/gone.png") == ("gone.png",)
    assert tree.file_names("else/y.png") == ()
    assert tree.file_names("y.png") == ()
    assert tree.folder_names("link") == ("",)
    assert OutputTree(None).file_names("out/sub/x.png") == ()


def test_an_input_that_is_a_link_in_the_output_folder_counts_with_both_files() -> None:
    draw("out/a.png")
    os.symlink("a.png", "out/b.png")
    assert set(OutputTree(Path("out")).file_names("out/b.png")) == {"a.png", "b.png"}


def test_folders_that_are_made_during_the_pass(place: Path) -> None:
    os.symlink("out", "link")
    tree = OutputTree(Path("out"))
    assert tree.file_names("link/sub/x.png") == ("sub/x.png",)  # nothing of it is there yet
    assert tree.file_names("elsewhere/x.png") == ()
    draw("out/sub/deep/x.png", "elsewhere/x.png")
    assert tree.file_names("link/sub/deep/x.png") == ("sub/deep/x.png",)
    assert tree.file_names("elsewhere/x.png") == ()
    draw("out/late/er/x.png")
    assert tree.file_names(f"{place}/link/late/../late/er/x.png") == ("late/er/x.png",)


def test_hostile_links_end() -> None:
    draw("out/a.png")
    os.symlink("loop", "out/loop")
    os.symlink("two", "one")
    os.symlink("one", "two")
    os.symlink("..", "out/up")
    tree = OutputTree(Path("out"))
    assert tree.file_names("out/loop/x.png") == ("loop/x.png",)
    assert tree.file_names("one") == ()
    assert tree.file_names("out/up/out/a.png") == ("a.png",)
    assert tree.file_names("a\0b/\udcff.png") == ()


def test_an_output_behind_a_link_lies_where_that_leads() -> None:
    draw("out/real/deep/x.png", "else/x.png")
    os.symlink("real", "out/link")
    os.symlink("../else", "out/away")
    tree = OutputTree(Path("out"))
    assert tree.place("link/deep/x.png") == "real/deep/x.png"
    assert tree.place("real/x.png") == "real/x.png"
    assert tree.place("away/x.png") == "away/x.png"
    assert tree.place("x.png") == "x.png"


def test_a_bind_mount_is_seen(bound: Callable[[str, str], None]) -> None:
    draw("out/sub/x.png", "photos/y.png")
    bound("out", "mirror")
    bound("out/sub", "part")
    bound("photos", "out/photos")
    tree = OutputTree(Path("out"))
    assert tree.file_names("mirror/sub/x.png") == ("sub/x.png",)
    assert tree.file_names("part/x.png") == ("sub/x.png",)
    assert tree.file_names("photos/y.png") == ("photos/y.png",)
    draw("out/made/z.png")
    assert tree.file_names("mirror/made/z.png") == ("made/z.png",)


# ---- manifests, a picture, standard input ----


def as_jsonl(lines: list[dict[str, Any]]) -> str:
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "m.jsonl"


def as_json(lines: list[dict[str, Any]]) -> str:
    Path("m.json").write_text("[" + ",\n".join(json.dumps(line) for line in lines) + "]")
    return "m.json"


def as_yaml(lines: list[dict[str, Any]]) -> str:
    Path("m.yaml").write_text("".join(f"- {json.dumps(line)}\n" for line in lines))
    return "m.yaml"


def as_csv(lines: list[dict[str, Any]]) -> str:
    with open("m.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "id"])
        writer.writeheader()
        writer.writerows(lines)
    return "m.csv"


@pytest.mark.parametrize("write", [as_jsonl, as_json, as_yaml, as_csv])
@pytest.mark.parametrize("spelled", ["out/x.png", "link/x.png", "deep/../link/x.png", "to_x.png", "{here}/link/x.png"])
def test_a_manifest_that_writes_over_its_input(
    write: Callable[[list[dict[str, Any]]], str], spelled: str, place: Path
) -> None:
    draw("out/x.png", "a.png")
    os.symlink("out", "link")
    os.symlink(os.path.join(place, "out"), "deep")
    os.symlink("link/x.png", "to_x.png")
    lines = [{"image": "a.png", "id": "x"}, {"image": spelled.replace("{here}", str(place)), "id": "y"}]
    with pytest.raises(ManifestError) as error:
        source(write(lines), "out").check()
    assert re.sub("line [12]", "line 1", str(error.value)).split(": ", 1)[1] == OVERWRITES.format("x.png")
    with pytest.raises(ManifestError) as error:
        source(write(lines[::-1]), "out").check()
    assert "the output 'x.png' would overwrite an input picture" in str(error.value)


def test_default_ids_avoid_inputs_behind_links_in_each_pass() -> None:
    draw("out/x.png")
    os.symlink("out", "pictures")
    os.symlink("out/x.png", "x.png")
    for name in ("pictures/x.png", "x.png"):
        opened = source(name, "out")
        opened.check()
        for _ in range(2):
            assert [item.id for item in opened.items()] == ["x-2"]


def test_two_outputs_that_are_one_file() -> None:
    draw("a.png", "b.png", "out/real/other.png")
    os.symlink("real", "out/link")
    with pytest.raises(ManifestError) as error:
        source(as_jsonl([{"image": "a.png", "id": "real/x"}, {"image": "b.png", "id": "link/x"}]), "out").check()
    assert "m.jsonl:2: the output 'link/x.png' is taken by line 1" in str(error.value)


@pytest.mark.parametrize("written", ["out/sub/x.png", "link/sub/x.png", "link/sub/../sub/x.png", "late.png"])
def test_standard_input_does_not_read_what_it_wrote(written: str) -> None:
    draw("a.png")
    os.symlink("out", "link")
    lines = [{"image": "a.png", "id": "sub/x"}, {"image": written, "id": "y"}, {"image": "a.png", "id": "z"}]
    opened = source("-", "out", "".join(json.dumps(line) + "\n" for line in lines).encode())
    opened.check()
    items = opened.items()
    assert next(items).id == "sub/x"
    draw("out/sub/x.png")  # what the run does
    os.symlink("link/sub/x.png", "late.png")
    second, third = items
    assert isinstance(second, FailedItem)
    assert (second.code, second.message) == ("bad_line", f"-:2: {OVERWRITES.format('sub/x.png')}")
    assert isinstance(third, EditItem)


def test_a_picture_that_comes_later_on_standard_input_is_found_then() -> None:
    draw("a.png")
    opened = source("-", "out", b"a.png\nb.png\nb.png\n")
    items = opened.items()
    assert isinstance(next(items), EditItem)
    assert isinstance(next(items), FailedItem)
    draw("b.png")
    assert isinstance(next(items), EditItem)


# ---- a folder ----


def outcome(opened: Source) -> dict[str, str]:
    """For each picture the output, or the code of its failure; the same in two passes."""
    opened.check()
    passes = []
    for _ in range(2):
        got = list(opened.items())
        passes.append({str(i.images[0]) if i.images else i.id: getattr(i, "code", "") or i.output for i in got})
        assert opened.counted_missing() == 0
    assert passes[0] == passes[1]
    return passes[0]


def test_an_edited_picture_in_the_source_folder_fails_alone(place: Path) -> None:
    draw("photos/x.png", "photos/photos/x.png", "photos/photos/sub/y.png", "photos/other/x.png")
    opened = source("photos", ".")
    assert outcome(opened) == {
        "photos/x.png": "x.png",
        "photos/photos/x.png": "output_taken",
        "photos/photos/sub/y.png": "output_taken",
        "photos/other/x.png": "other/x.png",
    }
    failed = [item for item in opened.items() if isinstance(item, FailedItem)]
    assert failed[1].message == (
        "photos/x.png: its edited picture 'photos/x.png' would lie in the source folder "
        "(choose another output folder with -o)"
    )
    os.chdir("photos")
    assert outcome(source("../photos", ".."))["../photos/photos/x.png"] == "output_taken"


@pytest.mark.parametrize("output", [".", "up", "photos/up"])
def test_the_source_folder_by_any_spelling(output: str) -> None:
    draw("photos/photos/x.png", "photos/a.png")
    os.symlink(".", "up")
    os.symlink("..", "photos/up")
    assert outcome(source("photos", output)) == {
        "photos/a.png": "a.png",
        "photos/photos/x.png": "output_taken",
    }


def test_a_link_in_the_output_folder_leads_into_the_source() -> None:
    draw("photos/l/x.png", "photos/a/y.png")
    os.symlink("photos/a", "l")
    assert outcome(source("photos", ".")) == {"photos/a/y.png": "a/y.png", "photos/l/x.png": "output_taken"}


def test_the_output_folder_is_the_source_by_any_spelling(bound: Callable[[str, str], None]) -> None:
    draw("photos/x.png")
    bound("photos", "mirror")
    for output in ("mirror", "mirror/../mirror", "photos/../photos"):
        with pytest.raises(UsageError) as error:
            source("photos", output)
        assert str(error.value) == "photos: the output folder is the source folder (choose another with -o)"


def test_links_into_the_output_folder_are_not_walked() -> None:
    draw("photos/a.png", "out/sub/deep/a.png", "elsewhere/b.png")
    os.symlink("../out", "photos/results")
    os.symlink("../out/sub", "photos/some")
    os.symlink("../out/sub/deep", "photos/fewer")
    os.symlink("../elsewhere", "photos/more")
    os.symlink("..", "photos/up")
    assert outcome(source("photos", "out")) == {
        "photos/a.png": "a.png",
        "photos/more/b.png": "more/b.png",
    }


def test_links_from_a_source_inside_the_output_folder_are_walked() -> None:
    draw("photos/a.png", "other/b.png", "photos/other/b.png")
    os.symlink("../other", "photos/link")
    got = outcome(source("photos", "."))
    assert got["photos/a.png"] == "a.png"
    # The edited picture of one would be the input of the other.
    assert got["photos/link/b.png"] == "output_taken"


def test_a_link_to_a_finished_picture_is_not_overwritten() -> None:
    draw("photos/a.png", "out/x.png")
    os.symlink("../out/x.png", "photos/x.png")
    assert outcome(source("photos", "out")) == {"photos/a.png": "a.png", "photos/x.png": "x.png.png"}


def test_a_bind_mount_of_the_output_folder_is_told_and_not_walked(bound: Callable[[str, str], None]) -> None:
    draw("photos/a.png", "out/sub/a.png", "photos/again/b.png")
    bound("out/sub", "photos/mounted")
    bound("out", "photos/whole")
    opened = source("photos", "out")
    assert outcome(opened) == {
        "photos/a.png": "a.png",
        "photos/again/b.png": "again/b.png",
        "mounted/output_taken": "output_taken",
    }
    [failed] = [item for item in opened.items() if isinstance(item, FailedItem)]
    assert failed.message == ("mounted: this folder lies in the output folder too, as 'sub' (choose another with -o)")
