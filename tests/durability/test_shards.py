"""Shards and their merge under kills: in the end each item once, each picture as of one plain run, and no more."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from durability.harness import FAKE, Done, Forks, check_whole, findings, make_manifest, pictures, records
from joyedit.job.results.lock import OutputLock
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import read_journal
from joyedit.job.shard import number_of
from support.figures import EXHAUSTIVE, FIGURES

KILLED = -signal.SIGKILL
ITEMS = 14
TIMES = ("at", "seconds")


def shard(forks: Forks, place: Path, which: str, out: str = "out", *more: str, fault: str | None = None) -> Done:
    command = ("run", "m.jsonl", *FAKE, "-o", out, "--shard", which, "--batch-size", "3", *more)
    ended = forks(*command, cwd=place, fault=fault)
    assert "Traceback" not in ended.message
    assert ended.code in (0, 3, KILLED), ended.message
    return ended


def merge(forks: Forks, place: Path, out: str = "out", fault: str | None = None) -> Done:
    ended = forks("merge", out, "--no-page", cwd=place, fault=fault)
    assert "Traceback" not in ended.message
    return ended


def plain(forks: Forks, place: Path, out: str, *more: str) -> Done:
    ended = forks("run", "m.jsonl", *FAKE, "-o", out, *more, cwd=place)
    assert "Traceback" not in ended.message
    return ended


@pytest.fixture
def place(memory: Path, forks: Forks) -> Path:
    """A manifest with a broken picture, and a plain run of it in `whole`."""
    make_manifest(memory, ITEMS, broken=True)
    assert plain(forks, memory, "whole").code == 3
    return memory


@pytest.fixture
def parts(place: Path, forks: Forks) -> Path:
    """The same as three finished shards in `parts`."""
    for number in (1, 2, 3):
        shard(forks, place, f"{number}/3", "parts")
    return place


def without_times(out: Path) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in record.items() if key not in TIMES} for name, record in records(out).items()
    }


def check_as_plain(place: Path, out: str) -> None:
    """The merged folder is what one plain run makes."""
    whole = place / "whole"
    check_whole(place / out, pictures(whole), set(records(whole)))
    assert without_times(place / out) == without_times(whole)
    assert not (place / out / "shards").exists()
    assert (place / out / "failed.jsonl").read_text() == (place / "whole" / "failed.jsonl").read_text()


def check_nothing_lost(out: Path, whole: dict[str, bytes]) -> None:
    """In the middle of a merge: each picture is complete, and in one place at least."""
    found: dict[str, bytes] = {}
    for path in out.rglob("*.png"):
        parts = path.relative_to(out).as_posix().split("/")
        found["/".join(parts[2:] if parts[0] == "shards" else parts)] = path.read_bytes()
    assert found == whole


def test_shards_are_one_plain_run(parts: Path, forks: Forks) -> None:
    sizes = [len(records(parts / "parts" / "shards" / f"{number}-of-3")) for number in (1, 2, 3)]
    assert sum(sizes) == ITEMS + 1
    assert min(sizes) > 0
    assert merge(forks, parts, "parts").code == 3
    check_as_plain(parts, "parts")
    assert merge(forks, parts, "parts").code == 3  # nothing to merge any more
    before = (parts / "parts" / "results.jsonl").read_bytes()
    again = plain(forks, parts, "parts", "--retry-failed")
    assert again.code == 3
    again = plain(forks, parts, "parts")
    assert json.loads((parts / "parts" / "report.json").read_text())["skipped"] == ITEMS
    assert (parts / "parts" / "results.jsonl").read_bytes().startswith(before)


def steps(first: int, stride: int) -> Iterator[int]:
    yield from range(first, 10_000, stride)


def test_a_kill_at_every_step_of_a_merge(parts: Path) -> None:
    servers = [Forks(), Forks()]
    whole = pictures(parts / "whole")
    try:

        def every_other(first: int) -> int:
            kills = 0
            for step in steps(first, 2):
                out = f"out{step}"
                shutil.copytree(parts / "parts", parts / out)
                if merge(servers[first % 2], parts, out, fault=f"any:{step}").code != KILLED:
                    return kills
                kills += 1
                check_nothing_lost(parts / out, whole)
                assert servers[first % 2]("status", out, cwd=parts).code == 3
                assert merge(servers[first % 2], parts, out).code == 3
                check_as_plain(parts, out)
                shutil.rmtree(parts / out)
            return kills

        with ThreadPoolExecutor(2) as pool:
            kills = sum(pool.map(every_other, (1, 2)))
    finally:
        for server in servers:
            server.close()
    FIGURES["kills survived"] += kills
    assert kills >= 60


def test_a_kill_of_a_merge_to_another_disk(parts: Path, tmp_path: Path, forks: Forks) -> None:
    """The folder of the shards is a link to another file system: pictures are copied."""
    if os.stat(parts).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("there is no second file system")
    for path in parts.iterdir():
        if path.name not in ("parts", "whole"):
            shutil.copy(path, tmp_path / path.name)
    shutil.copytree(parts / "whole", tmp_path / "whole")
    whole = pictures(parts / "whole")
    kills = 0
    for step in steps(1, 1 if EXHAUSTIVE else 7):
        shutil.copytree(parts / "parts" / "shards", parts / f"shards{step}")
        out = tmp_path / f"out{step}"
        out.mkdir()
        (out / "shards").symlink_to(parts / f"shards{step}")
        is_killed = merge(forks, tmp_path, out.name, fault=f"any:{step}").code == KILLED
        kills += is_killed
        for path in out.glob("**/*.png"):
            assert path.read_bytes() in whole.values()
        assert merge(forks, tmp_path, out.name).code == 3
        assert list((parts / f"shards{step}").iterdir()) == []
        assert pictures(out) == whole
        assert set(records(out)) == set(records(parts / "whole"))
        if not is_killed:
            break
    FIGURES["kills survived"] += kills
    assert kills >= 10


def test_kills_of_shards(place: Path) -> None:
    """Each shard is killed at another step, goes on, and is merged; the others never know."""
    servers = [Forks(), Forks()]
    try:

        def killed(step: int) -> int:
            forks, out, kills = servers[step % 2], f"out{step}", 0
            for number in (1, 2):
                kills += shard(forks, place, f"{number}/2", out, fault=f"any:{step}").code == KILLED
                shard(forks, place, f"{number}/2", out)
            assert merge(forks, place, out).code == 3
            check_as_plain(place, out)
            return kills

        stride = 2 if EXHAUSTIVE else 8
        evens, odds = range(2, 90, stride), range(3, 90, stride)
        kills = 0
        for pair in zip(evens, odds, strict=True):
            with ThreadPoolExecutor(2) as pool:
                kills += sum(pool.map(killed, pair))
    finally:
        for server in servers:
            server.close()
    FIGURES["kills survived"] += kills
    assert kills >= 30


def test_a_killed_shard_is_merged_as_far_as_it_came(place: Path, forks: Forks) -> None:
    """Its picture without a record goes, and a plain run makes it again."""
    assert shard(forks, place, "1/2", fault="journal.append:3").code == KILLED
    shard(forks, place, "2/2")
    told = merge(forks, place)
    assert told.code == 3
    assert findings(place / "out") != []
    assert not (place / "out" / "shards").exists()
    assert plain(forks, place, "out").code == 3
    check_as_plain(place, "out")


@pytest.mark.parametrize("again", ["whole", "shard"])
def test_deaths_in_a_shard_count_on_after_the_merge(again: str, memory: Path, forks: Forks) -> None:
    """An item that kills the process is given up after two deaths, wherever it was in work."""
    lines = [{"id": name, "instruction": f"edit {name}"} for name in "abcd"]
    lines.append({"id": "poison", "instruction": "SIGKILL"})
    (memory / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    number = f"{number_of('poison', 2)}/2"
    assert shard(forks, memory, number).code == KILLED
    merge(forks, memory)
    where = ("--shard", number) if again == "shard" else ()
    second = forks("run", "m.jsonl", *FAKE, "-o", "out", *where, cwd=memory)
    assert second.code == KILLED
    third = forks("run", "m.jsonl", *FAKE, "-o", "out", *where, cwd=memory)
    assert third.code == 3, third.message
    place = memory / "out" / "shards" / number.replace("/", "-of-") if where else memory / "out"
    assert records(place)["poison"]["error"]["code"] == "killed_the_run"


def test_shards_of_another_number_after_a_merge(place: Path, forks: Forks) -> None:
    """What is merged already is done for shards of any number."""
    shard(forks, place, "2/3")
    merge(forks, place)
    merged = set(records(place / "out"))
    assert merged
    for number in (1, 2):
        shard(forks, place, f"{number}/2")
        own = {record["id"] for record in read_journal(place / "out" / "shards" / f"{number}-of-2" / "results.jsonl")}
        done = {name for name in merged if records(place / "out")[name]["status"] == "ok"}
        assert not own & done
    assert merge(forks, place).code == 3
    check_as_plain(place, "out")
    again = shard(forks, place, "1/2")
    assert again.code in (0, 3)
    assert merge(forks, place).code == 3
    check_whole(place / "out", pictures(place / "whole"), set(records(place / "whole")))


def test_the_newest_picture_of_an_item_wins(place: Path, forks: Forks) -> None:
    """Shards of 2 and of 3 lie side by side, as a copy from elsewhere may leave them; their order does not count."""
    for newer in ("2", "3"):
        out = place / f"newest{newer}"
        for of in ("3", "2") if newer == "2" else ("2", "3"):
            name = f"only{newer}-{of}"
            for number in range(1, int(of) + 1):
                shard(forks, place, f"{number}/{of}", name, *(("--seed", "7") if of == newer else ()))
            shutil.copytree(place / name / "shards", out / "shards", dirs_exist_ok=True)
        assert forks("verify", out.name, cwd=place).code == 3
        done = merge(forks, place, out.name)
        assert done.code == 3
        assert not (out / "shards").exists()
        assert findings(out) == []
        final = records(out)
        assert set(final) == set(records(place / "whole"))
        assert {one["settings"]["seed"] for one in final.values()} == {7}
        assert plain(forks, place, "seven", "--seed", "7", "--overwrite").code == 3
        assert pictures(out) == pictures(place / "seven")


def test_a_foreign_file_stays_and_so_does_its_item(parts: Path, forks: Forks) -> None:
    out = parts / "parts"
    (out / "item0.png").write_bytes(b"mine")
    (out / "deep").mkdir()
    (out / "deep" / "1").write_bytes(b"a file in place of a folder")
    ended = merge(forks, parts, "parts")
    assert ended.code == 3
    assert "stays in shard" in ended.message
    assert "item0.png" in ended.message
    assert (out / "item0.png").read_bytes() == b"mine"
    staying = {name for path in (out / "shards").iterdir() for name in records(path)}
    assert staying == {"item0", "deep/1/item"}
    assert set(records(out)) | staying == set(records(parts / "whole"))
    status = json.loads(forks("status", "parts", "--json", cwd=parts).message)
    assert status["done"] == ITEMS
    assert status["left"] == 0
    kinds = Counter(finding.split(" ", 1)[0] for finding in forks("verify", "parts", cwd=parts).message.splitlines())
    assert set(kinds) == {"stray_file:", "records"}
    assert merge(forks, parts, "parts").code == 3
    (out / "item0.png").unlink()
    (out / "deep" / "1").unlink()
    merge(forks, parts, "parts")
    check_as_plain(parts, "parts")


def test_files_of_others_in_a_shard_stay(parts: Path, forks: Forks) -> None:
    note = parts / "parts" / "shards" / "2-of-3" / "note.txt"
    note.write_text("mine")
    ended = merge(forks, parts, "parts")
    assert f"{note.relative_to(parts)} is not from joyedit" in ended.message
    assert note.read_text() == "mine"
    assert os.listdir(note.parent) == ["note.txt"]
    assert plain(forks, parts, "parts").code == 3  # the folder is no shard any more
    assert pictures(parts / "parts").keys() - pictures(parts / "whole").keys() == {"shards/2-of-3/note.txt"}


def test_a_picture_that_somebody_changed_moves_as_it_is(parts: Path, forks: Forks) -> None:
    (path,) = (parts / "parts" / "shards").glob("*/item0.png")
    Image.new("RGB", (40, 24), "red").save(path)
    other = path.read_bytes()
    merge(forks, parts, "parts")
    assert (parts / "parts" / "item0.png").read_bytes() == other
    plain(forks, parts, "parts")
    assert (parts / "parts" / "item0.png").read_bytes() == other


def test_a_running_shard_holds_the_merge_up(parts: Path, forks: Forks) -> None:
    before = {path: path.stat().st_mtime_ns for path in (parts / "parts").rglob("*") if path.is_file()}
    lock = OutputLock(parts / "parts" / "shards" / "2-of-3")
    lock.acquire()
    try:
        ended = merge(forks, parts, "parts")
        assert ended.code == 1
        assert "1 shard is still running (shard 2 of 3: process" in ended.message
        status = forks("status", "parts", cwd=parts)
        assert "running (process" in status.message
    finally:
        lock.release()
    assert {path: path.stat().st_mtime_ns for path in (parts / "parts").rglob("*") if path.is_file()} == before
    with OutputLock(parts / "parts") as whole:
        whole.acquire()
        ended = forks("run", "m.jsonl", *FAKE, "-o", "parts", "--shard", "1/3", cwd=parts)
        assert ended.code == 1
        assert "another run or a merge writes to parts" in ended.message
        assert merge(forks, parts, "parts").code == 1


def test_two_runs_of_one_shard(parts: Path, forks: Forks) -> None:
    with OutputLock(parts / "parts" / "shards" / "2-of-3") as lock:
        lock.acquire()
        ended = forks("run", "m.jsonl", *FAKE, "-o", "parts", "--shard", "2/3", cwd=parts)
        assert ended.code == 1
        assert "another run writes to parts/shards/2-of-3" in ended.message


def test_failures_and_finished_pictures_of_one_item(place: Path, forks: Forks) -> None:
    """A picture that was missing for a while does not take its finished edit away."""
    shard(forks, place, "1/1")
    os.rename(place / "in0.png", place / "away.png")
    assert shard(forks, place, "1/1").code == 3
    (folder,) = (place / "out" / "shards").iterdir()
    assert records(folder)["item0"]["status"] == "failed"
    merge(forks, place)
    os.rename(place / "away.png", place / "in0.png")
    assert records(place / "out")["item0"]["status"] == "ok"
    check_as_plain(place, "out")
    lines = (place / "m.jsonl").read_text().replace('"edit 0"', '"another edit"')
    (place / "m.jsonl").write_text(lines)
    os.rename(place / "in0.png", place / "away.png")
    shard(forks, place, "1/1")
    merge(forks, place)
    assert records(place / "out")["item0"]["status"] == "failed"  # what is asked now was never made
    assert (place / "out" / "item0.png").is_file()


@pytest.mark.parametrize("fault", ["journal.append:5:enospc", "journal.fsync:1:eio", "file.fsync:1:enospc"])
def test_a_full_disk_stops_a_merge_and_loses_nothing(parts: Path, forks: Forks, fault: str) -> None:
    ended = merge(forks, parts, "parts", fault=fault)
    assert ended.code == 1, ended.message
    check_nothing_lost(parts / "parts", pictures(parts / "whole"))
    assert merge(forks, parts, "parts").code == 3
    check_as_plain(parts, "parts")


def test_a_merge_cleans_up_behind_itself_and_not_behind_a_shard(parts: Path, forks: Forks) -> None:
    """Unfinished files of a killed merge go. A run in the output folder itself leaves those of shards alone."""
    left = parts / "parts" / f".{'0' * 16}.joyedit-tmp"
    theirs = parts / "parts" / "shards" / "2-of-3" / left.name
    left.write_bytes(b"half")
    theirs.write_bytes(b"half")
    folder = OutputFolder(parts / "parts")
    folder.prepare()
    assert folder.clean() == 1
    folder.close()
    assert theirs.exists()
    merge(forks, parts, "parts")
    check_as_plain(parts, "parts")
