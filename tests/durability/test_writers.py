"""SIGKILL while shards are written, then the same command: nothing lost, nothing twice, no torn shard at any time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tarfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from durability.harness import FAKE, Forks, findings, make_manifest, pictures, program, records, start
from joyedit.job.own_files import RESULTS
from joyedit.job.results.finished_picture import picture_state
from joyedit.job.results.records import error_code, final_records, output_of, packed_in, read_journal
from joyedit.job.writing.shard_names import kind_of
from support.figures import EXHAUSTIVE, FIGURES, SOAK

KILLED = -signal.SIGKILL
ITEMS = 10
SIZE = "3"
EVERY = {"webdataset": 5 if EXHAUSTIVE else 31, "parquet": 7 if EXHAUSTIVE else 53}
RUNS = 2 * SOAK if EXHAUSTIVE else 1
KINDS = ("webdataset", "parquet")
POINTS = ("pack.written", "pack.noted", "pack.placed", "pack.recorded", "pack.removed", "pack.done")


def flags_of(kind: str) -> tuple[str, ...]:
    return ("--write", kind, "--shard-size", SIZE)


def run(forks: Forks, place: Path, out: str, kind: str, *flags: str, fault: str | None = None, batch: int = 3) -> int:
    argv = ("run", "m.jsonl", *FAKE, "-o", out, "--batch-size", str(batch), *flags_of(kind), *flags)
    ended = forks(*argv, cwd=place, fault=fault)
    assert "Traceback" not in ended.message
    assert not ended.hung
    assert ended.code in (0, 3, KILLED), f"{fault}: exit code {ended.code}: {ended.message}"
    return ended.code


def finish(forks: Forks, place: Path, out: str, kind: str) -> None:
    """The same command to its end. An item that was in work at two kills is tried again when that is asked for."""
    assert run(forks, place, out, kind) == 3
    if any(error_code(record) == "killed_the_run" for record in records(place / out).values()):
        assert run(forks, place, out, kind, "--retry-failed") == 3


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


@pytest.fixture
def place(memory: Path) -> Path:
    make_manifest(memory, ITEMS, broken=True)
    return memory


class Expected:
    """What an undisturbed run leaves, and the pictures by themselves, by the id of the item."""

    def __init__(self, forks: Forks, place: Path, kind: str) -> None:
        assert run(forks, place, "whole", kind) == 3
        self.files = pictures(place / "whole")
        self.ids = set(records(place / "whole"))
        self.sums = {name: one.get("output_sha256") for name, one in records(place / "whole").items()}
        assert sum(kind_of(name) is not None for name in self.files) == 3
        assert sum(packed_in(one) is not None for one in records(place / "whole").values()) == 8

    def check_at_any_instant(self, out: Path) -> None:
        """Every shard is whole, and every record of a finished picture leads to that picture."""
        if not (out / RESULTS).exists():
            return
        for name, data in pictures(out).items():
            if kind_of(name) is not None:
                assert data == self.files.get(name), f"{name} is not as of an undisturbed run"
        for record in final_records(out / RESULTS):
            if record["status"] == "ok":
                assert record["output_sha256"] == self.sums[record["id"]]
                assert picture_state(str(out / str(output_of(record))), record, trust=False) == "recorded"

    def check_at_the_end(self, out: Path) -> None:
        """Each item once, all files as of an undisturbed run, and nothing else."""
        assert pictures(out) == self.files
        check_once(out, self.ids)


def check_once(out: Path, ids: set[str]) -> None:
    final = records(out)
    FIGURES["items lost"] += len(ids - set(final))
    assert set(final) == ids
    edits: dict[str, set[str]] = defaultdict(set)  # a record that says where a picture is now has the time of its edit
    for record in read_journal(out / RESULTS):
        if record["status"] == "ok":
            edits[record["id"]].add(record["at"])
    FIGURES["items edited twice"] += sum(len(times) - 1 for times in edits.values())
    assert {name: len(times) for name, times in edits.items() if len(times) > 1} == {}
    assert [path.name for path in out.rglob(".*")] == []
    assert findings(out) == []


def test_a_kill_at_each_step(forks: Forks, place: Path, kind: str) -> None:
    expected, kills = Expected(forks, place, kind), 0
    for step in range(1, 10_000, EVERY[kind]):
        name = f"out{step}"
        if run(forks, place, name, kind, fault=f"any:{step}") != KILLED:
            break
        kills += 1
        expected.check_at_any_instant(place / name)
        assert run(forks, place, name, kind) == 3
        expected.check_at_the_end(place / name)
        shutil.rmtree(place / name)
    FIGURES["kills survived"] += kills
    assert kills * EVERY[kind] >= 200


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_step_of_a_shard_and_of_its_recovery(forks: Forks, place: Path, kind: str, point: str) -> None:
    expected = Expected(forks, place, kind)
    for count in (1, 3):
        name, kills = f"{point}{count}", 1
        assert run(forks, place, name, kind, fault=f"{point}:{count}") == KILLED
        expected.check_at_any_instant(place / name)
        for again in ("journal.append:1", "journal.fsync:1", "pack.recorded:1", "pack.removed:1"):
            if run(forks, place, name, kind, fault=again) == KILLED:
                kills += 1
            expected.check_at_any_instant(place / name)
        finish(forks, place, name, kind)
        expected.check_at_the_end(place / name)
        FIGURES["kills survived"] += kills


def test_killed_again_and_again_until_what_failed_is_mended(forks: Forks, place: Path, kind: str) -> None:
    expected = Expected(forks, place, kind)
    broken = (place / "broken.png").read_bytes()
    for number in range(RUNS):
        dice, kills, name = random.Random(number), 0, f"again{number}"
        (place / "broken.png").write_bytes(broken)
        while run(forks, place, name, kind, fault=f"any:{dice.randint(5, 90)}", batch=dice.choice((1, 2, 5))) == KILLED:
            kills += 1
            expected.check_at_any_instant(place / name)
            if kills > 60:
                break
        finish(forks, place, name, kind)
        expected.check_at_the_end(place / name)
        shutil.copy(place / "in0.png", place / "broken.png")
        for count in range(1, 200, 9):
            if run(forks, place, name, kind, "--retry-failed", fault=f"any:{count}") != KILLED:
                break
            kills += 1
        assert run(forks, place, name, kind, "--retry-failed") == 0
        check_once(place / name, expected.ids)
        final = records(place / name)
        assert [packed_in(final[one]) is not None for one in expected.ids] == [True] * (ITEMS + 1)
        FIGURES["kills survived"] += kills


def test_kills_while_shards_are_written_anew(forks: Forks, place: Path, kind: str) -> None:
    """Lines change, so their shards do. An old shard stays whole until the new one takes its place."""
    expected = Expected(forks, place, kind)
    lines = [json.loads(line) for line in (place / "m.jsonl").read_text().splitlines()]
    for line in lines:
        if line["id"] in ("item0", "item2", "item8"):
            line["instruction"] = "something else"
    (place / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(place / "whole", place / "changed")
    assert run(forks, place, "changed", kind, "--update") == 3
    changed, kills = pictures(place / "changed"), 0
    assert changed.keys() == expected.files.keys()
    assert sum(changed[name] != expected.files[name] for name in changed) == 2
    for step in range(1, 10_000, 11 if EXHAUSTIVE else 43):
        name = f"out{step}"
        shutil.copytree(place / "whole", place / name)
        if run(forks, place, name, kind, "--update", fault=f"any:{step}") != KILLED:
            break
        kills += 1
        for file, data in pictures(place / name).items():
            assert kind_of(file) is None or data in (expected.files[file], changed[file])
        assert run(forks, place, name, kind, "--update") == 3
        assert pictures(place / name) == changed
        assert findings(place / name) == []
        shutil.rmtree(place / name)
    FIGURES["kills survived"] += kills
    assert kills >= 3


@pytest.mark.parametrize("error", ["enospc", "eio"])
def test_a_disk_that_fails_while_a_shard_is_written(forks: Forks, place: Path, kind: str, error: str) -> None:
    expected = Expected(forks, place, kind)
    argv = ("run", "m.jsonl", *FAKE, "--batch-size", "3", *flags_of(kind))
    for point in ("pack.written", "pack.noted", "pack.placed", "pack.recorded") if EXHAUSTIVE else ("pack.noted",):
        name = f"{point}-{error}"
        ended = forks(*argv, "-o", name, cwd=place, fault=f"{point}:1:{error}")
        assert ended.code == 1, ended.message
        assert "Traceback" not in ended.message
        expected.check_at_any_instant(place / name)
        assert run(forks, place, name, kind) == 3
        expected.check_at_the_end(place / name)
        FIGURES["disk faults survived"] += 1
    for count in range(1, 2000, 25 if EXHAUSTIVE else 131):
        name = f"file{count}"
        ended = forks(*argv, "-o", name, cwd=place, fault=f"any:{count}:{error}")
        if ended.code == 3 and not (place / name / ".joyedit.packing").exists():
            break
        assert ended.code in (1, 2, 3), ended.message
        assert "Traceback" not in ended.message
        expected.check_at_any_instant(place / name)
        assert run(forks, place, name, kind) == 3
        assert pictures(place / name) == expected.files
        FIGURES["disk faults survived"] += 1


class Reader(threading.Thread):
    """Opens every shard that has its final name, again and again, as somebody who trains from the folder does."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self.out, self.ended, self.faults, self.read = out, threading.Event(), [], 0  # type: ignore[var-annotated]

    def run(self) -> None:
        while not self.ended.is_set():
            for path in [*self.out.glob("edited-*")]:
                try:
                    self.faults += [] if samples_of(path) > 0 else [f"{path.name} is empty"]
                    self.read += 1
                except FileNotFoundError:
                    continue
                except Exception as error:
                    self.faults.append(f"{path.name}: {error!r}")
            time.sleep(0.002)


def samples_of(path: Path) -> int:
    """How many samples a shard holds; every picture in it is decoded. Raises what a torn one raises."""
    found = 0
    if kind_of(path.name) == "webdataset":
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                if ".edited_image." in member.name:
                    Image.open(file).load()
                    found += 1
        return found
    import pyarrow.parquet as pq

    with open(path, "rb") as file:
        return int(pq.read_table(file).num_rows)


def test_kills_at_random_times_under_the_eyes_of_a_reader(tmp_path: Path, kind: str) -> None:
    """The program as users start it, killed whenever it happens to be."""
    make_manifest(tmp_path, 24)
    dice, out = random.Random(7), tmp_path / "out"
    argv = ("run", "m.jsonl", *FAKE, "-o", out, "--batch-size", "1", *flags_of(kind))
    reader, kills = Reader(out), 0
    reader.start()
    for _ in range(40 if EXHAUSTIVE else 2):
        process = start(*argv, cwd=tmp_path)
        while not (out / RESULTS).exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, 0.8))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        for record in final_records(out / RESULTS) if (out / RESULTS).exists() else ():
            if record["status"] == "ok":
                assert picture_state(os.path.join(out, str(output_of(record))), record, trust=False) == "recorded"
        if kills % 5 == 4 and process.returncode == 0:
            shutil.rmtree(out)
    ended = program(*argv, cwd=tmp_path)
    if ended.code == 3:  # an item that was in work at two kills
        ended = program(*argv, "--retry-failed", cwd=tmp_path)
    reader.ended.set()
    reader.join()
    assert ended.code == 0, ended.message
    assert reader.faults == []
    assert reader.read > 0
    check_once(out, {str(json.loads(line)["id"]) for line in (tmp_path / "m.jsonl").read_text().splitlines()})
    assert [path.name for path in sorted(out.glob("edited-*"))] == [
        f"edited-{number:06d}{'.tar' if kind == 'webdataset' else '.parquet'}" for number in range(8)
    ]
    FIGURES["kills survived"] += kills
