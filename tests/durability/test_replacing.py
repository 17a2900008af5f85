"""No file is replaced that is not joyedit's own, no input is an output, and no finished picture goes unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from durability.harness import FAKE, Done, Forks, environment, findings, make_manifest, pictures, program, records

RUN = ("run", "m.jsonl", *FAKE, "-o", "out")


def draw(path: Path, colour: str = "red") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 24), colour).save(path)
    return path.read_bytes()


def report(out: Path) -> dict[str, Any]:
    found = json.loads((out / "report.json").read_text())
    assert isinstance(found, dict)
    return found


def lines(place: Path, *given: dict[str, Any], name: str = "m.jsonl") -> None:
    (place / name).write_text("".join(json.dumps(line) + "\n" for line in given))


def piped(text: str, *flags: str, cwd: Path) -> Done:
    """The command with this text on its standard input."""
    command = [sys.executable, "-m", "joyedit", "run", "-", *FAKE[:-1], *flags]
    done = subprocess.run(
        command, input=text, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=100
    )
    return Done(code=done.returncode, message=done.stderr)


# Files of somebody else.


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--update",)])
def test_a_foreign_picture_in_the_output_folder_stays(forks: Forks, tmp_path: Path, flags: tuple[str, ...]) -> None:
    make_manifest(tmp_path, 3)
    mine = draw(tmp_path / "out" / "item2.png", "green")
    for _ in range(2):  # the second time with a failed record of that item
        ended = forks(*RUN, *flags, cwd=tmp_path)
        assert ended.code == 3, ended.message
        assert (tmp_path / "out" / "item2.png").read_bytes() == mine
        record = records(tmp_path / "out")["item2"]
        assert (record["status"], record["error"]["code"]) == ("failed", "output_taken")
        assert "choose another output folder with -o" in record["error"]["message"]
    (tmp_path / "out" / "item2.png").unlink()
    assert forks(*RUN, *flags, cwd=tmp_path).code == 0
    assert findings(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo", "folder"])
def test_whatever_stands_at_the_place_of_a_picture_stays(forks: Forks, tmp_path: Path, kind: str) -> None:
    make_manifest(tmp_path, 3)
    mine = draw(tmp_path / "mine.png", "green")
    target = tmp_path / "out" / "item2.png"
    target.parent.mkdir()
    if kind == "link":
        target.symlink_to(tmp_path / "mine.png")
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "gone.png")
    elif kind == "hard link":
        os.link(tmp_path / "mine.png", target)
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.mkdir()
    before = os.lstat(target)
    assert forks(*RUN, cwd=tmp_path).code == 3
    assert records(tmp_path / "out")["item2"]["error"]["code"] in ("output_taken", "output_name")
    after = os.lstat(target)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert (tmp_path / "mine.png").read_bytes() == mine
    assert not (tmp_path / "gone.png").exists()


def test_a_file_that_comes_while_the_item_is_edited_stays(forks: Forks, tmp_path: Path) -> None:
    """It is not there at the check, and is there when the picture is to get its name."""
    lines(tmp_path, {"image": "a.png", "instruction": "SLEEP", "id": "a"})
    draw(tmp_path / "a.png")
    code = (
        "import sys, pathlib\n"
        "from joyedit.job.results import output_folder\n"
        "put = output_folder.put\n"
        "def late(folder, temporary, name, may_replace):\n"
        "    if name == 'a.png':\n"
        "        pathlib.Path('out/a.png').write_bytes(b'mine')\n"
        "    put(folder, temporary, name, may_replace)\n"
        "output_folder.put = late\n"
        "from joyedit.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, *map(str, RUN)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    assert records(tmp_path / "out")["a"]["error"]["code"] == "output_taken"
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    assert pictures(tmp_path / "out") == {"a.png": b"mine"}
    assert forks(*RUN, cwd=tmp_path).code == 3
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["report.json", "failed.jsonl"])
def test_a_report_of_another_program_is_refused(forks: Forks, tmp_path: Path, name: str) -> None:
    make_manifest(tmp_path, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"tests": 3}\n')
    ended = forks(*RUN, cwd=tmp_path)
    assert ended.code == 2
    assert f"out/{name}: this file is not from joyedit, and a run would replace it" in ended.message
    assert os.listdir(tmp_path / "out") == [name]
    assert (tmp_path / "out" / name).read_text() == '{"tests": 3}\n'


def test_a_picture_whose_record_a_kill_took_is_still_its_own(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 4)
    assert forks(*RUN, "--batch-size", "1", cwd=tmp_path, fault="journal.append:3").code == -9
    named = {record["output"] for record in records(tmp_path / "out").values()}
    assert len(set(pictures(tmp_path / "out")) - named) >= 1
    assert forks(*RUN, cwd=tmp_path).code == 0
    assert findings(tmp_path / "out") == []
    assert not (tmp_path / "out" / ".joyedit.unfinished").exists()


def test_a_picture_whose_record_found_no_room_is_still_its_own(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 4)
    for fault in ("journal.append:3:enospc", "journal.half:1:enospc"):
        assert forks(*RUN, "--batch-size", "1", cwd=tmp_path, fault=fault).code == 1
    assert forks(*RUN, cwd=tmp_path).code == 0
    assert findings(tmp_path / "out") == []


# Inputs.


def test_an_input_is_no_output_however_its_folder_is_named(forks: Forks, tmp_path: Path) -> None:
    """The second run would replace what it reads: by a link, by `..`, and as it is."""
    mine = draw(tmp_path / "out" / "a.png")
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "other").mkdir()
    for image in ("link/a.png", "other/../out/a.png", "out/a.png", str(tmp_path / "link" / "a.png")):
        lines(tmp_path, {"image": image, "instruction": "x", "output": "a.png", "id": "a"})
        ended = forks(*RUN, cwd=tmp_path)
        assert ended.code in (2, 3), ended.message
        assert (tmp_path / "out" / "a.png").read_bytes() == mine


def test_a_finished_picture_is_not_edited_into_itself(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 1)
    assert forks(*RUN, cwd=tmp_path).code == 0
    mine = pictures(tmp_path / "out")
    (tmp_path / "same.png").symlink_to("out/item0.png")
    for image in ("out/item0.png", "same.png"):
        lines(tmp_path, {"image": image, "instruction": "again", "id": "item0"})
        assert forks(*RUN, cwd=tmp_path).code in (2, 3)
        assert pictures(tmp_path / "out") == mine


def test_an_output_folder_around_the_source(forks: Forks, tmp_path: Path) -> None:
    """`run photos -o .` with photos/x.png and photos/photos/x.png."""
    first, second = draw(tmp_path / "photos" / "x.png"), draw(tmp_path / "photos" / "photos" / "x.png", "blue")
    for _ in range(2):
        ended = forks("run", "photos", "-p", "x", *FAKE, "-o", ".", cwd=tmp_path)
        assert ended.code == 3, ended.message
        assert (tmp_path / "photos" / "x.png").read_bytes() == first
        assert (tmp_path / "photos" / "photos" / "x.png").read_bytes() == second
        assert sorted(path.name for path in (tmp_path / "photos").rglob("*.png")) == ["x.png", "x.png"]
    assert {name: record["status"] for name, record in records(tmp_path).items()} == {"x": "ok", "photos/x": "failed"}


# Finished pictures.


def test_another_instruction_is_asked_for_first(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "a.png")
    draw(tmp_path / "photos" / "b.png", "blue")
    run = ("run", "photos", *FAKE)
    assert forks(*run, "-p", "one", cwd=tmp_path).code == 0
    before = pictures(tmp_path / "edited")
    journal = (tmp_path / "edited" / "results.jsonl").read_bytes()
    told = (tmp_path / "edited" / "report.json").read_bytes()
    refused = forks(*run, "-p", "two", cwd=tmp_path)
    assert refused.code == 2
    assert "would replace 2 finished pictures in edited, because these differ: instruction (2)" in refused.message
    assert "instruction 'one' -> 'two'" in refused.message
    assert "--update" in refused.message
    assert "--overwrite" in refused.message
    assert "-o edited-2" in refused.message
    assert "loading" not in refused.message
    assert pictures(tmp_path / "edited") == before
    assert (tmp_path / "edited" / "results.jsonl").read_bytes() == journal
    assert (tmp_path / "edited" / "report.json").read_bytes() == told
    assert forks(*run, "-p", "one", cwd=tmp_path).code == 0
    assert pictures(tmp_path / "edited") == before
    assert forks(*run, "-p", "two", "--update", cwd=tmp_path).code == 0
    assert {record["instruction"] for record in records(tmp_path / "edited").values()} == {"two"}
    assert findings(tmp_path / "edited") == []


RECIPE = "name: r\ndescription: d\ninstruction: 'paint it {colour}'\nparameters:\n  colour: {default: red}\n"

CHANGES: dict[str, tuple[tuple[str, ...], str]] = {
    "steps": (("--steps", "2"), "steps"),
    "seed": (("--seed", "3"), "seed"),
    "guidance": (("--guidance-scale", "2"), "guidance scale"),
    "negative prompt": (("--neg-prompt", "grey"), "negative prompt"),
    "base size": (("--basesize", "512"), "base size"),
    "schedule": (("--schedule", "diffusers"), "schedule"),
    "dtype": (("--dtype", "bf16"), "dtype"),
    "format": (("--format", "jpg"), "format"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_flags_that_would_replace_are_refused(forks: Forks, tmp_path: Path, change: str) -> None:
    flags, word = CHANGES[change]
    draw(tmp_path / "photos" / "a.png")
    run = ("run", "photos", "-p", "one", "-m", "fake", "--basesize", "256", "--steps", "1", "-q")
    assert forks(*run, cwd=tmp_path).code == 0
    before = pictures(tmp_path / "edited")
    refused = forks(*run, *flags, cwd=tmp_path)
    assert refused.code == 2, refused.message
    assert f"{word} (1)" in refused.message
    assert pictures(tmp_path / "edited") == before
    assert forks(*run, *flags, "--update", cwd=tmp_path).code == 0
    assert len(pictures(tmp_path / "edited")) == 1, "no second picture of an item stays behind"
    assert len((tmp_path / "edited" / "results.jsonl").read_text().splitlines()) == 2
    assert findings(tmp_path / "edited") == []


def test_a_recipe_that_was_edited_and_another_value(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "a.png")
    (tmp_path / "r.yaml").write_text(RECIPE)
    run = ("run", "photos", *FAKE, "--recipe", "r.yaml")
    assert forks(*run, cwd=tmp_path).code == 0
    assert forks(*run, "--set", "colour=blue", cwd=tmp_path).code == 2
    (tmp_path / "r.yaml").write_text(RECIPE.replace("paint it", "draw it"))
    assert forks(*run, cwd=tmp_path).code == 2
    (tmp_path / "r.yaml").write_text(RECIPE.replace("description: d", "description: other words"))
    assert forks(*run, cwd=tmp_path).code == 0
    assert len(records(tmp_path / "edited")) == 1


def test_another_source_with_the_same_ids(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "one" / "a.png")
    draw(tmp_path / "two" / "a.png", "blue")
    draw(tmp_path / "two" / "b.png", "blue")
    assert forks("run", "one", "-p", "x", *FAKE, cwd=tmp_path).code == 0
    refused = forks("run", "two", "-p", "x", *FAKE, cwd=tmp_path)
    assert refused.code == 2
    assert "pictures (1)" in refused.message
    (tmp_path / "one").rename(tmp_path / "moved")  # the same pictures under another name are done
    assert forks("run", "moved", "-p", "x", *FAKE, cwd=tmp_path).code == 0
    assert len(records(tmp_path / "edited")) == 1


def test_lines_that_were_edited_go_on_and_are_told(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 4)
    assert forks(*RUN, cwd=tmp_path).code == 0
    text = (tmp_path / "m.jsonl").read_text()
    (tmp_path / "m.jsonl").write_text(text.replace('"edit 2"', '"another"'))
    ended = forks("run", "m.jsonl", *FAKE[:-1], "-o", "out", cwd=tmp_path)
    assert ended.code == 0, ended.message
    assert (
        "1 finished picture is edited again: line, picture or edited file changed since the last run" in ended.message
    )
    assert records(tmp_path / "out")["item2"]["instruction"] == "another"


def test_the_defaults_of_a_manifest_are_its_own_lines(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    text = "defaults:\n  instruction: one\nitems:\n  - image: a.png\n"
    (tmp_path / "m.yaml").write_text(text)
    run = ("run", "m.yaml", *FAKE, "-o", "out")
    assert forks(*run, cwd=tmp_path).code == 0
    (tmp_path / "m.yaml").write_text(text.replace("one", "two"))
    assert forks(*run, cwd=tmp_path).code == 0
    assert records(tmp_path / "out")["a"]["instruction"] == "two"


def test_a_picture_that_was_deleted_is_no_picture_to_keep(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "a.png")
    assert forks("run", "photos", "-p", "one", *FAKE, cwd=tmp_path).code == 0
    (tmp_path / "edited" / "a.png").unlink()
    assert forks("run", "photos", "-p", "two", *FAKE, cwd=tmp_path).code == 0


def test_standard_input_keeps_finished_pictures_one_by_one(tmp_path: Path) -> None:
    for name in "ab":
        draw(tmp_path / f"{name}.png")

    def send(*sent: dict[str, Any], flags: tuple[str, ...] = ()) -> Done:
        text = "".join(json.dumps(line) + "\n" for line in sent)
        return piped(text, "-o", "out", *flags, cwd=tmp_path)

    one, two = ({"image": f"{name}.png", "instruction": "x", "id": name} for name in "ab")
    assert send(one).code == 0
    before = pictures(tmp_path / "out")
    ended = send(one, two, flags=("--seed", "3"))
    assert ended.code == 3
    assert "1 item has a finished picture that differs from what is asked, and keeps it" in ended.message
    assert pictures(tmp_path / "out")["a.png"] == before["a.png"]
    assert report(tmp_path / "out")["left"] == 1
    assert findings(tmp_path / "out") == []
    assert send(one, two, flags=("--seed", "3", "--update")).code == 0
    assert pictures(tmp_path / "out")["a.png"] != before["a.png"]


def test_overwrite_and_update_exclude_each_other(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 1)
    ended = forks(*RUN, "--overwrite", "--update", cwd=tmp_path)
    assert ended.code == 2
    assert "--overwrite and --update exclude each other" in ended.message


def test_records_of_the_version_before_are_asked_about(forks: Forks, tmp_path: Path) -> None:
    """They do not say what the items shared: the same command finds all done, another one is refused."""
    make_manifest(tmp_path, 3)
    assert forks(*RUN, cwd=tmp_path).code == 0
    path = tmp_path / "out" / "results.jsonl"
    old = [json.loads(line) for line in path.read_text().splitlines()]
    for record in old:
        del record["shared"]
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    assert forks(*RUN, cwd=tmp_path).code == 0
    assert len(path.read_text().splitlines()) == 3
    assert forks(*RUN, "--seed", "3", cwd=tmp_path).code == 2


def test_a_retry_by_failed_jsonl_shares_what_its_run_shared(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 3, broken=True)
    assert forks(*RUN, cwd=tmp_path).code == 3
    draw(tmp_path / "broken.png")
    assert forks("run", "out/failed.jsonl", *FAKE, "-o", "out", cwd=tmp_path).code == 0
    shared = {record["shared"] for record in records(tmp_path / "out").values()}
    assert len(shared) == 1
    assert program(*RUN, cwd=tmp_path).code == 0


# What an earlier record says still counts.


@pytest.mark.parametrize("retry", [(), ("--retry-failed",)])
def test_a_failure_in_between_does_not_give_finished_pictures_away(
    forks: Forks, tmp_path: Path, retry: tuple[str, ...]
) -> None:
    for name in ("a", "b"):
        draw(tmp_path / "photos" / f"{name}.png")
    lines(tmp_path, *({"image": f"photos/{name}.png"} for name in ("a", "b")))
    run = (*RUN, "-p", "one")
    assert forks(*run, cwd=tmp_path).code == 0
    before = pictures(tmp_path / "out")
    (tmp_path / "photos").rename(tmp_path / "away")  # a share that is not mounted
    assert forks(*run, cwd=tmp_path).code == 3
    assert findings(tmp_path / "out") == [], "a record names these pictures"
    (tmp_path / "away").rename(tmp_path / "photos")
    other = forks(*RUN, "-p", "two", *retry, cwd=tmp_path)
    assert other.code == (3 if retry else 2), other.message
    assert retry or "instruction (2)" in other.message
    assert pictures(tmp_path / "out") == before
    assert forks(*run, *retry, cwd=tmp_path).code == 0
    assert report(tmp_path / "out")["skipped"] == 2, "nothing is edited again"
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}
    assert not (tmp_path / "out" / "failed.jsonl").exists()
    assert forks(*run, "--format", "jpg", "--update", cwd=tmp_path).code == 0
    assert sorted(pictures(tmp_path / "out")) == ["photos/a.jpg", "photos/b.jpg"]


def test_a_failure_in_between_leaves_no_second_picture(forks: Forks, tmp_path: Path) -> None:
    good = draw(tmp_path / "photos" / "a.png")
    run = ("run", "photos", *FAKE, "-o", "out", "-p", "one")
    assert forks(*run, cwd=tmp_path).code == 0
    (tmp_path / "photos" / "a.png").write_bytes(b"broken")
    assert forks(*run, cwd=tmp_path).code == 3
    (tmp_path / "photos" / "a.png").write_bytes(good)
    assert forks(*run, "--format", "jpg", cwd=tmp_path).code == 2
    assert forks(*run, "--format", "jpg", "--update", cwd=tmp_path).code == 0
    assert list(pictures(tmp_path / "out")) == ["a.jpg"]
    assert findings(tmp_path / "out") == []


def test_the_finished_picture_of_another_item_stays(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", "blue")
    lines(tmp_path, {"image": "a.png", "instruction": "A", "id": "a", "output": "x.png"})
    lines(tmp_path, {"image": "b.png", "instruction": "B", "id": "b", "output": "x.png"}, name="other.jsonl")
    assert forks(*RUN, cwd=tmp_path).code == 0
    before = pictures(tmp_path / "out")
    other = ("run", "other.jsonl", *FAKE, "-o", "out")
    refused = forks(*other, cwd=tmp_path)
    assert refused.code == 2
    assert "picture of another item (1); for example b: x.png is that of a" in refused.message
    assert piped((tmp_path / "other.jsonl").read_text(), "-o", "out", cwd=tmp_path).code == 3
    assert pictures(tmp_path / "out") == before
    assert forks(*other, "--update", cwd=tmp_path).code == 0
    assert pictures(tmp_path / "out") != before


def test_an_id_that_was_edited_is_a_line_that_was_edited(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    line = {"image": "a.png", "instruction": "A", "output": "x.png"}
    lines(tmp_path, line | {"id": "a"})
    assert forks(*RUN, cwd=tmp_path).code == 0
    lines(tmp_path, line | {"id": "b"})
    assert forks(*RUN, cwd=tmp_path).code == 0


def test_standard_input_in_another_folder_is_another_source(forks: Forks, tmp_path: Path) -> None:
    draw(tmp_path / "one" / "x.png")
    draw(tmp_path / "two" / "x.png", "blue")
    flags = ("-o", str(tmp_path / "out"), "-p", "p")
    assert piped("x.png\n", *flags, cwd=tmp_path / "one").code == 0
    before = pictures(tmp_path / "out")
    kept = piped("x.png\n", *flags, cwd=tmp_path / "two")
    assert kept.code == 3, kept.message
    assert "--update" in kept.message
    assert pictures(tmp_path / "out") == before


def test_an_editor_may_take_the_end_of_the_last_line(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 3)
    assert forks(*RUN, cwd=tmp_path).code == 0
    journal = tmp_path / "out" / "results.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-1])
    assert findings(tmp_path / "out") == []
    assert forks(*RUN, cwd=tmp_path).code == 0
    assert journal.read_bytes() == whole
    assert report(tmp_path / "out")["skipped"] == 3
