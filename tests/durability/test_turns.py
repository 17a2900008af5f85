"""SIGKILL in the middle of chains, then the same command: no turn lost, none twice, pixels as without a kill."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest
from PIL import Image

from durability.harness import FAKE, Forks, check_after_kill, check_whole, pictures, records
from joyedit.job.results.records import error_code
from support.figures import EXHAUSTIVE, FIGURES, SOAK

KILLED = -signal.SIGKILL
EVERY = 1 if EXHAUSTIVE else 17
RUNS = 10 * SOAK if EXHAUSTIVE else 1


@pytest.fixture
def place(memory: Path) -> Path:
    """Chains of lines in a bad order, a line with turns, and a chain whose first picture is broken."""
    lines: list[dict[str, object]] = []
    for number in range(4):
        Image.new("RGB", ((24, 24), (36, 20))[number % 2], (number * 60, 80, 200)).save(memory / f"in{number}.png")
        lines.insert(0, {"image": f"in{number}.png", "id": f"a{number}", "instruction": "one"})
        lines.insert(0, {"image": f"@b{number}", "id": f"c{number}", "instruction": "three"})
        lines.append({"image": f"@a{number}", "id": f"b{number}", "instruction": "two"})
    lines.append({"image": "in0.png", "id": "m", "turns": ["one", "two", "three"]})
    (memory / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    lines.append({"image": "broken.png", "id": "bad", "turns": ["one", "two"]})
    (memory / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return memory


def run(forks: Forks, place: Path, out: str, *flags: str, fault: str | None = None, batch: int = 3) -> int:
    ended = forks("run", "m.jsonl", *FAKE, "-o", out, "--batch-size", str(batch), *flags, cwd=place, fault=fault)
    assert "Traceback" not in ended.message
    assert not ended.hung
    assert ended.code in (3, KILLED), ended.message
    return ended.code


def test_kills_in_the_middle_of_chains(forks: Forks, place: Path) -> None:
    assert run(forks, place, "whole") == 3
    whole, ids = pictures(place / "whole"), set(records(place / "whole"))
    assert (len(whole), len(ids)) == (15, 17)
    kills = 0
    for step in range(1, 10_000, EVERY):
        name = f"out{step}"
        if run(forks, place, name, fault=f"any:{step}") != KILLED:
            break
        kills += 1
        check_after_kill(place / name, whole)
        assert run(forks, place, name) == 3
        check_whole(place / name, whole, ids)
    FIGURES["kills survived"] += kills
    assert kills * EVERY >= 200


def test_chains_killed_again_and_again(forks: Forks, place: Path) -> None:
    """Items that were in work at each kill come last and alone: the turns that wait for them follow."""
    assert run(forks, place, "whole") == 3
    whole, ids = pictures(place / "whole"), set(records(place / "whole"))
    for number in range(RUNS):
        dice, kills, name = random.Random(number), 0, f"again{number}"
        while run(forks, place, name, fault=f"any:{dice.randint(5, 60)}", batch=dice.choice((1, 2, 5))) == KILLED:
            kills += 1
            check_after_kill(place / name, whole)
            if kills > 60:
                break
        assert run(forks, place, name) == 3
        if any(error_code(record) == "killed_the_run" for record in records(place / name).values()):
            assert run(forks, place, name, "--retry-failed") == 3
        check_whole(place / name, whole, ids)
        FIGURES["kills survived"] += kills
