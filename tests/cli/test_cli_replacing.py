"""`joyedit run` into a folder that holds finished pictures, files of somebody else, or the traces of a killed run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command, Ended
from PIL import Image

from joyedit.job.hashing import HashCache
from joyedit.job.own_files import UNFINISHED
from joyedit.job.results.records import final_records
from joyedit.job.spec import Stamp

FAKE = ("-m", "fake", "--basesize", "256", "--steps", "1")
RUN = ("run", "pictures", *FAKE, "-p", "one")


def records() -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in final_records(Path("edited/results.jsonl"))}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("-p", "two"), "instruction (3); for example a: instruction 'one' -> 'two'"),
        (("--seed", "3"), "seed (3); for example a: seed 42 -> 3"),
        (("--format", "webp"), "format (3); for example a: format '.png' -> '.webp'"),
        (("--dtype", "bf16"), "dtype (3); for example a: dtype 'fp32' -> 'bf16'"),
    ],
)
def test_flags_that_would_replace(joyedit: Command, pictures: Path, flags: tuple[str, ...], reason: str) -> None:
    assert joyedit(*RUN).code == 0
    before = {path.name: path.read_bytes() for path in Path("edited").glob("*.png")}
    refused = joyedit(*RUN, *flags)
    assert refused.code == 2
    assert f"would replace 3 finished pictures in edited, because these differ: {reason}" in refused.err
    assert "-o edited-2" in refused.err
    assert {path.name: path.read_bytes() for path in Path("edited").glob("*.png")} == before
    assert joyedit(*RUN, *flags, "--update").code == 0
    assert len([path for path in Path("edited").rglob("*.*") if path.suffix in (".png", ".webp")]) == 3
    assert joyedit("verify", "edited").code == 0


def test_another_source_size_and_model(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    Path("other").mkdir()
    Image.new("RGB", (30, 30), "green").save("other/a.png")
    refused = joyedit("run", "other", *FAKE, "-p", "one")
    assert refused.code == 2
    assert "would replace 1 finished picture in edited" in refused.err
    assert "pictures (1); for example a: from another source, pictures" in refused.err
    line = {"image": "pictures/a.png", "id": "a", "instruction": "one", "width": 512, "height": 256}
    Path("m.jsonl").write_text(json.dumps(line) + "\n")
    sized = joyedit("run", "m.jsonl", *FAKE)
    assert "size (1); for example a: size that of the picture -> 512 x 256" in sized.err
    path = Path("edited/results.jsonl")
    kept = [json.loads(one) for one in path.read_text().splitlines()]
    for one in kept:
        one |= {"shared": "another", "fingerprint": "another"}
    path.write_text("".join(json.dumps(one) + "\n" for one in kept))
    assert "model, quality or version (3)" in joyedit(*RUN).err


def test_what_changed_by_itself_is_edited_and_told(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    Image.new("RGB", (30, 30), "green").save("pictures/a.png")
    ended = joyedit(*RUN)
    assert ended.code == 0
    assert "note: 1 finished picture is edited again: line, picture or edited file changed" in ended.err


def repaint(folder: str, *names: str) -> None:
    for name in names:
        Image.new("RGB", (30, 30), "green").save(Path(folder, name))


@pytest.mark.parametrize("mended", [(), ("--update",), ("--overwrite",)])
def test_other_pictures_at_the_same_path(joyedit: Command, pictures: Path, mended: tuple[str, ...]) -> None:
    """As if another card was mounted there."""
    assert joyedit(*RUN).code == 0
    before = Path("edited/a.png").read_bytes()
    repaint("pictures", "a.png", "b.jpg")
    if not mended:
        refused = joyedit(*RUN)
        assert refused.code == 2
        assert "would replace 2 finished pictures in edited" in refused.err
        assert "other pictures stand under the names of the source now (2 of 3); for example a:" in refused.err
        assert "-o edited-2" in refused.err
        assert Path("edited/a.png").read_bytes() == before
    else:
        assert joyedit(*RUN, *mended).code == 0
        assert Path("edited/a.png").read_bytes() != before
        assert joyedit(*RUN).code == 0


@pytest.mark.parametrize("names", [("a.png",), ("a.png", "b.jpg", "deep/c.png")])
def test_a_link_that_leads_to_another_folder(joyedit: Command, pictures: Path, names: tuple[str, ...]) -> None:
    shutil.copytree("pictures", "others")
    repaint("others", *names)
    Path("link").symlink_to("pictures")
    assert joyedit("run", "link", *RUN[2:]).code == 0
    before = Path("edited/a.png").read_bytes()
    Path("link").unlink()
    Path("link").symlink_to("others")
    refused = joyedit("run", "link", *RUN[2:])
    assert refused.code == 2
    assert f"would replace {len(names)} finished picture" in refused.err
    assert "pictures (" in refused.err
    assert "a: the picture that was edited had another content" in refused.err
    assert Path("edited/a.png").read_bytes() == before
    Path("link").unlink()
    Path("link").symlink_to(Path("pictures").absolute())
    assert "3 items are already done" in joyedit("run", "link", *RUN[2:]).err


@pytest.mark.parametrize("moved", ["project", "output", "source"])
def test_a_project_that_moved_goes_on_with_its_edited_lines(joyedit: Command, pictures: Path, moved: str) -> None:
    Path("project").mkdir()
    shutil.copytree("pictures", "project/pictures")
    lines = [{"image": f"pictures/{name}", "instruction": "one"} for name in ("a.png", "b.jpg", "deep/c.png")]

    def run(folder: str, output: str, *flags: str) -> Ended:
        Path(folder, "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return joyedit("run", f"{folder}/m.jsonl", *FAKE, "-o", output, *flags)

    assert run("project", "project/out").code == 0
    lines[1]["instruction"] = "two"
    if moved == "project":
        Path("project").rename("elsewhere")
        ended = run("elsewhere", "elsewhere/out")
    elif moved == "output":
        Path("project/out").rename("results")
        ended = run("project", "results")
    else:  # its path and the way to it from the output folder are others: another source
        shutil.copytree("project", "elsewhere")
        ended = run("elsewhere", "project/out")
        assert ended.code == 2
        assert "pictures (1)" in ended.err
        return
    assert ended.code == 0
    assert "2 items are already done" in ended.err
    assert "note: 1 finished picture is edited again" in ended.err


@pytest.mark.parametrize("name", ["a.jpg", "A.PNG", "b.png"])
def test_a_picture_that_comes_beside_one_of_the_same_name_replaces_nothing(
    joyedit: Command, pictures: Path, name: str
) -> None:
    assert joyedit(*RUN).code == 0
    before = {path.name: path.read_bytes() for path in Path("edited").rglob("*.png")}
    Image.new("RGB", (50, 50), "yellow").save(pictures / name)
    ended = joyedit(*RUN)
    assert ended.code == 0
    assert "3 items are already done" in ended.err
    assert "edited again" not in ended.err
    assert {name: Path("edited").joinpath(name).read_bytes() for name in ("a.png", "b.png")} == {
        name: before[name] for name in ("a.png", "b.png")
    }
    assert joyedit("verify", "edited").code == 0
    (pictures / name).unlink()
    assert "3 items are already done" in joyedit(*RUN).err


def test_a_line_that_comes_beside_one_about_the_same_picture_replaces_nothing(joyedit: Command, pictures: Path) -> None:
    lines = [{"image": "pictures/a.png", "instruction": text} for text in ("red", "green", "blue")]
    for count in (1, 2, 3):
        for order in (lines[:count], lines[:count][::-1]):
            Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in order))
            ended = joyedit("run", "m.jsonl", *FAKE)
            assert ended.code == 0
            assert "edited again" not in ended.err
            assert len(list(Path("edited").rglob("*.png"))) == count
            assert joyedit("verify", "edited").code == 0
    assert {record["instruction"] for record in records().values()} == {"red", "green", "blue"}


def test_a_line_that_goes_leaves_the_pictures_of_the_others_as_they_are(joyedit: Command, pictures: Path) -> None:
    lines = [
        {"image": f"pictures/{name}", "instruction": text} for text in ("one", "two") for name in ("a.png", "b.jpg")
    ]

    def run(*given: dict[str, str]) -> Ended:
        Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in given))
        return joyedit("run", "m.jsonl", *FAKE)

    assert run(*lines[:2]).code == 0
    assert run(*lines).code == 0
    before = {path: path.read_bytes() for path in Path("edited").rglob("*.png")}
    for given in (lines[2:], lines[:2], lines[1:], lines[::-1]):
        ended = run(*given)
        assert ended.code == 0
        assert "edited again" not in ended.err
        assert {path: path.read_bytes() for path in Path("edited").rglob("*.png")} == before
        assert joyedit("verify", "edited").code == 0


@pytest.mark.parametrize("way", ["several", "standard input", "exclude", "folder"])
def test_the_picture_of_another_file_with_the_same_stem_stays(
    joyedit: Command, program: Command, pictures: Path, way: str
) -> None:
    shutil.rmtree(pictures)
    pictures.mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (60, 50), (number, 0, 0)).save(pictures / f"{number}.jpg")
        Image.new("RGB", (50, 60), (number, 0, 0)).save(pictures / f"{number}.png")

    def run(ending: str, *flags: str) -> Ended:
        given = sorted(map(str, pictures.glob(f"*.{ending}")))
        if way == "several":
            return joyedit("run", *given, *FAKE, "-p", "one", *flags)
        if way == "standard input":
            return program("run", "-", *FAKE, "-p", "one", *flags, stdin="\n".join(given))
        other = {"jpg": "png", "png": "jpg"}[ending]
        if way == "exclude":
            return joyedit("run", "pictures", *FAKE, "-p", "one", "--exclude", f"*.{other}", *flags)
        for path in pictures.glob(f"*.{other}"):
            path.unlink()
        return joyedit("run", "pictures", *FAKE, "-p", "one", *flags)

    assert run("jpg").code == 0
    before = {path: path.read_bytes() for path in Path("edited").rglob("*.png")}
    if way == "folder":
        for number in (1, 2, 3):
            Image.new("RGB", (50, 60), (number, 0, 0)).save(pictures / f"{number}.png")
    ended = run("png")
    assert ended.code == 3
    assert "3 items have finished pictures that differ from what is asked, and keep them" in ended.err
    assert {path: path.read_bytes() for path in Path("edited").rglob("*.png")} == before
    assert run("png", "--update").code == 0


def test_a_name_under_which_a_picture_counts_as_done_is_taken(joyedit: Command, pictures: Path) -> None:
    lines = [{"image": "pictures/a.png", "instruction": text} for text in ("one", "two")]
    Path("m.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert joyedit("run", "m.jsonl", *FAKE).code == 0
    for taken in ({"id": "pictures/a"}, {"id": "z", "output": "pictures/a.png"}):
        lines[2:] = [{"image": "pictures/b.jpg", "instruction": "three"} | taken]
        Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        refused = joyedit("run", "m.jsonl", *FAKE, "-o", "new")
        assert refused.code == 2
        assert "another line gives the id or output of 'pictures/a'" in refused.err
        assert joyedit("run", "m.jsonl", *FAKE).code == 2


def test_what_failed_under_another_default_id_is_tried_again(joyedit: Command, pictures: Path) -> None:
    whole = (pictures / "a.png").read_bytes()
    (pictures / "a.png").write_bytes(b"broken")
    assert joyedit(*RUN).code == 3
    (pictures / "a.png").write_bytes(whole)
    Image.new("RGB", (50, 50), "yellow").save(pictures / "a.jpg")
    ended = joyedit(*RUN, "--retry-failed")
    assert "2 items are already done" in ended.err
    assert records()["a.png"]["status"] == "ok"


def retouch(name: str) -> bytes:
    path = Path("edited", name)
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    return path.read_bytes()


def test_a_picture_that_somebody_retouched_stays(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    mine = retouch("a.png")
    for flags in ((), ("--trust-journal",), ("--retry-failed",)):
        ended = joyedit(*RUN, *flags)
        assert ended.code == 0
        assert "1 item is already done; somebody changed its picture since, and it stays so" in ended.err
        assert Path("edited/a.png").read_bytes() == mine
    assert joyedit(*RUN, "--update").code == 0
    assert Path("edited/a.png").read_bytes() != mine
    assert joyedit("verify", "edited").code == 0


def test_a_retouched_picture_stays_where_its_own_picture_or_line_changed(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    mine = retouch("a.png")
    repaint("pictures", "a.png")
    ended = joyedit(*RUN)
    assert ended.code == 3
    assert (
        "1 item has a finished picture that differs from what is asked, and keeps it (--update replaces it)"
        in ended.err
    )
    assert Path("edited/a.png").read_bytes() == mine
    assert joyedit(*RUN, "--update").code == 0
    assert Path("edited/a.png").read_bytes() != mine


def test_a_retouched_picture_stays_while_its_input_is_gone(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    data = (pictures / "a.png").read_bytes()
    (pictures / "a.png").write_bytes(b"")
    assert joyedit(*RUN).code == 3  # the edited picture is as it was, and its input is not
    (pictures / "a.png").write_bytes(data)
    mine = retouch("a.png")
    assert joyedit(*RUN).code == 0
    assert Path("edited/a.png").read_bytes() == mine
    assert records()["a"]["status"] == "ok"


def test_a_whole_picture_whose_record_is_missing_is_no_retouched_one(joyedit: Command, pictures: Path) -> None:
    """The run died between the picture and its record."""
    assert joyedit(*RUN).code == 0
    assert joyedit(*RUN, "--seed", "2", "--update").code == 0
    path = Path("edited/results.jsonl")
    path.write_text("".join(path.read_text().splitlines(True)[:3]))  # the records of the first run alone
    left_behind(["start", path.stat().st_size], ["take", [[name, f"{name}.png", 0] for name in ("a", "b", "deep/c")]])
    assert joyedit(*RUN).code == 0
    assert joyedit("verify", "edited").code == 0


def test_an_input_that_changed_is_hashed_once(
    joyedit: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check and the reading share what they know."""
    assert joyedit(*RUN).code == 0
    Image.new("RGB", (30, 30), "green").save("pictures/a.png")
    hashed: list[str] = []
    put = HashCache.put

    def noted(self: HashCache, path: str, stamp: Stamp, sha256: str) -> None:
        hashed.append(Path(path).name)
        put(self, path, stamp, sha256)

    monkeypatch.setattr(HashCache, "put", noted)
    assert joyedit(*RUN).code == 0
    assert hashed.count("a.png") == 1


def test_a_foreign_file_in_the_place_of_a_failed_item_is_a_stray_one(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    assert joyedit(*RUN).code == 3
    Path("edited/broken.png").write_text("mine")
    assert "stray_file: broken.png: no record names this file" in joyedit("verify", "edited").out


def test_a_file_of_somebody_else(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    Path("edited/a.png").write_text("mine")
    ended = joyedit(*RUN)
    assert ended.code == 3
    assert records()["a"]["error"]["code"] == "output_taken"
    assert Path("edited/a.png").read_text() == "mine"
    assert joyedit(*RUN, "--overwrite").code == 3
    assert Path("edited/a.png").read_text() == "mine"


def test_a_picture_whose_record_is_gone_is_told_as_such(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    path = Path("edited/results.jsonl")
    path.write_text(path.read_text().replace('{"id": "a"', '{"id": "a', 1))
    assert joyedit(*RUN).code == 3
    message = records()["a"]["error"]["message"]
    assert "joyedit made it, but its line in results.jsonl is damaged, gone, or in another folder" in message
    Path("edited/a.png").unlink()
    assert joyedit(*RUN).code == 0


def test_an_output_that_was_renamed_leaves_its_earlier_picture(joyedit: Command, pictures: Path) -> None:
    line = {"image": "pictures/a.png", "instruction": "one", "id": "a"}
    for output in ("first.png", "second.png"):
        Path("m.jsonl").write_text(json.dumps(line | {"output": output}) + "\n")
        assert joyedit("run", "m.jsonl", *FAKE).code == 0
    told = joyedit("verify", "edited")
    assert told.code == 3
    assert "earlier_picture: a: first.png: an earlier record names this file" in told.out
    Path("edited/first.png").unlink()
    assert joyedit("verify", "edited").code == 0


def test_a_report_of_another_program(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    Path("edited/report.json").write_text("[1]")
    refused = joyedit(*RUN)
    assert refused.code == 2
    assert "edited/report.json: this file is not from joyedit" in refused.err
    Path("edited/report.json").write_text('{"state": "complete", "exit_code": 0, "asked": {}}')
    assert joyedit(*RUN).code == 0


def left_behind(*lines: list[Any]) -> None:
    Path("edited", UNFINISHED).write_text("".join(json.dumps(line) + "\n" for line in lines) + "torn")


def test_items_in_work_at_a_death_come_last_and_alone(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    Path("edited/a.png").write_text("a picture without its record; software joyedit 0")
    left_behind(["start", 0], ["kept", []], ["look", 7, ["b", "b.png", 0]], ["take", [["a", "a.png", 0]]])
    assert joyedit(*RUN).code == 0
    assert next(iter(records())) == "deep/c"
    assert not Path("edited", UNFINISHED).exists()
    assert joyedit("verify", "edited").code == 0


def test_an_item_of_two_deaths_is_given_up_until_it_is_asked_for(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    Path("edited/a.png").write_text("a picture without its record; software joyedit 0")
    left_behind(["start", 0], ["kept", [["b", "b.png", 0]]], ["take", [["a", "a.png", 1]]])
    assert joyedit(*RUN).code == 3
    assert records()["a"]["error"]["code"] == "killed_the_run"
    again = joyedit(*RUN)
    assert again.code == 3
    assert "1 item is passed over: the process died while it was in work" in again.err
    assert joyedit(*RUN, "--retry-failed").code == 0
    assert joyedit("verify", "edited").code == 0


@pytest.mark.parametrize("flags", [(), ("--update",)])
@pytest.mark.parametrize("change", ["picture", "line"])
def test_an_item_of_two_deaths_that_changed_is_tried_again(
    joyedit: Command, pictures: Path, change: str, flags: tuple[str, ...]
) -> None:
    lines = [{"image": f"pictures/{name}", "instruction": "one"} for name in ("a.png", "b.jpg")]
    Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = ("run", "m.jsonl", *FAKE)
    Path("edited").mkdir()
    left_behind(["start", 0], ["take", [["pictures/a", "pictures/a.png", 1]]])
    assert joyedit(*run, *flags).code == 3
    assert joyedit(*run, *flags).code == 3
    if change == "picture":
        repaint("pictures", "a.png")
    else:
        lines[0]["instruction"] = "two"
        Path("m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert joyedit(*run, *flags).code == 0
    assert joyedit("verify", "edited").code == 0


def test_a_foreign_file_that_came_while_the_item_was_in_work(joyedit: Command, pictures: Path) -> None:
    """The run died before it put its own picture there."""
    Path("edited").mkdir()
    Path("edited/a.png").write_text("mine")
    left_behind(["start", 0], ["take", [["a", "a.png", 0]]])
    assert joyedit(*RUN).code == 3
    assert records()["a"]["error"]["code"] == "output_taken"
    assert Path("edited/a.png").read_text() == "mine"


def test_a_picture_without_a_record_goes_with_another_format(joyedit: Command, pictures: Path) -> None:
    assert joyedit(*RUN).code == 0
    path = Path("edited/results.jsonl")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"id": "a"' not in line))
    left_behind(["start", 0], ["take", [["a", "a.png", 0]]])
    assert joyedit(*RUN, "--format", "webp", "--update").code == 0
    assert not Path("edited/a.png").exists()
    assert joyedit("verify", "edited").code == 0


def test_own_reports_without_records_are_replaced(joyedit: Command, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    assert joyedit(*RUN).code == 3
    for path in (Path("edited/results.jsonl"), *Path("edited").rglob("*.png")):
        path.unlink()
    assert Path("edited/failed.jsonl").exists()
    assert joyedit(*RUN).code == 3


def test_a_run_that_stopped_on_purpose_blames_nobody(joyedit: Command, pictures: Path) -> None:
    Path("edited").mkdir()
    left_behind(["start", 0], ["take", [["a", "a.png", 1]]], ["stop"])
    assert joyedit(*RUN).code == 0
    assert {record["status"] for record in records().values()} == {"ok"}


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"[]\n",
        b"{}\n[3]\n",
        b'["take", 5]\n["kept"]\n["look", 1]\n',
        b'["kept", [["a", "a.png", -1]]]\n',
        b"\xff" * 100,
    ],
)
def test_any_bytes_in_the_list_of_unfinished_items(joyedit: Command, pictures: Path, junk: bytes) -> None:
    Path("edited").mkdir()
    Path("edited", UNFINISHED).write_bytes(junk)
    assert joyedit(*RUN).code == 0
    assert not Path("edited", UNFINISHED).exists()


@pytest.mark.parametrize("name", ["results.jsonl", "joyedit.log", ".joyedit.lock", UNFINISHED])
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
def test_own_files_are_plain_files(joyedit: Command, pictures: Path, name: str, kind: str) -> None:
    Path("edited").mkdir()
    Path("precious").write_text("mine")
    planted = Path("edited", name)
    if kind == "link":
        planted.symlink_to(Path("precious").absolute())
    elif kind == "hard link":
        os.link("precious", planted)
    elif kind == "fifo":
        os.mkfifo(planted)
    else:
        planted.mkdir()
    ended = joyedit(*RUN)
    assert ended.code == 1
    assert name in ended.err
    assert "unexpected" not in ended.err
    assert Path("precious").read_text() == "mine"


def test_a_retry_with_nothing_to_retry(joyedit: Command, pictures: Path) -> None:
    ended = joyedit(*RUN, "--retry-failed")
    assert ended.code == 3
    assert "loading" not in ended.err
    assert "3 items did not fail in an earlier run and are left" in ended.err


@pytest.mark.parametrize("damaged", [False, True])
def test_an_item_whose_id_became_longer(joyedit: Command, damaged: bool) -> None:
    """More of it is in tests/durability/test_grown_ids.py."""
    Path("in").mkdir()
    Image.new("RGB", (30, 30), "red").save("in/a.png")
    run = ("run", "in", *FAKE, "-p", "one")
    assert joyedit(*run).code == 0
    Image.new("RGB", (30, 30), "blue").save("in/a.jpg")
    if damaged:
        made = Path("edited/a.png")
        made.write_bytes(made.read_bytes()[:-20])
        assert joyedit(*run).code == 0
    else:
        refused = joyedit(*run, "--seed", "3")
        assert (refused.code, "would replace 1 finished picture" in refused.err) == (2, True)
        assert joyedit(*run, "--overwrite").code == 0
    assert {path.name for path in Path("edited").glob("*.png")} == {"a.png.png", "a.jpg.png"}
    assert set(records()) == {"a.png", "a.jpg"}
    assert joyedit("verify", "edited").code == 0


def test_what_failed_under_a_shorter_id(joyedit: Command) -> None:
    Path("in").mkdir()
    Path("in/a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    run = ("run", "in", *FAKE, "-p", "one")
    assert joyedit(*run).code == 3
    for name in ("in/a.png", "in/a.jpg"):
        Image.new("RGB", (30, 30), "blue").save(name)
    assert joyedit(*run, "--retry-failed").code == 3
    assert {name: record["status"] for name, record in records().items()} == {"a.png": "ok"}
    assert not Path("edited/failed.jsonl").exists()
