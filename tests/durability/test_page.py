"""Kills, signals and faults of the disk while the page of a run is made: nothing of the run is lost or changed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durability.harness import FAKE, Done, Forks, check_whole, make_manifest, pictures, records
from joyedit.job.own_files import PAGE, PAGE_FILES, is_temporary
from support.figures import FIGURES
from support.pages import ReadPage

KILLED = -signal.SIGKILL
ITEMS = 5
WITH_PAGE = tuple(flag for flag in FAKE if flag != "--no-page")
LOUD = tuple(flag for flag in WITH_PAGE if flag != "-q")


@pytest.fixture
def place(memory: Path, forks: Forks) -> Path:
    """A folder with a manifest, and `whole`, the output of an undisturbed run."""
    make_manifest(memory, ITEMS, broken=True)
    assert run(forks, memory, "whole").code == 3
    return memory


@pytest.fixture
def two_servers() -> Iterator[list[Forks]]:
    servers = [Forks(), Forks()]
    yield servers
    for server in servers:
        server.close()


def run(forks: Forks, place: Path, out: str, fault: str | None = None, **around: object) -> Done:
    ended = forks("run", "m.jsonl", *WITH_PAGE, "-o", out, cwd=place, fault=fault, around=around or None)
    assert "Traceback" not in ended.message
    return ended


def check_page(out: Path) -> None:
    """The page of all items is there, each file that its data names exists, and nothing unfinished lies about."""
    page = ReadPage(out)
    assert {row["id"] for row in page.rows} == set(records(out))
    named = {name for row in page.rows for name in (row.get("after"), row.get("before")) if name}
    assert all((page.files / name).stat().st_size > 0 for name in named)
    assert [path for path in out.rglob("*") if is_temporary(path.name)] == []


def first_step_of_the_page(forks: Forks, place: Path) -> int:
    """The number of the first step that a run with a page has and a run without one has not."""
    low, high = 1, 5000
    while low < high:  # how many steps a run without a page has
        middle = (low + high) // 2
        out = f"count{middle}"
        ended = forks("run", "m.jsonl", *FAKE, "-o", out, cwd=place, fault=f"any:{middle}")
        low, high = (middle + 1, high) if ended.code == KILLED else (low, middle)
    return low


def test_a_kill_at_every_step_of_the_page(place: Path, two_servers: list[Forks]) -> None:
    whole, ids = pictures(place / "whole"), set(records(place / "whole"))
    first = first_step_of_the_page(two_servers[0], place)

    def every_other(begin: int) -> int:
        for kills, step in enumerate(range(first + begin, first + 10_000, 2)):
            out = f"out{step}"
            if run(two_servers[begin], place, out, fault=f"any:{step}").code != KILLED:
                return kills
            assert pictures(place / out) == whole
            assert set(records(place / out)) == ids
            if (place / out / PAGE).exists():
                assert {row["id"] for row in ReadPage(place / out).rows} == ids
            assert run(two_servers[begin], place, out).code == 3
            check_whole(place / out, whole, ids)
            check_page(place / out)
        raise AssertionError("the page has no end")

    with ThreadPoolExecutor(2) as pool:
        kills = sum(pool.map(every_other, (0, 1)))
    FIGURES["kills survived"] += kills
    assert kills >= 100


def first_file_of_the_page(forks: Forks, place: Path) -> int:
    """The number of the first file that a run with a page writes and a run without one does not."""
    for count in range(1, 100):
        if (
            forks("run", "m.jsonl", *FAKE, "-o", f"files{count}", cwd=place, fault=f"file.create:{count}").code
            != KILLED
        ):
            return count
    raise AssertionError("the run has no end")


def test_a_signal_changes_no_exit_code(place: Path, forks: Forks) -> None:
    first = first_file_of_the_page(forks, place)
    for number, (point, name) in enumerate(
        [("create", "int"), ("create", "term"), ("rename", "int"), ("rename", "term"), ("folder", "drop")]
    ):
        out = f"out{number}"
        ended = run(forks, place, out, fault=f"file.{point}:{first + number}:{name}")
        assert ended.code == 3, ended.message
        check_whole(place / out, pictures(place / "whole"), set(records(place / "whole")))
        assert not (place / out / PAGE).exists()
        assert forks("view", out, cwd=place).code == 0
        check_page(place / out)


@pytest.mark.parametrize("action", ["enospc", "eio", "erofs"])
def test_a_fault_of_the_disk_is_a_note(place: Path, forks: Forks, action: str) -> None:
    first = first_file_of_the_page(forks, place)
    for more in (0, 1, 3, 7, 15):
        fault = f"file.create:{first + more}:{action}"
        ended = forks("run", "m.jsonl", *LOUD, "-o", f"out{more}", cwd=place, fault=fault)
        assert ended.code == 3
        told = [line for line in ended.message.splitlines() if "no page was made" in line or "the page lacks" in line]
        assert len(told) == 1, ended.message
        check_whole(place / f"out{more}", pictures(place / "whole"), set(records(place / "whole")))
        assert forks("view", f"out{more}", cwd=place).code == 0
        check_page(place / f"out{more}")


def test_the_page_folder_is_no_source(place: Path, forks: Forks) -> None:
    """A run over the folder that holds an output folder, and over one that is its own output, takes no small copies."""
    folder = place / "photos"
    (folder / "deep").mkdir(parents=True)
    for number in range(3):
        (folder / f"in{number}.png").write_bytes((place / f"in{number}.png").read_bytes())
    for out in ("photos/out", "photos"):
        for _ in range(2):
            ended = forks("run", "photos", "-p", "x", *WITH_PAGE, "-o", out, cwd=place)
            assert ended.code in (0, 2, 3), ended.message
            if (place / out / "results.jsonl").exists():
                names = {name for record in records(place / out).values() for name in record["inputs"]}
                assert not any(PAGE_FILES in name for name in names)
