"""SIGKILL at every step of every write, then the same command again: nothing lost, nothing twice, nothing torn."""

from __future__ import annotations

import json
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from durability.harness import (
    FAKE,
    Forks,
    check_after_kill,
    check_whole,
    make_manifest,
    pictures,
    program,
    records,
)
from joyedit.job.results.records import error_code
from support.figures import EXHAUSTIVE, FIGURES, SOAK

KILLED = -signal.SIGKILL
ITEMS = 14
RUNS = 20 * SOAK if EXHAUSTIVE else 6
"""How many runs are killed again and again."""


def run(forks: Forks, place: Path, out: str, *flags: str, fault: str | None = None, batch: int = 3) -> int:
    ended = forks("run", "m.jsonl", *FAKE, "-o", out, "--batch-size", str(batch), *flags, cwd=place, fault=fault)
    assert "Traceback" not in ended.message
    if ended.code not in (0, 3, KILLED):
        raise AssertionError(f"{fault}: exit code {ended.code}: {ended.message}")
    return ended.code


@pytest.fixture
def place(memory: Path) -> Path:
    make_manifest(memory, ITEMS, broken=True)
    return memory


def test_a_kill_at_every_step(place: Path) -> None:
    """Every step of the run is the last one, once: `any:N` for each N until nothing is left to kill."""
    servers = [Forks(), Forks()]
    try:
        assert run(servers[0], place, "whole") == 3
        whole, ids = pictures(place / "whole"), set(records(place / "whole"))
        assert len(whole) == ITEMS

        def every_other(first: int) -> int:
            kills = 0
            for step in range(first, 10_000, 2):
                name = f"out{step}"
                if run(servers[first % 2], place, name, fault=f"any:{step}") != KILLED:
                    return kills
                kills += 1
                check_after_kill(place / name, whole)
                assert run(servers[first % 2], place, name) == 3
                check_whole(place / name, whole, ids)
            return kills

        with ThreadPoolExecutor(2) as pool:
            kills = sum(pool.map(every_other, (1, 2)))
    finally:
        for server in servers:
            server.close()
    FIGURES["kills survived"] += kills
    assert kills >= 200


def test_killed_again_and_again(place: Path) -> None:
    """A run that is killed, taken up, killed, ... and comes to its end all the same."""
    servers = [Forks(), Forks()]
    try:
        assert run(servers[0], place, "whole") == 3
        whole, ids = pictures(place / "whole"), set(records(place / "whole"))

        def torture(number: int) -> int:
            dice, kills, name = random.Random(number), 0, f"again{number}"
            batch = dice.choice((1, 2, 5))
            while run(servers[number % 2], place, name, fault=f"any:{dice.randint(5, 60)}", batch=batch) == KILLED:
                kills += 1
                check_after_kill(place / name, whole)
                if kills > 60:
                    break
            assert run(servers[number % 2], place, name) == 3
            final = records(place / name)
            assert set(final) == ids
            if any(error_code(record) == "killed_the_run" for record in final.values()):
                assert run(servers[number % 2], place, name, "--retry-failed") == 3
            check_whole(place / name, whole, ids)
            return kills

        for numbers in zip(range(0, RUNS, 2), range(1, RUNS, 2), strict=True):
            with ThreadPoolExecutor(2) as pool:
                FIGURES["kills survived"] += sum(pool.map(torture, numbers))
    finally:
        for server in servers:
            server.close()


POINTS = ("lock", "journal.open", "journal.half", "journal.synced", "file.half", "file.rename", "file.renamed")


def test_kills_of_the_program_itself(tmp_path: Path) -> None:
    """The same without the fork server: the command as users start it, killed through its environment."""
    place = tmp_path
    make_manifest(place, ITEMS, broken=True)
    assert program("run", "m.jsonl", *FAKE, "-o", "whole", cwd=place).code == 3
    whole, ids = pictures(place / "whole"), set(records(place / "whole"))

    def kill(point: str) -> None:
        out = place / point
        killed = program("run", "m.jsonl", *FAKE, "-o", out, cwd=place, JOYEDIT_FAULT=f"{point}:1")
        assert killed.code == KILLED, killed.message
        check_after_kill(out, whole)
        assert program("run", "m.jsonl", *FAKE, "-o", out, cwd=place).code == 3
        check_whole(out, whole, ids)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill, POINTS))
    FIGURES["kills survived"] += len(POINTS)


def test_a_kill_while_a_torn_end_is_repaired(forks: Forks, place: Path) -> None:
    assert run(forks, place, "whole") == 3
    whole, ids = pictures(place / "whole"), set(records(place / "whole"))
    assert run(forks, place, "out", fault="journal.half:6") == KILLED
    for _ in range(3):
        assert run(forks, place, "out", fault="journal.repair:1") == KILLED
    FIGURES["kills survived"] += 4
    assert run(forks, place, "out") == 3
    check_whole(place / "out", whole, ids)
    assert "ended with an incomplete record" in (place / "out" / "joyedit.log").read_text()


def test_kills_between_the_parts_of_panoramas(memory: Path, forks: Forks) -> None:
    """An item in parts has a picture and a record, or neither; the same command edits all of it again."""
    lines = []
    for number, size in enumerate(((300, 24), (40, 40), (24, 400), (500, 30))):
        Image.linear_gradient("L").resize(size).convert("RGB").save(memory / f"in{number}.png")
        lines.append({"image": f"in{number}.png", "id": f"item{number}", "instruction": f"edit {number}"})
    (memory / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ("--panorama", "parts")
    assert run(forks, memory, "whole", *flags, batch=2) == 0
    whole = pictures(memory / "whole")
    assert len(whole) == 4
    kills = 0
    for step in range(1, 10_000, 1 if EXHAUSTIVE else 7):
        name = f"out{step}"
        if run(forks, memory, name, *flags, fault=f"any:{step}", batch=2) != KILLED:
            break
        kills += 1
        check_after_kill(memory / name, whole)
        assert run(forks, memory, name, *flags, batch=2) == 0
        check_whole(memory / name, whole, set(records(memory / "whole")))
    assert kills >= 3
