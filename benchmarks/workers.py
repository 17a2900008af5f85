"""How many items a second the parent of many workers takes, and whether its memory stays flat. With the fake.

    python benchmarks/workers.py --workers 16 --items 100000 --deaths 20

The items have no pictures to read and the workers no networks, so what is left is the parent's own work: plan, hand
out, take back, write, record. Workers are killed at random; a second run then makes what two deaths took. At the end
each item must have exactly one record of a finished picture.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run it, and print one line every few seconds and one at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--deaths", type=int, default=20, help="how many workers are killed, spread over the run")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two lines")
    parser.add_argument("--seconds", type=float, help="stop the run after so long, as SIGTERM does")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given)


def measure(folder: Path, given: argparse.Namespace) -> None:
    manifest = folder / "m.jsonl"
    with manifest.open("w") as file:
        for number in range(given.items):
            file.write(json.dumps({"instruction": f"edit {number}", "id": f"{number:07}"}) + "\n")
    argv = [sys.executable, "-m", "joyedit", "run", str(manifest), "-m", "fake", "--basesize", "256", "--steps", "1"]
    argv += ["--batch-size", str(given.batch_size), "--no-page", "-q", "--format", "jpg", "--quality", "50"]
    argv += ["--gpus", str(given.workers), "-o", str(folder / "out")]
    env = os.environ | {"JOYEDIT_FAKE": "1", "PYTHONPATH": str(ROOT)}
    dice = random.Random(given.seed)
    at = sorted(dice.randrange(given.items) for _ in range(given.deaths))
    begun = told = time.monotonic()
    process = subprocess.Popen(argv, env=env)
    journal = folder / "out" / "results.jsonl"
    is_stopped = False
    first: float | None = None
    lines, position, peak = 0, 0, 0
    while process.poll() is None:
        time.sleep(0.05)
        new, position = count_lines(journal, position)
        lines += new
        if lines and first is None:
            first = time.monotonic()
        if at and lines >= at[0]:
            at.pop(0)
            workers = children(process.pid)
            if workers:
                os.kill(dice.choice(workers), signal.SIGKILL)
        if given.seconds is not None and not is_stopped and time.monotonic() - begun > given.seconds:
            is_stopped = True
            process.send_signal(signal.SIGTERM)
        if time.monotonic() - told >= given.every:
            told = time.monotonic()
            now = resident(process.pid)
            peak = max(peak, now)
            print(f"{told - begun:7.1f} s  {lines:8} items  {now / 2**20:6.1f} MiB resident in the parent,"
                  f" {cpu_seconds(process.pid):.0f} s of CPU time", flush=True)  # fmt: skip
    ended = time.monotonic()
    seconds = ended - (first or begun)
    print(f"exit code {process.returncode}; {lines} records in {seconds:.1f} s: {lines / seconds:.0f} items a second")
    if process.returncode == 3:
        again = subprocess.run([*argv, "--retry-failed"], env=env, check=False)
        print(f"items that two deaths took, tried again: exit code {again.returncode}")
    records = [json.loads(line) for line in journal.open()]
    ok = Counter(one["id"] for one in records if one["status"] == "ok")
    report = json.loads((folder / "out" / "report.json").read_text())
    wanted = lines if is_stopped else given.items
    missing = sum(not (folder / "out" / f"{name}.jpg").exists() for name in ok)
    print(f"lost {wanted - len(ok)}, twice {sum(ok.values()) - len(ok)}, without picture {missing},"
          f" largest parent {peak / 2**20:.1f} MiB")  # fmt: skip
    print(f"deaths {sum(one['deaths'] for one in report['workers'])}, stages {report['stages']}")


def count_lines(path: Path, position: int) -> tuple[int, int]:
    """New lines behind a position, and the new position."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read()
    except FileNotFoundError:
        return 0, position
    return data.count(b"\n"), position + len(data)


def children(pid: int) -> list[int]:
    """Processes that this one has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def cpu_seconds(pid: int) -> float:
    """What the process itself has computed so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return 0.0


def resident(pid: int) -> int:
    """Bytes of memory that the process has now."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
