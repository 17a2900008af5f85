"""Long manifests and long journals: memory stays flat. Times are measured by benchmarks/durability.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from durability.harness import FAKE, Forks, environment, make_manifest, program, records
from support.figures import FIGURES

PEAK = """
import resource, sys
from joyedit.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak_of(*argv: str, cwd: Path) -> float:
    """The peak memory of the command, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *argv], cwd=cwd, env=environment(), capture_output=True, text=True, check=True
    )
    return int(done.stderr.split("peak ")[1]) / 1024


def test_memory_of_a_run_does_not_grow_with_the_manifest(tmp_path: Path) -> None:
    make_manifest(tmp_path, 1)
    peaks = []
    for count in (200, 1700):
        lines = (json.dumps({"image": "in0.png", "instruction": f"edit {number}"}) for number in range(count))
        (tmp_path / "m.jsonl").write_text("\n".join(lines))
        peaks.append(peak_of("run", "m.jsonl", *FAKE, "-o", f"out{count}", cwd=tmp_path))
    assert peaks[1] - peaks[0] < 12, "MB for 1500 items more"
    FIGURES["items of long runs"] += 1900


def test_memory_of_a_resume_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    """100,000 records of other items: the table of places takes some MB, the records take none."""
    make_manifest(tmp_path, 3)
    peaks = [peak_of("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path)]
    with open(tmp_path / "out" / "results.jsonl", "a") as file:
        for number in range(100_000):
            file.write(json.dumps({"id": f"other {number}", "status": "failed", "instruction": "x" * 200}) + "\n")
    peaks.append(peak_of("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path))
    assert peaks[1] - peaks[0] < 25
    FIGURES["records of long journals"] += 100_000


def test_the_length_of_the_journal_does_not_count_for_an_item(tmp_path: Path, forks: Forks) -> None:
    """Records are found by id, wherever they stand: the first and the last of them alike."""
    make_manifest(tmp_path, 40)
    assert forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path).code == 0
    path = tmp_path / "out" / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    assert forks("run", "m.jsonl", *FAKE, "-o", "out", cwd=tmp_path).code == 0
    assert len(path.read_text().splitlines()) == 40


def test_a_clock_that_jumps(tmp_path: Path, forks: Forks) -> None:
    """Nothing is decided by the time of day: pictures from the future, records from the past."""
    make_manifest(tmp_path, 6)
    assert forks("run", "m.jsonl", *FAKE, "-o", "out", "--limit", "3", cwd=tmp_path).code == 0
    code = (
        "import datetime, time, itertools\n"
        "jumps = itertools.cycle([0, -4e8, 4e8, -1e8])\n"
        "real = datetime.datetime\n"
        "class Jumping(real):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return real.fromtimestamp(1.7e9 + next(jumps), tz)\n"
        "datetime.datetime = Jumping\n"
        "time.time = lambda: 1.7e9 + next(jumps)\n"
        "import os\n"
        "for name in ('in3.png', 'out/results.jsonl'):\n"
        "    os.utime(name, (4e9, 4e9))\n"
        "os.utime('in1.png', (1, 1))\n"
        "from joyedit.cli.main import main\n"
        f"main(['run', 'm.jsonl', *{list(FAKE)!r}, '-o', 'out', '--max-duration', '1h'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=False)
    assert done.returncode == 0
    assert {record["status"] for record in records(tmp_path / "out").values()} == {"ok"}
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 6
    assert program("verify", "out", cwd=tmp_path).code == 0
    status = program("status", "out", "--json", cwd=tmp_path)
    assert status.code == 0, status.message
    assert json.loads(status.message)["left"] == 0
