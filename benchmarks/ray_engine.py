"""What Ray costs an item: the fake over 2 actors of this machine, against the fake in 2 worker processes.

    python benchmarks/ray_engine.py --items 4000 --rounds 3

Runs of both kinds take turns. The time of a run is that from its first finished item to its last one, as the journal
grows, so the start of Ray, of processes and of the model is apart. The items have no pictures to read and the actors
no networks: what is left is the way of an item through the machine. The overhead is the difference of the medians. A
cluster that runs already is used (RAY_ADDRESS); else one is started for each run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run it, print a line for each run, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    given = parser.parse_args()
    times: dict[str, list[float]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "m.jsonl"
        with manifest.open("w") as file:
            for number in range(given.items):
                file.write(json.dumps({"instruction": f"edit {number}", "id": f"{number:07}"}) + "\n")
        for turn in range(given.rounds):
            for engine in times:
                out = Path(folder) / f"{engine}{turn}"
                whole, seconds = measure(manifest, out, engine, given)
                times[engine].append(seconds / given.items * 1000)
                print(
                    f"{engine:5}  {times[engine][-1]:6.2f} ms an item after the first one; {whole:.1f} s in all",
                    flush=True,
                )
    local, ray = (statistics.median(times[engine]) for engine in ("local", "ray"))
    print(
        f"medians: local {local:.2f} ms, ray {ray:.2f} ms an item; overhead {ray - local:.2f} ms, {ray / local:.2f} x"
    )


def measure(manifest: Path, out: Path, engine: str, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the whole command, and from the first record to the last one."""
    argv = [sys.executable, "-m", "joyedit", "run", str(manifest), "-m", "fake", "--basesize", "256", "--steps", "1"]
    argv += ["--batch-size", str(given.batch_size), "--no-page", "-q", "--format", "jpg", "--quality", "50"]
    argv += ["--device", "cpu", "--gpus", str(given.actors), "--engine", engine, "-o", str(out)]
    env = os.environ | {"JOYEDIT_FAKE": "1", "PYTHONPATH": str(ROOT)}
    journal = out / "results.jsonl"
    first, last, begun = None, 0.0, time.monotonic()
    count, position = 0, 0
    process = subprocess.Popen(argv, env=env)
    while count < given.items and (process.poll() is None or position < size(journal)):
        time.sleep(0.02)
        if size(journal) > position:
            with journal.open("rb") as file:
                file.seek(position)
                data = file.read()
            count, position, last = count + data.count(b"\n"), position + len(data), time.monotonic()
            first = first or last
    process.wait()
    assert process.returncode == 0, f"exit code {process.returncode}"
    assert count == given.items, f"{count} records"
    return time.monotonic() - begun, last - (first or begun)


def size(path: Path) -> int:
    """Bytes of a file; none if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()
