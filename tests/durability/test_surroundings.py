"""Commands in random surroundings: each item once, no foreign file touched, exit code true, report final.

A failure prints a line that begins with JOYEDIT_SEED=N: with that variable set, the tests run this case alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from durability.harness import FAKE, Forks, findings, make_manifest
from durability.stage import Stage
from durability.surroundings import AS_ROOT, GROUP, USERS, make_case
from support.figures import EXHAUSTIVE, FIGURES

CASES = 5_000 if EXHAUSTIVE else 200
BLOCK = 100 if EXHAUSTIVE else 20
ONE = os.environ.get("JOYEDIT_SEED")
BLOCKS = [range(int(ONE), int(ONE) + 1)] if ONE else [range(n, n + BLOCK) for n in range(0, CASES, BLOCK)]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, in memory where that is possible."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="joyedit-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def attempt(seed: int, place: Path, forks: Forks) -> str | None:
    """Run one case; gives what is wrong."""
    case = make_case(seed)
    root, scratch = place / f"case{seed}", place / f"whole{seed}"
    root.mkdir()
    scratch.mkdir()
    stage = Stage(case, root, scratch, forks)
    try:
        stage.build()
        for command in case.commands:
            stage.command(command)
        stage.finish()
    except AssertionError as error:
        return f"{case}\n{error}"
    finally:
        FIGURES.update({f"surroundings: {name}": count for name, count in stage.tried.items()})
    return None


@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_random_surroundings(seeds: range, place: Path, forks: Forks) -> None:
    faults = [fault for seed in seeds if (fault := attempt(seed, place, forks)) is not None]
    FIGURES["surroundings tried"] += len(seeds)
    assert not faults, f"{len(faults)} of {len(seeds)} cases:\n\n" + "\n\n".join(faults)


def test_a_lock_that_is_a_hard_link_of_a_foreign_file(forks: Forks, tmp_path: Path) -> None:
    make_manifest(tmp_path, 2)
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    os.link(tmp_path / "precious", tmp_path / "out" / ".joyedit.lock")
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path)
    assert ended.code == 1
    assert "is not a plain file of its own: remove it" in ended.message
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_report_of_a_run_that_is_interrupted_before_the_model_loads(forks: Forks, tmp_path: Path) -> None:
    """It has recorded an item already, so the report must not stay that of the run before."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"broken")
    run = ("run", "photos", "-p", "x", *FAKE, "-o", "out")
    assert forks(*run, cwd=tmp_path).code == 3  # from now on the model is loaded only if it is needed
    ended = forks(*run, cwd=tmp_path, fault="journal.fsync:1:int")
    assert ended.code == 130, ended.message
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["state"], report["exit_code"]) == ("interrupted", 130)
    assert forks(*run, cwd=tmp_path).code == 3


def test_ctrl_c_in_the_middle_of_a_record_is_no_other_program(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"broken")
    run = ("run", "photos", "-p", "x", *FAKE, "-o", "out")
    assert forks(*run, cwd=tmp_path).code == 3
    for point in ("journal.half", "journal.appended"):
        ended = forks(*run, cwd=tmp_path, fault=f"{point}:1:int")
        assert (ended.code, "another program" in ended.message) == (130, False), ended.message
        assert forks(*run, cwd=tmp_path).code == 3


@pytest.mark.skipif(not AS_ROOT, reason="only root can be somebody else")
@pytest.mark.parametrize("command", ["verify", "status"])
def test_records_that_this_user_may_not_read(forks: Forks, place: Path, command: str) -> None:
    make_manifest(place, 2)
    assert forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=place).code == 0
    (place / "out" / "results.jsonl").chmod(0o600)
    ended = forks(command, "out", cwd=place, around={"uid": USERS[0], "gid": GROUP})
    assert ended.code == 1
    assert "cannot read out/results.jsonl: no permission" in ended.message


@pytest.mark.parametrize("event", ["cut", "remove", "again"])
def test_a_journal_that_changes_at_the_last_moment_stops_the_run(forks: Forks, tmp_path: Path, event: str) -> None:
    make_manifest(tmp_path, 2)
    around = {"events": [[event, str(tmp_path / "out" / "results.jsonl")]]}
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path, fault="journal.append:2:stop", around=around)
    assert ended.done == [0]
    assert ended.code == 1, ended.message
    assert "results.rescued.jsonl" in ended.message


def test_a_folder_that_is_made_anew_before_the_first_record_stops_the_run(forks: Forks, tmp_path: Path) -> None:
    """Pictures and records must not part."""
    make_manifest(tmp_path, 2)
    around = {"events": [["rename", str(tmp_path / "out"), str(tmp_path / "moved")], ["mkdir", str(tmp_path / "out")]]}
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path, fault="lock:1:stop", around=around)
    assert ended.done == [0, 1]
    assert ended.code == 1, ended.message
    assert not list((tmp_path / "out").glob("*.jsonl"))
    assert forks("run", "m.jsonl", *FAKE, "-o", "moved", cwd=tmp_path).code == 0
    assert findings(tmp_path / "moved") == []


@pytest.mark.parametrize("point", ["file.half", "file.renamed", "file.done"])
def test_a_signal_while_the_first_report_is_written(forks: Forks, tmp_path: Path, point: str) -> None:
    """The report that says running is the first file of a run."""
    make_manifest(tmp_path, 2)
    ended = forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path, fault=f"{point}:1:int")
    assert ended.code == 130, ended.message
    assert json.loads((tmp_path / "out" / "report.json").read_text())["state"] == "interrupted"
