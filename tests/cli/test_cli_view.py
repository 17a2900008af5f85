"""`joyedit view`, and the page that `joyedit run` leaves."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
from PIL import Image

import joyedit
from joyedit.job.own_files import PAGE, PAGE_FILES
from support.pages import ReadPage

FAKE = ("-m", "fake", "--basesize", "256", "-p", "make it night")


@pytest.fixture
def edited(joyedit: Command, pictures: Path) -> Path:
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert joyedit("run", pictures, *FAKE, "--no-page").code == 3
    assert not Path("edited", PAGE).exists()
    return Path("edited")


def test_a_run_leaves_a_page(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures, *FAKE)
    assert ended.code == 0
    assert "page" in ended.out.splitlines()[-1].split()[0]
    assert ended.out.splitlines()[-1].endswith(f"edited/{PAGE}")
    assert sorted(row["id"] for row in ReadPage(Path("edited")).rows) == ["a", "b", "deep/c"]
    assert ReadPage(Path("edited")).run["state"] == "complete"
    assert joyedit("verify", "edited").code == 0
    before = Path("edited", PAGE).stat().st_mtime_ns
    again = joyedit("run", pictures, *FAKE)
    assert again.code == 0
    assert "3 items are already done" in again.err
    assert again.out.splitlines()[-1].endswith(f"edited/{PAGE}")
    assert Path("edited", PAGE).stat().st_mtime_ns == before


def test_one_picture_in_a_folder(joyedit: Command, pictures: Path) -> None:
    ended = joyedit("run", pictures / "a.png", *FAKE)
    assert ended.out == "edited/a.png\n"
    assert Path("edited", PAGE).is_file()


@pytest.mark.parametrize("more", [("-q",), ("--json",)])
def test_results_on_stdout_stay_what_they_are(joyedit: Command, pictures: Path, more: tuple[str, ...]) -> None:
    ended = joyedit("run", pictures, *FAKE, *more)
    assert Path("edited", PAGE).is_file()
    assert PAGE not in ended.out


def test_a_single_file_has_no_page(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures / "a.png", *FAKE, "-o", "one.png").code == 0
    assert sorted(os.listdir()) == ["one.png", "pictures"]


def test_the_page_of_an_interrupted_run_is_made_later(joyedit: Command, pictures: Path) -> None:
    lines = [{"image": str(pictures / "a.png"), "instruction": "SIGNAL", "id": str(n), "seed": n} for n in range(4)]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ended = joyedit("run", "m.jsonl", "-m", "fake", "--basesize", "256", "--batch-size", "1")
    assert ended.code == 130
    assert not Path("edited", PAGE).exists()
    assert joyedit("view", "edited").code == 0
    page = ReadPage(Path("edited"))
    assert page.run["state"] == "interrupted"
    assert page.run["left"] == 4 - len(page.rows)


def test_from_python(pictures: Path) -> None:
    found = {"prompt": "x", "model": "fake", "basesize": 256}
    assert joyedit.run(pictures, output="a", **found).page == Path("a", PAGE)
    assert joyedit.run(pictures, output="b", page=False, **found).page is None
    assert not Path("b", PAGE).exists()
    with pytest.raises(joyedit.UsageError, match="unknown keyword 'no_page'"):
        joyedit.run(pictures, no_page=True, **found)


def test_view_makes_the_page(joyedit: Command, edited: Path) -> None:
    ended = joyedit("view", edited)
    assert (ended.code, ended.out, ended.err) == (0, f"edited/{PAGE}\n", "")
    assert ReadPage(edited).row("broken")["code"] == "truncated_picture"
    assert joyedit("view", edited, "--page", "look.html").out == "edited/look.html\n"


def test_view_of_something_else(joyedit: Command, pictures: Path) -> None:
    for folder, message in (
        (pictures, "this is no output folder of joyedit (it has no results.jsonl)"),
        (Path("none"), "no such folder (give the output folder of a run)"),
    ):
        ended = joyedit("view", folder)
        assert ended.code == 2
        assert ended.messages == [f"joyedit: error: {folder}: {message}"]
    assert joyedit("view", "none", "--only", "failed").code == 2


def test_a_strangers_page(joyedit: Command, edited: Path) -> None:
    (edited / PAGE).write_text("mine")
    ended = joyedit("view", edited)
    assert ended.code == 2
    assert "joyedit view edited --page look.html makes the page under another name" in ended.err
    assert (edited / PAGE).read_text() == "mine"


def test_a_run_goes_on_where_a_stranger_has_a_page(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    Path("edited", PAGE).write_text("mine")
    ended = joyedit("run", pictures, *FAKE)
    assert ended.code == 0
    assert [line for line in ended.messages if "no page was made" in line]
    assert Path("edited", PAGE).read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(joyedit: Command, edited: Path) -> None:
    edited.chmod(0o555)
    try:
        ended = joyedit("view", edited)
        assert ended.code == 1
        assert "Permission denied" in ended.err
        assert joyedit("view", edited, "--sheet", "sheet.png").code == 0
    finally:
        edited.chmod(0o755)


def test_a_disk_that_is_read_only(joyedit: Command, edited: Path) -> None:
    from joyedit.job import failpoints

    try:
        failpoints.arm("file.create:1:erofs")
        ended = joyedit("view", edited)
        assert ended.code == 1
        assert ended.messages == [
            f"joyedit: error: cannot write '{PAGE_FILES}/about.txt' in edited: Read-only file system"
        ]
        failpoints.arm("file.create:6:enospc")
        ended = joyedit("view", edited)
        assert ended.code == 1
        assert "No space left on device" in ended.err
    finally:
        failpoints.arm(None)


def test_a_full_disk_is_a_note_of_the_run(joyedit: Command, pictures: Path) -> None:
    from joyedit.job import failpoints

    assert joyedit("run", pictures, *FAKE).code == 0
    Path("edited", PAGE).unlink()
    try:
        failpoints.arm("file.create:2:enospc")  # the first is report.json
        ended = joyedit("run", pictures, *FAKE)
    finally:
        failpoints.arm(None)
    assert ended.code == 0
    assert len([line for line in ended.messages if "No space left" in line]) == 1
    assert [line for line in ended.messages if line.startswith("note: no page was made")]


def test_the_browser_opens_on_a_desktop(joyedit: Command, edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def fail(address: str) -> bool:
        opened.append(address)
        raise OSError("no browser")

    monkeypatch.setattr(webbrowser, "open", fail)
    monkeypatch.setattr("joyedit.cli.view._is_desktop", lambda: True)
    assert joyedit("view", edited).code == 0
    assert opened == [(edited / PAGE).absolute().as_uri()]
    assert joyedit("view", edited, "--no-open").code == 0
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("platform", "variables", "is_terminal", "found"),
    [
        ("linux", {}, True, False),
        ("linux", {"DISPLAY": ":0"}, True, True),
        ("linux", {"WAYLAND_DISPLAY": "w"}, True, True),
        ("linux", {"DISPLAY": ":0"}, False, False),
        ("darwin", {}, True, True),
    ],
)
def test_where_there_is_a_desktop(
    platform: str, variables: dict[str, str], is_terminal: bool, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joyedit.cli import view

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert view._is_desktop() is found


def test_a_contact_sheet(joyedit: Command, edited: Path) -> None:
    ended = joyedit("view", edited, "--sheet", "sheet.png")
    assert (ended.code, ended.out) == (0, "sheet.png\n")
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 4 * 2 * 190
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or ()}
    assert len(colours) > 10
    assert not Path("edited", PAGE).exists()
    first = Path("sheet.png").read_bytes()
    assert joyedit("view", edited, "--sheet", "sheet.png", "--only", "failed").code == 0
    with Image.open("sheet.png") as sheet:
        assert sheet.width < 600
    assert Path("sheet.png").read_bytes() != first


def test_a_contact_sheet_replaces_nothing_else(joyedit: Command, edited: Path, pictures: Path) -> None:
    for name in ("edited/a.png", "pictures/a.png"):
        before = Path(name).read_bytes()
        ended = joyedit("view", edited, "--sheet", name)
        assert ended.code == 2
        assert "is there already and is no contact sheet" in ended.err
        assert Path(name).read_bytes() == before
    assert joyedit("view", edited, "--sheet", "sheet.jpg").code == 2
    assert joyedit("view", edited, "--only", "failed").code == 2


def test_a_contact_sheet_of_nothing(joyedit: Command, pictures: Path) -> None:
    assert joyedit("run", pictures, *FAKE, "--no-page").code == 0
    ended = joyedit("view", "edited", "--sheet", "sheet.png", "--only", "failed")
    assert (ended.code, ended.messages) == (2, ["joyedit: error: edited: no item is failed"])
    Path("edited/results.jsonl").write_text("")
    assert joyedit("view", "edited", "--sheet", "sheet.png").code == 2


def test_a_contact_sheet_of_many(joyedit: Command, edited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joyedit.job.page.sheet.MOST_ITEMS", 2)
    ended = joyedit("view", edited, "--sheet", "sheet.png")
    assert ended.messages == ["note: the sheet shows the first 2 of 4 items"]


def test_hostile_records_on_a_sheet(joyedit: Command, tmp_path: Path) -> None:
    from support.pages import HOSTILE_TEXTS, MadeFolder

    made = MadeFolder(tmp_path / "made")
    for number, text in enumerate(HOSTILE_TEXTS):
        made.add(f"a{number}", instruction=text)
    made.add("outside", output="../../x.png", inputs=[3, "/none"], settings="odd")
    made.fail("bad", error="odd")
    made.add("line", inputs=["data:image/png;sha256=00"])
    assert joyedit("view", made.write(), "--sheet", "sheet.png").code == 0


def test_a_note_for_pictures_that_could_not_be_written(joyedit: Command, edited: Path, monkeypatch: Any) -> None:
    from joyedit.errors import OutputError
    from joyedit.job.page import build

    built = build.BuiltPage(path=edited / PAGE, items=4, made=0, left=3, error=OutputError("the disk is full"))

    def fake(out: Path, building: build.Building) -> build.BuiltPage:
        building.told(5)
        return built

    monkeypatch.setattr(build, "build_page", fake)
    assert joyedit("view", edited).messages == [
        "5 items so far",
        "note: the page lacks 3 small pictures: the disk is full",
    ]
