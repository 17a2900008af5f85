"""Shards as a person meets them: what runs, merge, status, verify and view say, and their exit codes."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cli_command import Command, Ended
from PIL import Image

import joyedit as package
from joyedit.errors import UsageError
from joyedit.job.results.lock import OutputLock
from joyedit.job.results.records import final_records
from joyedit.job.shard import number_of

RUN = ("-m", "fake", "--basesize", "256", "--steps", "1", "-p", "Make it red.", "-o", "out")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures, p0 to p11."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (24, 24), (number * 20, 80, 200)).save(folder / f"p{number}.png")
    return folder


def shard(joyedit: Command, which: str, *more: str) -> Ended:
    return joyedit("run", "photos", *RUN, "--shard", which, *more)


def ids_of(number: int, of: int) -> set[str]:
    return {name for name in (f"p{one}" for one in range(12)) if number_of(name, of) == number}


def ids_in(folder: Path) -> set[str]:
    return {record["id"] for record in final_records(folder / "results.jsonl")}


def test_a_shard_speaks_of_its_items(joyedit: Command, photos: Path) -> None:
    mine = ids_of(2, 3)
    dry = shard(joyedit, "2/3", "--dry-run", "--json")
    summary = json.loads(dry.out.splitlines()[-1])["summary"]
    assert summary["items"] == len(mine)
    assert not Path("out").exists()
    done = shard(joyedit, "2/3")
    assert done.code == 0
    assert f"shard: 2 of 3: {len(mine)} of 12 items" in done.messages
    assert f"{len(mine)}/{len(mine)} items" in done.err
    assert done.out.splitlines()[0].split(None, 1) == ["shard", f"2 of 3: {len(mine)} of 12 items"]
    assert ids_in(Path("out/shards/2-of-3")) == mine
    assert [path.name for path in Path("out").iterdir()] == ["shards"]
    report = json.loads(Path("out/shards/2-of-3/report.json").read_text())
    assert report["shard"] == {"number": 2, "of": 3, "items": len(mine), "whole": 12}
    again = shard(joyedit, "2/3")
    assert f"{len(mine)} items are already done" in again.messages
    assert "loading" not in again.err


def test_other_items_cost_no_look(joyedit: Command, photos: Path) -> None:
    """Pictures of another shard may be broken: nobody opens them."""
    other = sorted(ids_of(1, 3))
    for name in other:
        (photos / f"{name}.png").write_bytes(b"broken")
    assert shard(joyedit, "2/3").code == 0
    assert shard(joyedit, "1/3").code == 3


def test_lines_that_come_later_move_no_item(joyedit: Command, photos: Path) -> None:
    assert shard(joyedit, "1/3").code == 0
    before = ids_in(Path("out/shards/1-of-3"))
    for number in range(40):
        Image.new("RGB", (24, 24)).save(photos / f"a{number}.png")
    assert shard(joyedit, "1/3").code == 0
    assert before < ids_in(Path("out/shards/1-of-3"))
    report = json.loads(Path("out/shards/1-of-3/report.json").read_text())
    assert report["skipped"] == len(before)
    assert report["shard"]["whole"] == 52


@pytest.mark.parametrize("names", [["x/a.png", "y/a.png", "b.png"], ["a.png", "a.jpg", "b.png", "x/b.png"]])
def test_ids_that_joyedit_makes_are_the_same_in_each_shard(joyedit: Command, names: list[str]) -> None:
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 24)).save(name)
    Path("m.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    joyedit("run", "m.jsonl", *RUN[:-1], "whole", "--no-page")
    for number in (1, 2, 3):
        assert joyedit("run", "m.jsonl", *RUN, "--shard", f"{number}/3").code == 0
    assert joyedit("merge", "out", "--no-page").code == 0
    assert ids_in(Path("out")) == ids_in(Path("whole"))
    assert joyedit("verify", "out").code == 0


def test_items_of_a_matrix_are_counted_as_they_come(joyedit: Command, photos: Path) -> None:
    """What the check counts of a manifest is what comes, also where a matrix and a limit cut a line in two."""
    Path("m.jsonl").write_text("".join(json.dumps({"image": f"photos/p{one}.png"}) + "\n" for one in range(12)))
    total = 0
    for number in (1, 2, 3):
        ended = joyedit("run", "m.jsonl", *RUN, "--seeds", "4", "--limit", "30", "--shard", f"{number}/3")
        assert ended.code == 0
        report = json.loads(Path(f"out/shards/{number}-of-3/report.json").read_text())
        assert f"{number} of 3: {report['items']} of 30 items" in ended.err
        assert report["shard"] == {"number": number, "of": 3, "items": report["items"], "whole": 30}
        total += report["items"]
    assert total == 30


def test_limit_counts_the_items_of_all_shards(joyedit: Command, photos: Path) -> None:
    for number in (1, 2):
        shard(joyedit, f"{number}/2", "--limit", "5")
    joyedit("merge", "out", "--no-page")
    assert len(ids_in(Path("out"))) == 5
    assert joyedit("verify", "out").code == 0


def test_a_shard_without_items_loads_no_model(joyedit: Command, photos: Path) -> None:
    number = next(one for one in range(1, 101) if not ids_of(one, 100))
    done = shard(joyedit, f"{number}/100")
    assert done.code == 0
    assert f"{number} of 100: 0 of 12 items" in done.out
    assert "loading" not in done.err


def test_what_is_refused(joyedit: Command, photos: Path) -> None:
    for more, told in (
        (("--shard", "4/3"), "--shard takes I/N"),
        (("--shard", "auto"), "none of these variables is set"),
    ):
        ended = joyedit("run", "photos", *RUN, *more)
        assert (ended.code, ended.out) == (2, "")
        assert told in ended.err
    ended = joyedit("run", "-", *RUN, "--shard", "1/2")
    assert ended.code == 2
    assert "standard input comes once" in ended.err
    ended = joyedit("run", "photos/p0.png", *RUN[:-1], "new.png", "--shard", "1/2")
    assert ended.code == 2
    assert "-o names one picture, and --shard divides many" in ended.err
    assert not Path("out").exists()


def test_the_folder_of_a_shard_is_for_no_other_run(joyedit: Command, photos: Path) -> None:
    (photos / f"{min(ids_of(1, 3))}.png").write_bytes(b"broken")
    assert shard(joyedit, "1/3").code == 3
    for more in ((), ("--shard", "1/3")):
        ended = joyedit("run", "photos", *RUN[:-1], "out/shards/1-of-3", *more)
        assert ended.code == 2
        told = "is the folder of a shard, and of no other run (give -o out with the --shard that made it)"
        assert told in ended.err
    assert joyedit("run", "photos", *RUN[:-1], "shards/1-of-3", "--no-page").code == 3  # somebody's own name
    retry = ("run", "out/shards/1-of-3/failed.jsonl", *RUN[:6], "-o", "out")
    assert joyedit(*retry, "--shard", "1/3").code == 3
    for number in (2, 3):
        shard(joyedit, f"{number}/3")
    assert joyedit("verify", "out").out.splitlines()[-1] == "records 12, ok 11, failed 1, left 0, files 11, off 0"
    assert joyedit("merge", "out", "--no-page").code == 3
    report = json.loads(Path("out/report.json").read_text())
    assert (report["items"], report["failed"], report["left"], report["expected"]) == (12, 1, 0, 12)


def test_runs_beside_shards_that_are_not_merged(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/3")
    for more in ((), ("--shard", "1/4"), ("--dry-run",)):
        ended = joyedit("run", "photos", *RUN, *more)
        assert ended.code == 2
        assert "out holds 1 shard that is not merged (of 3)" in ended.err
        assert "joyedit merge out" in ended.err
    joyedit("merge", "out", "--no-page")
    assert joyedit("run", "photos", *RUN, "--no-page").code == 0
    assert ids_in(Path("out")) == ids_of(1, 1)


def test_other_flags_are_refused_as_in_a_plain_run(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/2")
    ended = shard(joyedit, "1/2", "--seed", "3")
    assert ended.code == 2
    assert "would replace" in ended.err
    assert "-o out-2)" in ended.err
    joyedit("merge", "out", "--no-page")
    for which in ("1/2", "1/5"):
        for dry in ((), ("--dry-run",)):
            ended = shard(joyedit, which, "--seed", "3", *dry)
            if ids_of(*map(int, which.split("/"))) & ids_in(Path("out")):
                assert ended.code == 2
                assert "finished pictures in out," in ended.err.replace("1 finished picture ", "finished pictures ")
    assert shard(joyedit, "1/2", "--seed", "3", "--update").code == 0
    assert joyedit("merge", "out", "--no-page").code == 3
    assert {one["settings"]["seed"] for one in final_records(Path("out/results.jsonl"))} == {3}
    assert not [line for line in joyedit("verify", "out").out.splitlines() if "no_record" not in line][:-1]


def test_a_merged_tree_is_done_for_shards(joyedit: Command, photos: Path) -> None:
    for number in (1, 2, 3):
        shard(joyedit, f"{number}/3")
    assert joyedit("merge", "out", "--no-page").code == 0
    dry = shard(joyedit, "2/5", "--dry-run")
    assert f"items {len(ids_of(2, 5))}, done {len(ids_of(2, 5))}, left 0, batches 0" in dry.out
    assert not Path("out/shards").exists()
    ended = shard(joyedit, "2/5")
    assert ended.code == 0
    assert "loading" not in ended.err
    assert ids_in(Path("out/shards/2-of-5")) == set()
    count = len(ids_of(2, 5))
    status = joyedit("status", "out")
    assert status.code == 0
    assert status.out.splitlines()[-1] == f"shard 2 of 5  0 done, {count} merged before, 0 left, complete"
    assert joyedit("merge", "out", "--no-page").code == 0
    assert joyedit("verify", "out").code == 0


def test_status_and_verify_of_shards(joyedit: Command, photos: Path) -> None:
    (photos / f"{min(ids_of(3, 4))}.png").write_bytes(b"broken")
    shard(joyedit, "1/4")
    shard(joyedit, "3/4")
    status = joyedit("status", "out")
    assert status.code == 3
    rows = dict(line.split("  ", 1) for line in status.out.splitlines())
    told = {label: text.strip() for label, text in rows.items()}
    counts = [len(ids_of(number, 4)) for number in range(1, 5)]
    assert told["state"] == "incomplete"
    assert told["done"] == str(counts[0] + counts[2] - 1)
    assert told["failed"].startswith("1 (")
    assert told["left"] == str(counts[1] + counts[3])
    assert told["shard 1 of 4"] == f"{counts[0]} done, 0 left, complete"
    assert told["missing"] == "2 of 4 shards have not begun: 2, 4"
    found = json.loads(joyedit("status", "out", "--json").out)
    assert found["missing"] == [2, 4]
    assert [one["number"] for one in found["shards"]] == [1, 3]
    assert found["shards"][0]["folder"] == "out/shards/1-of-4"
    verify = joyedit("verify", "out", "--json")
    assert verify.code == 3
    lines = [json.loads(line) for line in verify.out.splitlines()]
    assert {line["id"] for line in lines[:-1]} == ids_of(2, 4) | ids_of(4, 4)
    assert "which has not begun" in lines[0]["message"]
    assert lines[-1]["summary"]["expected"] == 12
    assert lines[-1]["summary"]["left"] == counts[1] + counts[3]
    for number in (2, 4):
        shard(joyedit, f"{number}/4")
    assert joyedit("verify", "out", "--source", "photos").out.splitlines()[-1].endswith("off 0")
    with OutputLock(Path("out/shards/2-of-4")) as lock:
        lock.acquire()
        told_json = json.loads(joyedit("status", "out", "--json").out)
        assert told_json["state"] == "running"
        assert told_json["shards"][1]["holder"]["pid"] == os.getpid()
        assert "a run is writing to out/shards/2-of-4 now" in joyedit("verify", "out").err
        assert joyedit("merge", "out").code == 1


def test_status_of_a_shard_that_has_no_journal_yet(joyedit: Command, photos: Path) -> None:
    folder = Path("out/shards/1-of-2")
    folder.mkdir(parents=True)
    (folder / ".joyedit.lock").write_text("{}")
    status = joyedit("status", "out")
    assert status.code == 3
    assert "0 done, killed" in status.out
    assert joyedit("verify", "out").code == 0
    merged = joyedit("merge", "out", "--no-page")
    assert merged.code in (0, 3)
    assert not folder.exists()


def test_verify_tells_what_is_in_a_wrong_or_in_two_shards(joyedit: Command, photos: Path) -> None:
    for number in (1, 2):
        shard(joyedit, f"{number}/2")
    one, two = Path("out/shards/1-of-2/results.jsonl"), Path("out/shards/2-of-2/results.jsonl")
    line = one.read_text().splitlines(keepends=True)[0]
    two.write_text(two.read_text() + line)
    kinds = {line.split(":")[0] for line in joyedit("verify", "out").out.splitlines()}
    assert {"wrong_shard", "two_records", "missing_file"} <= kinds
    (photos.parent / "photos").rename("elsewhere")
    ended = joyedit("verify", "out")
    assert "only the number of items is compared" in ended.err
    assert joyedit("verify", "out", "--source", "photos").code == 2
    Image.new("RGB", (24, 24)).save(photos.parent / "one.png")
    assert "unknown_id" in joyedit("verify", "out", "--source", "one.png").out


def test_view_names_the_merge(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/2")
    ended = joyedit("view", "out", "--no-open")
    assert ended.code == 2
    assert "joyedit merge out makes one folder of them (a shard alone is in out/shards/1-of-2)" in ended.err
    assert joyedit("view", "out/shards/1-of-2", "--no-open").code == 0
    merged = joyedit("merge", "out")
    assert merged.code == 3
    assert "page   out/index.html" in merged.out
    assert not Path("out/shards").exists()
    assert joyedit("merge", "out").out.splitlines()[-1].endswith("out/index.html")


def test_merge_says_what_it_did(joyedit: Command, photos: Path) -> None:
    assert joyedit("merge", "out").code == 2
    Path("out").mkdir()
    ended = joyedit("merge", "out")
    assert ended.code == 2
    assert "there are no shards in this folder" in ended.err
    for number in (1, 3):
        shard(joyedit, f"{number}/3")
    ended = joyedit("merge", "out", "--no-page")
    assert ended.code == 3
    assert "note: 1 of 3 shards has not begun: 2 (run them, or run without --shard for all that is left)" in ended.err
    report = json.loads(Path("out/report.json").read_text())
    known = len(ids_of(1, 3) | ids_of(3, 3))
    assert (report["state"], report["items"], report["left"]) == ("stopped", known, 12 - known)
    assert set(report["shards"]) == {"1-of-3", "3-of-3"}
    assert report["seconds"] == pytest.approx(sum(one["seconds"] for one in report["shards"].values()))
    assert joyedit("status", "out").code == 3
    shard(joyedit, "2/3")
    assert "missing" not in joyedit("status", "out").out
    assert joyedit("merge", "out", "--no-page").code == 0
    report = json.loads(Path("out/report.json").read_text())
    assert (report["state"], report["exit_code"], report["items"], report["left"]) == ("complete", 0, 12, 0)
    assert joyedit("status", "out").code == 0


def test_logs_of_shards_are_kept(joyedit: Command, photos: Path) -> None:
    for number in (1, 2):
        (photos / f"{min(ids_of(number, 2))}.png").write_bytes(b"broken")
        shard(joyedit, f"{number}/2")
    joyedit("merge", "out", "--no-page")
    log = Path("out/joyedit.log").read_text()
    assert all(min(ids_of(number, 2)) in log for number in (1, 2))


def test_a_source_folder_that_holds_the_output_folder(joyedit: Command, photos: Path) -> None:
    """No shard takes the edited pictures of another one for its own input."""
    for number in (1, 2):
        ended = joyedit("run", "photos", *RUN[:-1], "photos/edited", "--shard", f"{number}/2")
        assert ended.code == 0
        assert f"{len(ids_of(number, 2))} of 12 items" in ended.out
    assert joyedit("verify", "photos/edited").code == 0
    assert joyedit("merge", "photos/edited", "--no-page").code == 0


@pytest.mark.parametrize("name", ["shards/1-of-2/x.png", "shards/x.png"])
def test_pictures_named_as_shards_are(joyedit: Command, name: str) -> None:
    """Their edited pictures never lie where a shard works."""
    path = Path("photos") / name
    path.parent.mkdir(parents=True)
    Image.new("RGB", (24, 24)).save(path)
    assert joyedit("run", "photos", *RUN, "--no-page").code == 0
    (record,) = final_records(Path("out/results.jsonl"))
    assert record["output"] == ("shards_/1-of-2/x.png" if "of" in name else name)
    assert joyedit("status", "out").out.startswith("state   complete")
    ended = joyedit("run", "photos", *RUN, "--no-page", "--name", "shards/1-of-2/{id}", "--update")
    assert ended.code == 2 or "folder of a shard" in ended.err


def test_variables_of_a_cluster(joyedit: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "2 of 3: " in shard(joyedit, "auto").out
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert "SLURM_ARRAY_TASK_MIN is not set" in shard(joyedit, "auto").err


def test_python(photos: Path) -> None:
    done = package.run("photos", model="fake", output="out", prompt="x", basesize=256, steps=1, shard="2/3")
    assert done.exit_code == 0
    assert done.page is None
    assert done.report.shard == {"number": 2, "of": 3, "items": len(ids_of(2, 3)), "whole": 12}
    with pytest.raises(UsageError, match="not merged"):
        package.run("photos", model="fake", output="out", prompt="x", basesize=256, steps=1)


def test_a_file_of_somebody_else_is_told_and_stays(joyedit: Command, photos: Path) -> None:
    for number in (1, 2):
        shard(joyedit, f"{number}/2")
    Path("out/p0.png").write_text("mine")
    Path("out/index.html").write_text("mine")
    (own,) = Path("out/shards").glob("*/p0.png")
    (own.parent / "note.txt").write_text("mine")
    with (own.parent / "results.jsonl").open("a") as journal:
        journal.write('{"id": "to')
    ended = joyedit("merge", "out")
    assert ended.code == 3
    number = own.parent.name.partition("-")[0]
    told = f"stays in shard {number} of 2: p0: the file 'p0.png' is there already, and no record of joyedit names it"
    assert f"{told} (move it away, and merge again)" in ended.err
    assert f"note: shard {number} of 2: results.jsonl ended with an incomplete record" in ended.err
    assert "note: no page was made: out/index.html is not from joyedit" in ended.err
    assert "stay   1 in the folders of their shards" in ended.out
    assert ids_in(own.parent) == {"p0"}
    before = len(ids_of(int(number), 2)) - 1
    row = f"shard {number} of 2  1 done, {before} merged before, 0 left, complete"
    assert joyedit("status", "out").out.splitlines()[-1] == row
    assert "merged" in joyedit("status", "out").out
    assert {line.split(":")[0] for line in joyedit("verify", "out").out.splitlines()[:-1]} == {"stray_file"}
    Path("out/p0.png").unlink()
    ended = joyedit("merge", "out", "--no-page")
    assert ended.code == 0
    assert f"note: {own.parent}/note.txt is not from joyedit and stays there" in ended.err
    assert ids_in(Path("out")) == ids_of(1, 1)


@pytest.mark.parametrize("newer", ["1/1", "1/2"])
def test_the_newest_picture_of_an_item_wins(joyedit: Command, photos: Path, newer: str) -> None:
    older = "1/2" if newer == "1/1" else "1/1"
    for which, seed in ((older, "1"), (newer, "2")):
        name = which.replace("/", "-of-")
        joyedit("run", "photos", *RUN[:-1], name, "--shard", which, "--seed", seed)
        Path("out/shards").mkdir(parents=True, exist_ok=True)
        os.rename(f"{name}/shards/{name}", f"out/shards/{name}")
    assert "two_records" in joyedit("verify", "out").out
    assert "missing" not in joyedit("status", "out").out
    ended = joyedit("merge", "out", "--no-page")
    both = len(ids_of(1, 2))
    assert ended.code == 0
    assert not Path("out/shards").exists()
    assert joyedit("verify", "out").out.splitlines()[-1].endswith("off 0")
    seeds = {record["id"]: record["settings"]["seed"] for record in final_records(Path("out/results.jsonl"))}
    assert sum(seed == 2 for seed in seeds.values()) == (12 if newer == "1/1" else both)
    if newer == "1/2":  # the shards of 1 are merged first, and those of 2 take the place of their pictures
        assert "older picture" not in ended.err


def test_an_older_picture_of_another_name_goes(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/1")
    assert joyedit("merge", "out", "--no-page").code == 0
    shard(joyedit, "1/1", "--format", "jpg", "--update")
    ended = joyedit("merge", "out", "--no-page")
    assert ended.code == 0
    assert "note: 12 older pictures of items with a newer one were removed" in ended.err
    assert sorted(path.name for path in Path("out").glob("p*")) == sorted(f"p{one}.jpg" for one in range(12))


def test_what_an_older_shard_has_goes_too(joyedit: Command, photos: Path) -> None:
    """The shards of 1 are newer, and are merged first; so those of 2 find newer pictures in their place."""
    joyedit("run", "photos", *RUN[:-1], "first", "--shard", "1/2")
    shard(joyedit, "1/1")
    os.rename("first/shards/1-of-2", "out/shards/1-of-2")
    ended = joyedit("merge", "out", "--no-page")
    assert ended.code == 0
    assert f"note: {len(ids_of(1, 2))} older pictures of items with a newer one were removed" in ended.err
    assert joyedit("verify", "out").code == 0


def test_a_failure_is_the_last_word_where_something_else_was_asked(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/1")
    os.rename("photos/p0.png", "away.png")
    Path("photos/p0.png").write_bytes(b"broken")
    assert shard(joyedit, "1/1").code == 3
    assert joyedit("merge", "out", "--no-page").code == 0  # the edit that was asked for is there
    Path("out/keep").mkdir()
    assert shard(joyedit, "1/1", "--update", "--seed", "5").code == 3
    assert joyedit("merge", "out", "--no-page").code == 3
    (failed,) = [record for record in final_records(Path("out/results.jsonl")) if record["status"] != "ok"]
    assert failed["id"] == "p0"
    assert Path("out/p0.png").is_file()
    assert Path("out/failed.jsonl").is_file()


def test_what_a_killed_shard_left_without_a_record_goes(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/1")
    folder = Path("out/shards/1-of-1")
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    lost = json.loads(lines[-1])
    (folder / "results.jsonl").write_text("".join(lines[:-1]))
    entry = [lost["id"], lost["output"], 0]
    (folder / ".joyedit.unfinished").write_text(f'["start", 0]\n{json.dumps(["take", [entry]])}\n')
    assert joyedit("merge", "out", "--no-page").code == 3
    assert not Path("out/shards").exists()
    assert not Path("out", lost["output"]).exists()
    assert joyedit("run", "photos", *RUN, "--no-page").code == 0
    assert joyedit("verify", "out").code == 0


def test_status_tells_rate_and_time_of_running_shards(joyedit: Command, photos: Path) -> None:
    shard(joyedit, "1/2")
    folder = Path("out/shards/1-of-2")
    report = json.loads((folder / "report.json").read_text())
    begun = (datetime.fromisoformat(report["started"]) - timedelta(seconds=10)).isoformat()
    (folder / "report.json").write_text(json.dumps(report | {"state": "running", "left": 3, "ended": begun}))
    with OutputLock(folder) as lock:
        lock.acquire()
        told = joyedit("status", "out").out
    assert "rate  " in told
    assert "time left" in told
    assert "3 left, running (process" in told
    assert ", 3 left, killed" in joyedit("status", "out").out


def test_many_words_are_cut(joyedit: Command, photos: Path) -> None:
    """Of many files or items that stay, the first twenty are named."""
    for number in range(30):
        Image.new("RGB", (24, 24)).save(photos / f"q{number}.png")
    shard(joyedit, "1/1")
    Path("out").mkdir(exist_ok=True)
    for number in range(30):
        Path(f"out/q{number}.png").write_text("mine")
    ended = joyedit("merge", "out", "--no-page")
    assert "so do 10 other items" in ended.err
    for number in range(30):
        Path(f"out/q{number}.png").unlink()
        Path(f"out/shards/1-of-1/note{number}").write_text("mine")
    ended = joyedit("merge", "out", "--no-page")
    assert "note: so do 10 other files" in ended.err
