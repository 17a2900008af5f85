"""`joyedit run` into a folder that holds finished pictures, files of somebody else, or the traces of a killed run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_command import Command
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
