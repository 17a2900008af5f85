"""Sources and flags that do not fit each other, and what a dry run says of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cli_command import Command
from PIL import Image

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1")
TABLE = "image,source_img,instruction\npictures/a.png,pictures/b.jpg,x\n"


def draw(path: str, colour: str = "red") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 24), colour).save(path)


@pytest.mark.parametrize("header", ["image,source_img", "source_img,image"])
def test_a_mapped_column_beside_one_of_the_name_itself(joyedit: Command, pictures: Path, header: str) -> None:
    Path("t.csv").write_text(TABLE.replace("image,source_img", header))
    refused = joyedit("run", "t.csv", *FAKE, "-n", "--map", "image=source_img")
    assert refused.code == 2
    first, second = header.split(",")
    assert refused.err == (
        f"joyedit: error: t.csv:1: '{first}' and '{second}' mean the same key "
        "(--ignore-columns image reads 'source_img' alone)\n"
    )
    both = ("--map", "image=source_img", "--ignore-columns", "image")
    assert joyedit("run", "t.csv", *FAKE, "-n", "-q", *both).code == 0


LINE_FLAGS = [("--map", "image=x"), ("--keep-columns", "x"), ("--ignore-columns", "all"), ("--text-to-image",)]


@pytest.mark.parametrize("flag", LINE_FLAGS)
@pytest.mark.parametrize(
    ("source", "told"),
    [
        (("pictures",), "pictures"),
        (("pictures/a.png",), "pictures/a.png"),
        (("pictures", "pictures/a.png"), "SOURCE"),
        (("pictures/*.png", "pictures/*.jpg"), "SOURCE"),
        (("@list.txt",), "@list.txt"),
    ],
)
def test_flags_for_lines_where_there_are_none(
    joyedit: Command, pictures: Path, source: tuple[str, ...], told: str, flag: tuple[str, ...]
) -> None:
    Path("list.txt").write_text("pictures/a.png\n")
    refused = joyedit("run", *source, "-p", "x", *FAKE, "-n", *flag)
    expected = f"{flag[0]} is for the lines of a manifest, and {told} is none (leave it out)"
    assert (refused.code, refused.err) == (2, f"joyedit: error: {expected}\n")


def test_several_flags_for_lines(joyedit: Command, pictures: Path) -> None:
    refused = joyedit("run", "pictures", "-p", "x", *FAKE, "--map", "image=x", "--keep-columns", "y")
    assert (
        "--map and --keep-columns are for the lines of a manifest, and pictures is none (leave them out)" in refused.err
    )


def test_flags_for_lines_and_paths_on_standard_input(program: Command, pictures: Path) -> None:
    run = ("run", "-", "-p", "x", *FAKE, "-n", "-q", "--keep-columns", "page")
    refused = program(*run, stdin="pictures/a.png\n")
    assert refused.code == 2
    assert "--keep-columns is for the lines of a manifest, and what comes from standard input is none" in refused.err
    assert program(*run, stdin='{"image": "pictures/a.png", "page": 1}\n').code == 0


def test_the_list_in_a_folder_has_lines(joyedit: Command, pictures: Path) -> None:
    (pictures / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "red", "page": 3}\n')
    ended = joyedit("run", "pictures", *FAKE, "-q", "--map", "instruction=text", "--keep-columns", "page")
    assert ended.code == 0, ended.err
    record = json.loads(Path("edited/results.jsonl").read_text())
    assert (record["instruction"], record["columns"]) == ("red", {"page": 3})


def test_missing_ones_of_several_pictures(joyedit: Command, pictures: Path) -> None:
    run = ("run", "pictures/a.png", "gone.png", "pictures/b.jpg", "-p", "x", *FAKE)
    refused = joyedit(*run)
    assert refused.code == 2
    assert "gone.png: no such file or folder (--skip-missing edits those that are there)" in refused.err
    ended = joyedit(*run, "--skip-missing")
    assert ended.code == 3, ended.err
    assert "failed: gone: missing_picture: gone.png: no such picture" in ended.err
    assert Path("edited/pictures/a.png").exists()
    assert joyedit("run", "gone.png", "lost.png", "-p", "x", *FAKE, "--skip-missing").code == 2
    assert joyedit("run", "pictures", "gone", "-p", "x", *FAKE, "--skip-missing").code == 2


def test_a_list_in_one_of_several_folders_is_not_read(joyedit: Command, pictures: Path) -> None:
    draw("more/d.png")
    (pictures / "metadata.jsonl").write_text('{"file_name": "a.png", "instruction": "red"}\n')
    for others in (("more",), ("more/d.png",)):
        refused = joyedit("run", "pictures", *others, *FAKE, "-n")
        assert refused.code == 2
        told = (
            "no instruction (give one with -p, or run pictures by itself: only then 'pictures/metadata.jsonl' is read)"
        )
        assert refused.err == f"joyedit: error: .: {told}\n"
    assert joyedit("run", "pictures", "more", *FAKE, "-n", "-q", "-p", "x").code == 0
    for name in ("pictures/a", "pictures/b", "pictures/deep/c", "more/d"):
        Path(f"{name}.txt").write_text("text beside it")
    assert joyedit("run", "pictures", "more", *FAKE, "-n", "-q").code == 0


def test_a_changed_text_beside_the_only_picture(joyedit: Command) -> None:
    """As a changed line of a manifest: the item is edited again."""
    draw("one.png")
    Path("one.txt").write_text("first")
    shown = joyedit("run", "one.png", *FAKE, "-n")
    assert "instruction: 'first'" in shown.err
    assert joyedit("run", "one.png", *FAKE).code == 0
    Path("one.txt").write_text("second")
    ended = joyedit("run", "one.png", *FAKE)
    assert ended.code == 0, ended.err
    assert "1 finished picture is edited again: line, picture or edited file changed" in ended.err
    refused = joyedit("run", "one.png", *FAKE, "-p", "third")
    assert refused.code == 2
    assert "instruction 'second' -> 'third'" in refused.err


def test_a_recipe_fills_in_the_text_beside_the_only_picture(joyedit: Command) -> None:
    draw("one.png")
    Path("one.txt").write_text("the moon")
    Path("r.yaml").write_text('instruction: "Draw {instruction} well."\n')
    shown = joyedit("run", "one.png", *FAKE, "-n", "--recipe", "r.yaml")
    assert shown.code == 0, shown.err
    assert "'Draw the moon well.'" in shown.out


@pytest.mark.parametrize("name", ["con.png", "NUL.jpg", "a:b.png", "a\\b.png", "x\ny.png"])
def test_a_name_that_no_edited_picture_may_have(joyedit: Command, name: str) -> None:
    draw("one.png")
    refused = joyedit("run", "one.png", "-p", "x", *FAKE, "-o", name)
    assert refused.code == 2
    assert "problems" not in refused.err
    assert "the name has the part" in refused.err or "the name contains a" in refused.err
    assert "(give another one with -o)" in refused.err


def test_a_folder_as_a_list_of_paths(joyedit: Command, pictures: Path) -> None:
    refused = joyedit("run", "@pictures", "-p", "x", *FAKE)
    expected = "@pictures: a list of paths is a file, and this is a folder (its pictures: pictures)"
    assert (refused.code, refused.err) == (2, f"joyedit: error: {expected}\n")


def test_a_missing_picture_is_not_edited_again(joyedit: Command, pictures: Path) -> None:
    line = {"image": "pictures/a.png", "instruction": "x", "id": "a"}
    Path("m.jsonl").write_text(json.dumps(line) + "\n")
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    (pictures / "a.png").rename("kept.png")
    ended = joyedit("run", "m.jsonl", *FAKE)
    assert ended.code == 3, ended.err
    assert "edited again" not in ended.err
    os.rename("kept.png", pictures / "a.png")
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    Path("m.jsonl").write_text(json.dumps(line | {"instruction": "y"}) + "\n")
    assert "1 finished picture is edited again" in joyedit("run", "m.jsonl", *FAKE).err


# The exit code of a dry run is that of the run.


def test_a_dry_run_of_standard_input_that_would_keep_a_picture(program: Command, pictures: Path) -> None:
    run = ("run", "-", *FAKE, "-p", "x")
    assert program(*run, stdin="pictures/a.png\n").code == 0
    looked = program(*run, "--seed", "9", "-n", stdin="pictures/a.png\n")
    assert looked.code == 3, looked.err
    assert "left 1" in looked.out
    assert program(*run, "--seed", "9", stdin="pictures/a.png\n").code == 3


def test_a_dry_run_tells_a_file_of_somebody_else(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    Path("edited/a.png").write_text("mine")
    run = ("run", "pictures", "-p", "x", *FAKE)
    for _ in range(2):  # without records, and with them
        looked = joyedit(*run, "-n")
        assert looked.code == 3
        assert "output_taken" in looked.out
        assert "'a.png' is there already, and no record of joyedit names it" in looked.out
        assert joyedit(*run).code == 3
    without_model = joyedit("run", "pictures", "-p", "x", "-n")
    assert "output_taken" in without_model.out
    assert without_model.code == 3
    Path("edited/a.png").unlink()
    assert joyedit(*run).code == 0
    assert joyedit(*run, "-n").code == 0


def test_a_dry_run_knows_what_a_killed_run_left(program: Command, pictures: Path) -> None:
    """A picture without a record that was in work is joyedit's own."""
    run = ("run", "pictures", "-p", "x", *FAKE, "--batch-size", "1")
    killed = program(*run, env={"JOYEDIT_FAULT": "journal.append:1:kill"})
    assert killed.code < 0
    # Several threads write pictures: which one is the first to be recorded is not fixed.
    assert [path for path in Path("edited").iterdir() if path.suffix in (".png", ".jpg")]
    looked = program(*run, "-n")
    assert looked.code == 0, looked.out
