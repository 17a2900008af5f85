"""Several pictures, folders and patterns as one source."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import UsageError
from joyedit.job.source.many_sources import ManySource
from joyedit.job.source.sources import Source, SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    touch("photos/a.jpg", "photos/b.png", "photos/notes.txt", "more/c.png", "more/deep/d.webp", "e.png")
    return tmp_path


def touch(*names: str) -> None:
    """Pictures without content: nothing here reads them."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def options(**more: Any) -> SourceOptions:
    return SourceOptions(**({"output": Path("out"), "prompt": "go"} | more))


def ids(source: Source) -> dict[str, str]:
    """The path of each picture by the id."""
    count = source.check().items
    items = list(source.items())
    assert len(items) == count
    return {item.id: str(item.images[0]) for item in items}


def test_pictures_of_one_folder_have_their_names_as_ids() -> None:
    wanted = {"a": "photos/a.jpg", "b": "photos/b.png"}
    assert ids(open_source(("photos/a.jpg", "photos/b.png"), options())) == wanted
    assert ids(open_source(("photos/b.png", "photos/a.jpg"), options())) == wanted


@pytest.mark.parametrize("pattern", ["photos/*", "photos/[ab].*", "pho*/*", "photos/**"])
def test_a_pattern_that_no_shell_has_expanded(pattern: str) -> None:
    assert set(ids(open_source(pattern, options()))) == {"a", "b"}


def test_a_pattern_that_fits_one_picture_is_that_picture() -> None:
    opened = open_source("photos/*.jpg", options())
    assert opened.kind == "picture"
    assert ids(opened) == {"a": "photos/a.jpg"}


def test_a_file_whose_name_looks_like_a_pattern() -> None:
    touch("x[1].png")
    assert ids(open_source("x[1].png", options())) == {"x[1]": "x[1].png"}


def test_a_pattern_that_fits_nothing() -> None:
    with pytest.raises(UsageError, match="no file or folder fits this pattern"):
        open_source("photos/*.tif", options())


def test_pictures_and_folders_together() -> None:
    opened = open_source(("photos/a.jpg", "more", "e.png"), options())
    assert {name: os.path.normpath(path) for name, path in ids(opened).items()} == {
        "photos/a": "photos/a.jpg",
        "more/c": "more/c.png",
        "more/deep/d": "more/deep/d.webp",
        "e": "e.png",
    }
    assert opened.name == "."


def test_what_comes_twice_is_edited_once(place: Path) -> None:
    given = ("more", "more/", "./more/deep", "more/c.png", "e.png", str(place / "e.png"))
    assert sorted(ids(open_source(given, options()))) == ["e", "more/c", "more/deep/d"]
    assert sorted(ids(open_source(("more", "more/deep"), options()))) == ["c", "deep/d"]


def test_files_that_are_no_pictures_are_passed_over_by_name() -> None:
    touch("photos/p.dng")
    passed = open_source(("photos/a.jpg", "photos/notes.txt", "photos/p.dng"), options()).check().passed
    assert dict(passed.names) == {
        "notes.txt": "no picture",
        "p.dng": "a RAW photo, which needs to be developed first",
    }


def test_names_that_differ_in_their_ending_do_not_depend_on_the_order() -> None:
    touch("photos/a.png")
    for given in (("photos/a.png", "photos/a.jpg"), ("photos/a.jpg", "photos/a.png")):
        assert sorted(ids(open_source(given, options()))) == ["a.jpg", "a.png"]


def test_exclude_holds_for_all_of_them() -> None:
    opened = open_source(("photos/a.jpg", "more", "e.png"), options(exclude=("*.webp", "e.*")))
    assert sorted(ids(opened)) == ["more/c", "photos/a"]


def test_a_picture_that_is_gone_when_its_turn_comes_is_a_failed_item() -> None:
    opened = open_source(("photos/a.jpg", "more"), options())
    opened.check()
    Path("photos/a.jpg").unlink()
    shutil.rmtree("more/deep")
    got = list(opened.items())
    assert {item.id: item.code for item in got if isinstance(item, FailedItem)} == {
        "photos/a": "missing_picture",
        "more/deep/d": "missing_picture",
    }
    assert [item.id for item in got if isinstance(item, EditItem)] == ["more/c"]


def test_the_same_ids_from_what_the_report_keeps(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_source(("photos/a.jpg", "more", "e.png"), options())
    before, asked = list(ids(opened)), opened.asked()
    monkeypatch.chdir("more")
    again = reopen(asked, Path("out"))
    assert isinstance(again, ManySource)
    assert [item.id for item in again.items()] == before
    shutil.rmtree(place / "more/deep")
    assert len(list(reopen(asked, Path("out")).items())) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("photos", "m.jsonl"), "m.jsonl: a manifest is a source alone"),
        (("photos", "-"), "standard input is a source alone"),
        (("photos", "nothing.png"), "nothing.png: no such file or folder"),
        (("photos", "out"), "out: the output folder is the source folder"),
        (("photos", ""), "'' cannot be the name of a file or folder"),
    ],
)
def test_what_cannot_be_one_of_several(given: tuple[str, ...], message: str) -> None:
    touch("m.jsonl")
    os.mkdir("out")
    with pytest.raises(UsageError) as error:
        open_source(given, options())
    assert message in str(error.value)


def test_an_output_beside_its_input_takes_no_input() -> None:
    opened = open_source(("photos/a.jpg", "photos/b.png"), options(output=Path("photos")))
    got = {item.id: item.code if isinstance(item, FailedItem) else item.output for item in opened.items()}
    assert got == {"a": "a.png", "b.png": "b.png.png"}


# ---- what a pattern finds and nobody means ----


def drawn(path: str, software: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"software joyedit 1" if software else b"")


@pytest.mark.parametrize("output", ["out", "."])
def test_a_pattern_finds_no_picture_that_the_last_run_made(output: str) -> None:
    made = "out/photos/b.png" if output == "out" else "x.png"
    drawn(made, software=True)
    opened = open_source("**/*.png", options(output=Path(output)))
    passed = dict(opened.check().passed.names)
    assert made.removeprefix("./") not in {os.path.normpath(path) for path in ids(opened).values()}
    assert set(passed.values()) <= {"the output folder", "an edited picture in the output folder"}
    assert passed


def test_a_pattern_passes_over_what_a_walk_passes_over() -> None:
    touch("photos/@eaDir/t.jpg", "photos/old/o.jpg", "photos/__MACOSX/m.jpg")
    Path("photos/old/results.jsonl").write_text('{"id": "o", "status": "ok"}\n')
    for pattern in ("photos/*", "photos/**/*.jpg", "photos/**"):
        opened = open_source(pattern, options())
        assert set(ids(opened)) <= {"a", "b"}
        assert len(opened.check().passed.names) >= 3
    assert set(ids(open_source("photos/@eaDir/*.jpg", options()))) == {"t"}, "it is named in the pattern"


def test_a_link_that_leads_round_in_a_circle_gives_each_picture_once() -> None:
    os.symlink(".", "photos/loop")
    assert sorted(ids(open_source("photos/**/*.*g", options()))) == ["a", "b"]


def test_links_to_what_is_there_already_give_nothing_twice() -> None:
    os.symlink("photos", "again")
    assert len(ids(open_source(("photos", "again"), options()))) == 2
    assert len(ids(open_source(("photos/a.jpg", "again/a.jpg", "e.png"), options()))) == 2


def test_two_dots_behind_a_link_lead_where_the_system_goes() -> None:
    touch("real/deep/z.png", "real/e.png")
    os.symlink("real/deep", "link")
    got = ids(open_source(("link/../e.png", "photos/a.jpg"), options()))
    assert sorted(map(os.path.normpath, got.values())) == ["photos/a.jpg", "real/e.png"]


def test_what_is_named_is_edited_although_a_walk_would_pass_over_it() -> None:
    touch("photos/.hidden/h.png", "photos/.x.png", "photos/@eaDir/t.png")
    given = ("photos", "photos/.hidden/h.png", "photos/.x.png", "photos/@eaDir")
    assert len(ids(open_source(given, options()))) == 5


def test_exclude_takes_folders_of_what_a_pattern_fits() -> None:
    touch("photos/private/p.jpg")
    for pattern in ("private", "private/", "./private", "p*e"):
        assert sorted(ids(open_source("photos/**/*.*g", options(exclude=(pattern,))))) == ["a", "b"]


@pytest.mark.parametrize("name", ["photos/a.jpg", "m.jsonl", "@l.txt", "-"])
def test_exclude_is_refused_where_it_could_do_nothing(name: str) -> None:
    Path("m.jsonl").write_text('{"image": "e.png"}\n')
    Path("l.txt").write_text("e.png\n")
    with pytest.raises(UsageError, match="--exclude is for folders and patterns"):
        open_source(name, options(exclude=("x",)))
