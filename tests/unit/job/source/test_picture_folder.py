"""A folder of pictures: each folder once, and every picture that was counted comes out."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from joyedit.errors import ManifestError
from joyedit.job.source.counted_pictures import CountedPictures
from joyedit.job.source.sources import Source, SourceOptions, open_source, reopen
from joyedit.job.spec import EditItem, FailedItem

NOBODY = 65534


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    return tmp_path


def touch(*names: str) -> None:
    """Pictures without content: nothing here reads them."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def source(name: str = "in") -> Source:
    return open_source(name, SourceOptions(output=Path("out"), prompt="go"))


def checked(expected: int, name: str = "in") -> Source:
    opened = source(name)
    assert opened.check().items == expected
    return opened


def given(opened: Source) -> list[tuple[str, str]]:
    """Id and code ("ok") of each item."""
    return [(item.id, item.code if isinstance(item, FailedItem) else "ok") for item in opened.items()]


@contextmanager
def another_user() -> Iterator[None]:
    """The rights of somebody who owns nothing here; those of the test's own user where that is no root."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)


# ---- each folder once ----


def test_folders_that_link_to_each_other_are_visited_once() -> None:
    touch("in/a/1.png", "in/b/2.png")
    os.symlink("../b", "in/a/b")
    os.symlink("../a", "in/b/a")
    assert given(checked(2)) == [("a/1", "ok"), ("b/2", "ok")]


def test_chains_of_links_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two links in each of 30 folders to the next one made 2**30 visits."""
    Path("in").mkdir()
    for number in range(30):
        touch(f"chain/{number}/{number:02}.png")
        for link in ("left", "right"):
            os.symlink(f"../{number + 1}", f"chain/{number}/{link}")
    os.symlink("../chain/0", "in/first")
    visits: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: visits.append(path) or real(path))
    opened = checked(30)
    assert len(visits) == 31 + 2  # two looks for a dataset
    assert len({name.rsplit("/", 1)[1] for name, _ in given(opened)}) == 30


def test_links_between_all_folders() -> None:
    for one in range(12):
        touch(f"in/{one}/{one}.png")
        for other in range(12):
            os.symlink(f"../{other}", f"in/{one}/to-{other}")
    assert sorted(given(checked(12))) == sorted((f"{n}/{n}", "ok") for n in range(12))


def test_a_real_folder_comes_before_links_to_it() -> None:
    touch("in/z/x.png", "elsewhere/deep/y.png")
    os.symlink("z", "in/a")
    os.symlink("../elsewhere/deep", "in/b")
    os.symlink("../elsewhere", "in/c")
    assert given(checked(2)) == [("z/x", "ok"), ("b/y", "ok")]


def test_a_link_to_a_folder_above_gives_what_is_new() -> None:
    touch("all/in/x.png", "all/other/y.png")
    os.symlink("..", "all/in/up")
    assert given(checked(2, "all/in")) == [("x", "ok"), ("up/other/y", "ok")]


# ---- what was counted ----


def test_a_picture_that_vanishes_is_a_failed_item() -> None:
    touch("in/a.png", "in/b.jpg", "in/sub/c.png")
    opened = checked(3)
    os.unlink("in/b.jpg")
    [first, second, third] = opened.items()
    assert isinstance(second, FailedItem)
    assert (second.code, second.message) == ("missing_picture", "b.jpg: no such picture")
    assert second.item is not None
    assert second.item.output == "b.png"
    assert [item.id for item in (first, second, third)] == ["a", "b", "sub/c"]
    assert opened.counted_missing() == 0


def test_ids_stay_the_same_when_pictures_vanish() -> None:
    touch("in/x.png", "in/x.jpg", "in/S/y.png", "in/s/y.png")
    opened = checked(4)
    before = [name for name, _ in given(opened)]
    os.unlink("in/x.png")
    shutil.rmtree("in/S")
    assert [name for name, _ in given(opened)] == before


def test_a_folder_that_vanishes_gives_all_its_pictures() -> None:
    touch("in/a.png", "in/sub/b.png", "in/sub/deep/c.png", "in/sub/deep/er/d.png", "in/z.png")
    opened = checked(5)
    shutil.rmtree("in/sub")
    assert given(opened) == [
        ("a", "ok"),
        ("sub/b", "missing_picture"),
        ("sub/deep/c", "missing_picture"),
        ("sub/deep/er/d", "missing_picture"),
        ("z", "ok"),
    ]
    assert opened.counted_missing() == 0


@pytest.mark.parametrize("becomes", ["nothing", "file", "link to a folder", "link to a sibling", "broken link"])
def test_a_folder_that_becomes_something_else(becomes: str) -> None:
    touch("in/a/x.png", "in/b/y.png", "elsewhere/z.png")
    opened = checked(2)
    shutil.rmtree("in/b")
    if becomes == "file":
        Path("in/b").write_text("x")
    elif becomes != "nothing":
        os.symlink({"link to a folder": "../elsewhere", "link to a sibling": "a", "broken link": "q"}[becomes], "in/b")
    got = given(opened)
    assert got[:2] == [("a/x", "ok"), ("b/y", "missing_picture")]
    assert got[2:] == ([("b/z", "ok")] if becomes == "link to a folder" else [])
    assert opened.counted_missing() == 0


def test_a_folder_that_becomes_a_link_to_the_output_folder() -> None:
    touch("in/b/y.png", "out/b/y.png")
    opened = checked(1)
    shutil.rmtree("in/b")
    os.symlink("../out/b", "in/b")
    assert [code for _, code in given(opened)] != ["ok"]
    assert opened.counted_missing() == 0


def test_the_whole_folder_vanishes() -> None:
    touch("in/a.png", "in/sub/b.png")
    opened, unchecked = checked(2), source()
    shutil.rmtree("in")
    assert given(opened) == [("a", "missing_picture"), ("sub/b", "missing_picture")]
    with pytest.raises(ManifestError, match="in: cannot read this folder: No such file or directory"):
        list(unchecked.items())


def test_pictures_that_appear_later_are_edited_as_well() -> None:
    touch("in/b.png")
    opened = checked(1)
    touch("in/a.png", "in/new/c.png")
    os.unlink("in/b.png")
    assert given(opened) == [("a", "ok"), ("b", "missing_picture"), ("new/c", "ok")]
    assert opened.counted_missing() == 0


def test_a_second_check_forgets_nothing() -> None:
    touch("in/a.png", "in/sub/b.png")
    opened = checked(2)
    shutil.rmtree("in/sub")
    touch("in/c.png")
    assert opened.check().items == 3
    os.unlink("in/c.png")
    assert given(opened) == [("a", "ok"), ("c", "missing_picture"), ("sub/b", "missing_picture")]


def test_without_a_check_there_is_nothing_to_account_for() -> None:
    touch("in/a.png")
    opened = source()
    assert given(opened) == [("a", "ok")]
    assert opened.counted_missing() == 0


def test_names_that_are_no_text_are_counted_too(place: Path) -> None:
    touch("in/a.png")
    try:
        touch(f"in/{os.fsdecode(b'b' + bytes([255]))}.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    opened = checked(2)
    os.unlink(f"in/{os.fsdecode(b'b' + bytes([255]))}.png")
    assert given(opened) == [("a", "ok"), ("b_", "unreadable_picture")]


def test_the_memory_of_a_million_pictures() -> None:
    counted = CountedPictures()
    for folder in range(100):
        counted.note(f"folder-{folder}", [(f"IMG_{number:07}.jpg", "picture") for number in range(1_000)])
    size = sum(len(packed) for packed in counted._names.values())
    assert size < 100 * 1_000 * 10
    listing = counted.listing("folder-7")
    assert listing is not None
    assert listing[999] == ("IMG_0000999.jpg", "picture")
    assert counted.listing("folder-100") is None


def test_what_is_kept_of_a_folder() -> None:
    counted = CountedPictures()
    counted.note("a", [("x.png", "picture"), ("l.png", "picture link"), ("g.png", "gone"), ("n.txt", "other")])
    assert counted.listing("a") == [("x.png", "picture"), ("l.png", "picture"), ("g.png", "picture")]
    counted.note("a", [("sub", "folder"), ("link", "folder link"), ("\udcff\n.png", "picture")])
    assert counted.listing("a") == [("sub", "folder"), ("link", "folder link"), ("\udcff\n.png", "picture")]
    counted.note("a", [])
    assert counted.listing("a") == []


# ---- folders that cannot be read ----

ALLOW = "allow this user to read it, or leave it out"


@pytest.mark.parametrize("mode", [0o000, 0o311])
def test_a_folder_without_permission_is_one_failed_item(mode: int) -> None:
    touch("in/a.png", "in/sub/b.png", "in/sub/deep/c.png", "in/z.png")
    os.chmod("in/sub", mode)
    try:
        with another_user():
            opened = checked(3)
            got = list(opened.items())
            assert opened.counted_missing() == 0
    finally:
        os.chmod("in/sub", 0o755)
    assert [item.id for item in got] == ["a", "sub/unreadable_folder", "z"]
    failed = got[1]
    assert isinstance(failed, FailedItem)
    assert (failed.code, failed.images) == ("unreadable_folder", ())
    assert failed.message == f"sub: cannot read this folder: Permission denied ({ALLOW})"
    assert given(opened) == [("a", "ok"), ("sub/b", "ok"), ("sub/deep/c", "ok"), ("z", "ok")]


def test_permission_that_is_taken_after_the_check() -> None:
    touch("in/a.png", "in/sub/b.png", "in/sub/deep/c.png")
    opened = checked(3)
    os.chmod("in/sub", 0)
    try:
        with another_user():
            got = list(opened.items())
    finally:
        os.chmod("in/sub", 0o755)
    assert [item.id for item in got] == ["a", "sub/b", "sub/deep/c"]
    for item in got[1:]:
        assert isinstance(item, FailedItem)
        assert item.code == "unreadable_picture"
        assert item.message.endswith("Permission denied")
    assert opened.counted_missing() == 0


def test_the_source_folder_without_permission_is_refused() -> None:
    touch("in/a.png")
    os.chmod("in", 0)
    try:
        with another_user(), pytest.raises(ManifestError) as error:
            source().check()
        with another_user(), pytest.raises(ManifestError):
            list(source().items())
    finally:
        os.chmod("in", 0o755)
    assert str(error.value) == "in: cannot read this folder: Permission denied"


def test_a_path_that_is_too_long_for_the_system() -> None:
    """24 folders of 200 bytes: no system call takes the whole path, and one folder after the other can make it."""
    touch("in/a.png", "in/z.png")
    here = os.getcwd()
    os.chdir("in")
    try:
        for _ in range(24):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        Path("lost.png").touch()
    finally:
        os.chdir(here)
    opened = checked(3)
    got = list(opened.items())
    assert [getattr(item, "code", "ok") for item in got] == ["ok", "unreadable_folder", "ok"]
    failed = got[1]
    assert isinstance(failed, FailedItem)
    assert "cannot read this folder: File name too long (its path is too long for this system; " in failed.message
    assert len(failed.message) < 1_500
    assert len(failed.id.encode()) <= 1_000
    assert opened.counted_missing() == 0


def fail_at(monkeypatch: pytest.MonkeyPatch, folder: str, error: int) -> Callable[[], None]:
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == folder:
            raise OSError(error, os.strerror(error), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return lambda: monkeypatch.setattr(os, "scandir", real)


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES, errno.EMFILE, errno.ETIMEDOUT])
def test_whatever_keeps_a_folder_from_being_read(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/a.png", "in/sub/b.png", "in/z.png")
    mend = fail_at(monkeypatch, "sub", error)
    opened = checked(3)
    got = list(opened.items())
    assert [getattr(item, "code", "ok") for item in got] == ["ok", "unreadable_folder", "ok"]
    failed = got[1]
    assert isinstance(failed, FailedItem)
    assert failed.message.startswith(f"sub: cannot read this folder: {os.strerror(error)} (")
    mend()
    assert given(opened) == [("a", "ok"), ("sub/b", "ok"), ("z", "ok")]
    fail_at(monkeypatch, "sub", error)
    opened.check()
    assert opened.counted_missing() == 0
    got = list(opened.items())
    assert len(got) == 3
    assert all(isinstance(item, EditItem) for item in (got[0], got[2]))


def test_a_folder_that_fails_in_the_middle_of_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/a.png", "in/sub/b.png", "in/sub/c.png")
    real = os.scandir

    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        def some() -> Iterator[os.DirEntry[str]]:
            with real(path) as found:
                for number, entry in enumerate(found):
                    if number and path.endswith("sub"):
                        raise OSError(errno.EIO, "Input/output error", path)
                    yield entry

        yield some()

    opened = checked(3)
    unchecked = source()
    monkeypatch.setattr(os, "scandir", scandir)
    assert sorted(code for _, code in given(opened)) == ["ok", "ok", "unreadable_picture"]
    assert given(unchecked) == [("a", "ok"), ("sub/unreadable_folder", "unreadable_folder")]


# ---- manifests ----


@pytest.mark.parametrize(
    ("change", "missing"), [(lambda lines: lines[:-2], 2), (lambda lines: lines * 2, 0), (lambda lines: lines[::-1], 0)]
)
def test_a_manifest_that_loses_lines(change: Callable[[list[str]], list[str]], missing: int) -> None:
    touch("a.png")
    lines = [f'{{"image": "a.png", "id": "{number}", "instruction": "x"}}\n' for number in range(5)]
    Path("m.jsonl").write_text("".join(lines))
    opened = source("m.jsonl")
    assert opened.check().items == 5
    assert opened.counted_missing() == 5  # nothing was given yet
    Path("m.jsonl").write_text("".join(change(lines)))
    list(opened.items())
    assert opened.counted_missing() == missing


def test_the_limit_is_counted() -> None:
    touch("in/a.png", "in/b.png", "in/c.png")
    opened = open_source("in", SourceOptions(output=Path("out"), prompt="go", limit=2))
    assert opened.check().items == 2
    assert len(list(opened.items())) == 2
    assert opened.counted_missing() == 0


# ---- what is passed over ----


def passed(*exclude: str) -> dict[str, str]:
    opened = open_source("in", SourceOptions(output=Path("out"), prompt="go", exclude=exclude))
    return dict(opened.check().passed.names)


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "@EADIR",
        "$RECYCLE.BIN",
        "lost+found",
        "__MACOSX",
        "System Volume Information",
        ".thumbnails",
        ".Trash-0",
    ],
)
def test_folders_of_the_system_are_passed_over_by_name(folder: str) -> None:
    touch("in/a.png", f"in/sub/{folder}/b.png", f"in/{folder}/c.png")
    assert given(checked(1)) == [("a", "ok")]
    assert set(passed()) == {folder, f"sub/{folder}"}


def test_a_folder_with_records_of_joyedit_is_passed_over() -> None:
    touch("in/a.png", "in/first/b.png", "in/other/c.png", "in/other/results.jsonl")
    Path("in/first/results.jsonl").write_text('{"id": "b", "status": "ok", "instruction": "x"}\n')
    assert given(checked(2)) == [("a", "ok"), ("other/c", "ok")]
    assert passed() == {"first": "an output folder of joyedit", "other/results.jsonl": "no picture"}
    # The source itself may be one: somebody edits edited pictures.
    shutil.copy("in/first/results.jsonl", "in/results.jsonl")
    assert given(checked(2)) == [("a", "ok"), ("other/c", "ok")]


def test_records_that_are_a_pipe_hold_up_nothing() -> None:
    touch("in/a.png", "in/sub/b.png")
    os.mkfifo("in/sub/results.jsonl")
    assert given(checked(2)) == [("a", "ok"), ("sub/b", "ok")]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.jpg", ["a", "sub/c"]),
        ("sub", ["a", "b"]),
        ("sub/", ["a", "b"]),
        ("./sub", ["a", "b"]),
        ("sub/*", ["a", "b"]),
        ("[ab].*", ["sub/c"]),
        ("A.png", ["a", "b", "sub/c"]),
        ("?", ["a", "b", "sub/c"]),
    ],
)
def test_what_is_excluded(pattern: str, left: list[str]) -> None:
    touch("in/a.png", "in/b.jpg", "in/sub/c.png")
    opened = open_source("in", SourceOptions(output=Path("out"), prompt="go", exclude=(pattern,)))
    opened.check()
    assert [name for name, _ in given(opened)] == left
    assert set(passed(pattern).values()) <= {"left out with --exclude"}
    assert [name for name, _ in given(reopen(opened.asked(), Path("out")))] == left


def test_an_excluded_picture_changes_no_id_of_another() -> None:
    touch("in/a.png", "in/a.jpg")
    opened = open_source("in", SourceOptions(output=Path("out"), prompt="go", exclude=("*.jpg",)))
    assert given(opened) == [("a", "ok")]


def test_files_are_named_as_what_they_are() -> None:
    touch(
        "in/a.png", *(f"in/p.{ending}" for ending in ("DNG", "nef", "svg", "exr", "tga", "psb", "mov", "txt")), "in/.x"
    )
    kinds = passed()
    assert kinds["p.DNG"] == kinds["p.nef"] == "a RAW photo, which needs to be developed first"
    assert "drawing" in kinds["p.svg"]
    assert "dynamic range" in kinds["p.exr"]
    assert "format that joyedit does not read" in kinds["p.tga"]
    assert "project" in kinds["p.psb"]
    assert kinds["p.mov"] == "a video"
    assert kinds["p.txt"] == "no picture"
    assert kinds[".x"] == "a hidden file"


@pytest.mark.parametrize("name", ["noending", "a.jpg_large", "b.jpg!web", "c.jpg_original", "d.bin"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_picture_whose_name_does_not_say_so_is_named_as_one(name: str, kind: str) -> None:
    touch("in/a.png")
    Image.new("RGB", (8, 8)).save(f"in/{name}", kind)
    assert passed() == {name: "a picture whose name does not end like one (rename it to have it edited)"}


def test_what_is_no_plain_file_is_not_opened() -> None:
    touch("in/a.png", "in/empty")
    os.mkfifo("in/pipe")
    os.symlink("nowhere", "in/link")
    Path("in/text").write_bytes(b"BM, and no bitmap")
    assert set(passed().values()) == {"no picture"}


@pytest.mark.parametrize("ending", [".jif", ".jfi", ".pjpeg", ".PJP", ".jfif", ".jpe"])
def test_every_ending_of_jpeg_counts(ending: str) -> None:
    touch(f"in/a{ending}")
    assert given(checked(1)) == [("a", "ok")]


def test_a_thousand_files_are_named_and_all_are_counted() -> None:
    touch("in/a.png", *(f"in/{number}.txt" for number in range(1100)))
    found = open_source("in", SourceOptions(output=Path("out"), prompt="go")).check().passed
    assert (found.count, len(found.names), dict(found.kinds)) == (1100, 1000, {"no picture": 1100})
