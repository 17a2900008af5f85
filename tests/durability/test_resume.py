"""The same command again: what is done stays, what has changed is edited again, and that alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from durability.harness import (
    FAKE,
    Forks,
    check_whole,
    findings,
    make_manifest,
    pictures,
    records,
)
from joyedit.job.own_files import UNFINISHED
from joyedit.job.results.records import read_journal
from support.figures import EXHAUSTIVE, FIGURES, SOAK

ITEMS = 8
RUN = ("run", "m.jsonl", *FAKE, "-o", "out")


@pytest.fixture
def place(tmp_path: Path, forks: Forks) -> Path:
    """A finished run."""
    make_manifest(tmp_path, ITEMS)
    assert forks(*RUN, cwd=tmp_path).code == 0
    return tmp_path


def edited(place: Path) -> list[str]:
    """The ids of all records, in order: an item that was edited twice stands twice."""
    return [record["id"] for record in read_journal(place / "out" / "results.jsonl")]


def again(forks: Forks, place: Path, *flags: str, code: int = 0) -> set[str]:
    """Run once more; gives the ids that were edited by that."""
    before = len(edited(place))
    ended = forks(*RUN, *flags, cwd=place)
    assert ended.code == code, ended.message
    assert findings(place / "out") == []
    report = json.loads((place / "out" / "report.json").read_text())
    assert report["items"] == report["ok"] + report["failed"]
    return set(edited(place)[before:])


@pytest.mark.parametrize("trust", [(), ("--trust-journal",)])
def test_nothing_to_do(forks: Forks, place: Path, trust: tuple[str, ...]) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.png")}
    assert again(forks, place, *trust) == set()
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.png")} == stamps
    ended = forks("run", "m.jsonl", *FAKE[:-1], "-o", "out", cwd=place)
    assert f"{ITEMS} items are already done" in ended.message
    assert f"{ITEMS}: {ITEMS} ok, 0 failed" in ended.message


def repaint(place: Path) -> None:
    Image.new("RGB", (24, 24), "red").save(place / "in3.png")


def repaint_unseen(place: Path) -> None:
    """Another picture of the same length, with the time of the first."""
    path = place / "in3.png"
    stamp, data = path.stat(), bytearray(path.read_bytes())
    image = Image.open(path).convert("RGB")
    for red in range(256):
        Image.new("RGB", image.size, (red, 80, 200)).save(path)
        if path.read_bytes() != data and path.stat().st_size == stamp.st_size:
            break
    assert path.read_bytes() != data
    assert path.stat().st_size == stamp.st_size
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def repaint_mask(place: Path) -> None:
    Image.new("L", (24, 24), 255).save(place / "mask3.png")


def change_line(**changes: Any) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        lines = [json.loads(line) for line in (place / "m.jsonl").read_text().splitlines()]
        lines[3] |= changes
        (place / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return change


def lose_output(place: Path) -> None:
    (place / "out" / "item3.png").unlink()


def shorten_output(place: Path) -> None:
    path = place / "out" / "item3.png"
    path.write_bytes(path.read_bytes()[:-1])


def flip_bit(place: Path) -> None:
    path = place / "out" / "item3.png"
    data = bytearray(path.read_bytes())
    data[random.Random(0).randrange(len(data))] ^= 16
    path.write_bytes(data)


CHANGES = {
    "picture": repaint,
    "picture of the same length and time": repaint_unseen,
    "mask": repaint_mask,
    "no mask": change_line(mask=None),
    "another mask": change_line(mask="in3.png"),
    "instruction": change_line(instruction="another"),
    "seed": change_line(seed=5),
    "steps": change_line(steps=2),
    "guidance": change_line(guidance_scale=2.0),
    "negative prompt": change_line(negative_prompt="grey"),
    "size": change_line(width=640, height=300),
    "basesize": change_line(basesize=512),
    "lost output": lose_output,
    "short output": shorten_output,
    "flipped bit": flip_bit,
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_edited_again_alone(forks: Forks, place: Path, change: str, trust: bool) -> None:
    CHANGES[change](place)
    flags = ("--trust-journal",) if trust else ()
    wanted = set() if trust and change == "flipped bit" else {"item3"}
    if not wanted:  # that is what trust means; the full check finds it
        assert len(findings(place / "out")) == 1
        before = len(edited(place))
        assert forks(*RUN, *flags, cwd=place).code == 0
        assert len(edited(place)) == before
        assert again(forks, place) == {"item3"}
        return
    assert again(forks, place, *flags) == wanted
    assert again(forks, place, *flags) == set()


def test_a_copied_or_touched_input_is_the_same(forks: Forks, place: Path) -> None:
    os.utime(place / "in0.png", (1, 1))
    shutil.copy(place / "in1.png", place / "copy.png")
    os.replace(place / "copy.png", place / "in1.png")
    assert again(forks, place, "--trust-journal") == set()
    assert again(forks, place) == set()


@pytest.mark.parametrize(
    ("flags", "all_of_them"),
    [
        (("--seed", "3"), True),
        (("--schedule", "diffusers"), True),
        (("--dtype", "bf16"), True),
        (("--batch-size", "1"), False),
        (("--attention", "flash"), False),
        (("--quality", "50"), False),  # they are PNGs
        (("--read-timeout", "10s", "--max-pixels", "1000000"), False),
        (("--overwrite",), True),
    ],
)
def test_flags(forks: Forks, place: Path, flags: tuple[str, ...], all_of_them: bool) -> None:
    if all_of_them and flags != ("--overwrite",):
        flags = (*flags, "--update")
    assert len(again(forks, place, *flags)) == (ITEMS if all_of_them else 0)


def test_another_model_edits_all_again(forks: Forks, place: Path) -> None:
    from joyedit.runtime.model import SAMPLE, SMALL, folder_identity

    checkpoint = place / "checkpoint"
    (checkpoint / "vae").mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "vae" / "weights").write_bytes(os.urandom(SMALL + SAMPLE))
    first = folder_identity(checkpoint)
    shutil.copytree(checkpoint, place / "moved")
    os.utime(place / "moved" / "config.json", (1, 1))
    assert folder_identity(place / "moved") == first
    seen = {first}
    (checkpoint / "config.json").write_text("{ }")
    seen.add(folder_identity(checkpoint))
    (checkpoint / "vae" / "weights").write_bytes(os.urandom(SMALL + SAMPLE))
    seen.add(folder_identity(checkpoint))
    (checkpoint / "vae" / "weights").rename(checkpoint / "vae" / "other")
    seen.add(folder_identity(checkpoint))
    assert len(seen) == 4


def test_the_order_of_the_manifest_does_not_count(forks: Forks, place: Path) -> None:
    lines = (place / "m.jsonl").read_text().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    (place / "m.jsonl").write_text("".join(lines[1:]))
    assert again(forks, place) == set()
    (place / "m.jsonl").write_text("".join(lines))
    assert again(forks, place) == set()


def test_new_items_are_edited_alone(forks: Forks, place: Path) -> None:
    make_manifest(place, ITEMS + 3)
    assert len(again(forks, place)) == 3


def test_a_picture_that_is_gone_since_is_that_items_fault(forks: Forks, place: Path) -> None:
    (place / "in3.png").unlink()
    assert forks(*RUN, cwd=place).code == 3
    record = records(place / "out")["item3"]
    assert record["error"]["code"] == "missing_picture"
    repaint(place)
    assert again(forks, place) == {"item3"}
    assert findings(place / "out") == []


def test_failed_items_are_tried_again_and_with_retry_failed_they_alone(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, ITEMS, broken=True)
    assert forks(*RUN, "--limit", "6", cwd=tmp_path).code == 3
    first = len(edited(tmp_path))
    assert forks(*RUN, "--retry-failed", cwd=tmp_path).code == 3
    assert edited(tmp_path)[first:] == ["broken"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["items"], report["skipped"], report["failed"], report["left"]) == (6, 5, 1, ITEMS + 1 - 6)
    repaint(tmp_path)
    shutil.copy(tmp_path / "in3.png", tmp_path / "broken.png")
    assert forks(*RUN, "--retry-failed", cwd=tmp_path).code == 3  # some items have no picture yet
    assert edited(tmp_path)[first + 1 :] == ["broken"]
    # What lay behind the limit is still to be done.
    assert [line.split()[0] for line in findings(tmp_path / "out")] == ["no_record"] * (ITEMS + 1 - 6)
    assert len(again(forks, tmp_path)) == ITEMS + 1 - 6 + 1  # and item3, whose picture was painted over
    assert not (tmp_path / "out" / "failed.jsonl").exists()


def test_failed_jsonl_is_the_retry(forks: Forks, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, 4)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    bad = {
        "images": ["in0.png", "in1.png"], "instruction": "FAIL-BATCH 夜", "id": "two/refs", "seed": 9, "steps": 3,
        "guidance_scale": 1.5, "negative_prompt": "grey", "width": 640, "height": 320, "basesize": 512,
    }  # fmt: skip
    lines += [bad, {"image": "late.png", "instruction": "x", "id": "late", "output": "there/late.png"}]
    lines += [{"instruction": "FAIL-OOM", "id": "none"}]
    (tmp_path / "late.png").write_bytes(b"not yet")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert forks(*RUN, cwd=tmp_path).code == 3
    codes = {name: record["error"]["code"] for name, record in records(tmp_path / "out").items() if record["error"]}
    assert codes == {"two/refs": "edit_failed", "late": "unreadable_picture", "none": "out_of_memory"}
    failed = tmp_path / "out" / "failed.jsonl"
    message = {line["id"]: line for line in map(json.loads, failed.read_text().splitlines())}
    assert set(message) == set(codes)
    place = str(tmp_path)
    size = (bad.pop("width"), bad.pop("height"))
    assert size == (640, 320)
    assert message["two/refs"] == bad | {
        "size": "640x320",
        "fit": "auto",
        "images": [f"{place}/in0.png", f"{place}/in1.png"],
        "output": "two/refs.png",
    }
    assert message["late"]["image"] == f"{place}/late.png"
    # The pictures come, the instructions are mended by hand, and the retry is run from anywhere.
    repaint(tmp_path)
    shutil.copy(tmp_path / "in3.png", tmp_path / "late.png")
    failed.write_text(failed.read_text().replace("FAIL-", ""))
    (tmp_path / "elsewhere").mkdir()
    retry = ("run", failed, "-m", "fake", "-q", "-o", tmp_path / "out")
    ended = forks(*retry, cwd=tmp_path / "elsewhere")
    assert ended.code == 0, ended.message
    assert (tmp_path / "out" / "there" / "late.png").exists()
    assert findings(tmp_path / "out") == []
    assert not failed.exists()
    final = records(tmp_path / "out")
    assert {record["status"] for record in final.values()} == {"ok"}
    assert final["two/refs"]["settings"]["basesize"] == 512


def test_a_torn_journal_at_bytes_of_its_last_two_records(forks: Forks, memory: Path) -> None:
    """At every byte in `make soak`; else at every 16th, and at the bytes around the ends of the records."""
    place = memory
    make_manifest(place, 4)
    assert forks(*RUN, "--batch-size", "1", cwd=place, fault="journal.appended:4").code == -signal.SIGKILL
    whole, ids = pictures(place / "out"), set(records(place / "out"))
    unfinished = (place / "out" / UNFINISHED).read_bytes()
    data = (place / "out" / "results.jsonl").read_bytes()
    lines = data.splitlines(keepends=True)
    first = len(data) - len(lines[-1]) - len(lines[-2])
    edges = (first, len(data) - len(lines[-1]), len(data))
    ends = [
        end
        for end in range(first, len(data) + 1)
        if EXHAUSTIVE or (end - first) % 16 == 0 or any(abs(end - edge) <= 2 for edge in edges)
    ]
    servers = [Forks(), Forks()]

    def tear(server: Forks, ends: list[int]) -> None:
        name = f"torn{ends[0]}"
        shutil.copytree(place / "out", place / name)
        for end in ends:
            (place / name / "results.jsonl").write_bytes(data[:end])
            (place / name / UNFINISHED).write_bytes(unfinished)
            ended = server("run", "m.jsonl", *FAKE, "-o", name, cwd=place)
            assert ended.code == 0, (end, ended.message)
            final = list(read_journal(place / name / "results.jsonl"))
            assert sorted(record["id"] for record in final) == sorted(ids), end
            good = data[:end].rindex(b"\n") + 1
            assert (place / name / "results.jsonl").read_bytes()[:good] == data[:good], end
        check_whole(place / name, whole, ids)

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(tear, servers, (ends[::2], ends[1::2])))
    finally:
        for server in servers:
            server.close()
    FIGURES["torn journals repaired"] += len(ends)


def test_bit_flips_in_outputs_are_found_and_mended(forks: Forks, place: Path) -> None:
    whole = pictures(place / "out")
    dice = random.Random(7)
    for _ in range(3 * SOAK):
        names = dice.sample(sorted(whole), 3)
        for name in names:
            data = bytearray(whole[name])
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            (place / "out" / name).write_bytes(data)
        assert sorted(line.split()[0] for line in findings(place / "out")) == ["wrong_content"] * 3
        assert len(again(forks, place)) == 3
        assert pictures(place / "out") == whole
        FIGURES["bit flips found"] += 3


def test_a_foreign_results_file_is_refused_and_left(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text("score\n1\n")
    ended = forks(*RUN, cwd=tmp_path)
    assert ended.code == 2
    assert "not a record of joyedit" in ended.message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.jsonl"]
    assert (tmp_path / "out" / "results.jsonl").read_text() == "score\n1\n"


def test_temporaries_of_joyedit_are_cleaned_and_no_others(forks: Forks, place: Path) -> None:
    ours = place / "out" / "deep" / f".{'0' * 16}.joyedit-tmp"
    others = [place / "out" / name for name in (".mine.joyedit-tmp", "note.joyedit-tmp", "x.tmp", ".hidden")]
    for path in (ours, *others):
        path.write_bytes(b"half")
    assert forks(*RUN, cwd=place).code == 0
    assert not ours.exists()
    assert all(path.exists() for path in others)


def test_batches_that_do_not_fit_are_halved_and_give_the_same_pictures(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 24)
    assert forks("run", "m.jsonl", *FAKE, "-o", "whole", cwd=tmp_path).code == 0
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", "--batch-size", "8", cwd=tmp_path, JOYEDIT_FAKE_ROOM="3")
    assert ended.code == 0
    check_whole(tmp_path / "out", pictures(tmp_path / "whole"), set(records(tmp_path / "whole")))
    log = (tmp_path / "out" / "joyedit.log").read_text()
    assert "out of memory with" in log
    assert "next try with" in log


def test_not_a_number_in_the_latents(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 6)
    text = (tmp_path / "m.jsonl").read_text().replace('"edit 3"', '"FAIL-NAN"')
    (tmp_path / "m.jsonl").write_text(text)
    assert forks(*RUN, "--batch-size", "3", cwd=tmp_path).code == 3
    message = records(tmp_path / "out")
    assert {name for name, record in message.items() if record["error"]} == {"item3"}
    assert message["item3"]["error"]["code"] == "not_finite"
    assert not (tmp_path / "out" / "item3.png").exists()
