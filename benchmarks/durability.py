"""What durability costs: an item's journal and atomic write, a million-line manifest, a resume of 100,000.

    python benchmarks/durability.py [overhead] [manifest] [resume] [run] [million] [--count N] [--minutes M]

`million` is run only when it is asked for: it edits N items (a million) for at most M minutes (30). All runs on the
fake backend, in a temporary folder of the current one's file system. Each part is measured in a process of its own,
so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from joyedit.errors import UsageError
from joyedit.job.hashing import HashCache
from joyedit.job.plan import plan
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.journal import Journal
from joyedit.job.results.lock import OutputLock
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.shared import Shared
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import Batch, EditItem, ItemResult, Origin, Sampling, Seen, Stamp
from joyedit.options import RunOptions
from joyedit.request import build_request
from joyedit.runtime.fake import FakeBackend, FakeLatents
from joyedit.runtime.model import describe_without_loading
from joyedit.runtime.pipeline.progress import NoProgress
from joyedit.runtime.protocol import ReadyBatch
from joyedit.runtime.run import run

MANIFEST = 1_000_000
EDITED = 1_000_000
MINUTES = 30.0
FINISHED = 100_000


def peak() -> float:
    """The most memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def resident() -> float:
    """The memory of this process now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def result_of(item: EditItem, fingerprint: str, data: bytes, sha256: str, seen: Seen, shared: str = "") -> ItemResult:
    return ItemResult(
        id=item.id,
        status="ok",
        instruction=item.instruction,
        inputs=tuple(os.path.abspath(path) for path in item.images),
        output=item.output,
        bucket=(256, 256),
        settings={"steps": 40, "guidance_scale": 4.0, "seed": 42, "negative_prompt": "", "model": "fake"},
        seconds={"read": 0.1, "encode": 0.1, "denoise": 0.1, "decode": 0.1, "write": 0.1},
        fingerprint=fingerprint,
        shared=shared,
        output_bytes=len(data),
        output_sha256=sha256,
        inputs_seen=(seen,),
        origin=item.origin,
    )


def write_manifest(folder: Path, count: int, *, each_its_own: bool) -> Path:
    """A manifest of `count` lines; of one picture, or with a picture for each line."""
    (folder / "in").mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "in" / "0.png")
    data = (folder / "in" / "0.png").read_bytes()
    with open(folder / "m.jsonl", "w") as file:
        for number in range(count):
            name = f"in/{number if each_its_own else 0}.png"
            if each_its_own and number:
                (folder / name).write_bytes(data)
            line = {"image": name, "instruction": f"make it blue {number}", "id": f"{number // 1000}/{number}"}
            file.write(json.dumps(line) + "\n")
    return folder / "m.jsonl"


def request(folder: Path, manifest: Path, **flags: Any) -> tuple[Any, RunConfig]:
    os.environ["JOYEDIT_FAKE"] = "1"
    made = build_request(
        RunOptions(source=(str(manifest),), output=folder / "out", model="fake", basesize=256, **flags)
    )
    return made.source, made.config


def overhead(folder: Path) -> dict[str, Any]:
    """Journal and atomic write of one item after another, for encoded pictures of two sizes."""
    message: dict[str, Any] = {}
    for size in (100_000, 1_500_000):
        message |= {f"{size // 1000} kB: {name}": value for name, value in _overhead(folder / str(size), size).items()}
    return message | {"unit": "ms, median"}


def _overhead(folder: Path, size: int) -> dict[str, float]:
    data = os.urandom(size)
    out = OutputFolder(folder)
    out.prepare()
    prints = Fingerprinter(model="m", schedule="s", dtype="bf16", quality=95, metadata="keep")
    durations: dict[str, list[float]] = {"atomic write": [], "hashes": [], "journal": []}
    plain: list[float] = []
    with OutputLock(out.path) as lock:
        lock.acquire()
        journal = Journal(out.path)
        for number in range(300):
            item = EditItem(
                id=str(number), images=(Path("a.png"),), instruction="x", sampling=Sampling(), basesize=256,
                size=None, output=f"{number}.png", origin=Origin(file="m"),
            )  # fmt: skip
            start = time.perf_counter()
            out.write_bytes(item.output, data)
            written = time.perf_counter()
            fingerprint, digest = prints.of(item, ["0" * 64]), sha256(data).hexdigest()
            hashed = time.perf_counter()
            journal.append(result_of(item, fingerprint, data, digest, Seen("0" * 64, Stamp(1, 2, 3))))
            ended = time.perf_counter()
            durations["atomic write"].append(written - start)
            durations["hashes"].append(hashed - written)
            durations["journal"].append(ended - hashed)
            with open(folder / "plain", "wb") as file:  # the same bytes, brought to the disk and no more
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            plain.append(time.perf_counter() - ended)
        journal.close()
    sums = [sum(parts) for parts in zip(*durations.values(), strict=True)]
    medians = {name: 1000 * statistics.median(values) for name, values in durations.items()}
    return medians | {
        "an item": 1000 * statistics.median(sums),
        "bytes to the disk alone": 1000 * statistics.median(plain),
        "an item above that": 1000 * statistics.median(a - b for a, b in zip(sums, plain, strict=True)),
    }


def manifest(folder: Path) -> dict[str, Any]:
    """A million lines checked, planned and journaled, without editing them and without the journal's fsyncs."""
    os.fsync = lambda handle: None
    source, config = request(folder, write_manifest(folder, MANIFEST, each_its_own=False))
    start = time.process_time()
    source.check()
    checked = time.process_time()
    out = OutputFolder(config.output)
    out.prepare()
    journal = Journal(out.path)
    seen, hashes = Seen("0" * 64, Stamp(1, 2, 3)), HashCache()
    prints = Fingerprinter(model="m", schedule="s", dtype="bf16", quality=95, metadata="keep")
    timestamps = []
    count = 0
    for batch in plan(source.items(), 8, config.window):
        assert isinstance(batch, Batch)
        for sized in batch.items:
            sha = hashes.sha256(os.fspath(sized.item.images[0])).sha256
            journal.append(result_of(sized.item, prints.of(sized.item, [sha]), b"", "0" * 64, seen))
            count += 1
            if count % (MANIFEST // 10) == 0:
                timestamps.append(time.process_time())
    journal.close()
    tenths = [later - earlier for earlier, later in zip([checked, *timestamps], timestamps, strict=False)]
    planned = time.process_time()
    Journal(out.path).close()
    return {
        "check": checked - start,
        "plan and journal": planned - checked,
        "first tenth": tenths[0],
        "last tenth": tenths[-1],
        "journal opened again": time.process_time() - planned,
        "unit": "s of CPU time",
        "peak memory in MB": peak(),
    }


def resume(folder: Path) -> dict[str, Any]:
    """100,000 finished items, each with a picture of its own, and the same command again."""
    path = write_manifest(folder, FINISHED, each_its_own=True)
    source, config = request(folder, path)
    source.check()
    out = OutputFolder(config.output)
    out.prepare()
    journal = Journal(out.path)
    info = FakeBackend(config).info
    prints = Fingerprinter.for_run(config, info.identity, info.schedule, info.dtype)
    shared = str(Shared.of(prints, source.shared(), source=source.name, output=config.output))
    data = (folder / "in" / "0.png").read_bytes()
    digest = sha256(data).hexdigest()
    fsync, os.fsync = os.fsync, lambda handle: None  # only here, while the finished run is made up
    for item in source.items():
        assert isinstance(item, EditItem)
        place = out.path / item.output
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        seen = Seen(digest, Stamp.of(os.stat(item.images[0])))
        journal.append(result_of(item, prints.of(item, [digest]), data, digest, seen, shared))
    journal.close()
    os.fsync = fsync
    message: dict[str, Any] = {}
    for name, trust in (("trusting the journal", True), ("hashing all again", False)):
        source, config = request(folder, path, trust_journal=trust)
        start, cpu = time.perf_counter(), time.process_time()
        outcome = run(
            source,
            config,
            load_backend=FakeBackend,
            describe=describe_without_loading,
            progress=NoProgress(),
        )
        message[name] = time.perf_counter() - start
        message[f"{name}, CPU time"] = time.process_time() - cpu
        assert (outcome.report.skipped, outcome.report.batches) == (FINISHED, 0)
    source, config = request(folder, path, seed=7)
    start = time.perf_counter()
    try:
        run(source, config, load_backend=FakeBackend, describe=describe_without_loading, progress=NoProgress())
    except UsageError:
        message["refusing to replace all of them"] = time.perf_counter() - start
    return message | {"unit": "s", "peak memory in MB": peak()}


class Forgetful(FakeBackend):
    """The fake keeps the ids of all batches, for tests; here they would count as the run's memory."""

    def encode(self, batch: ReadyBatch) -> FakeLatents:
        self.batches.clear()
        return super().encode(batch)


def whole_run(folder: Path) -> dict[str, Any]:
    """20,000 items edited by the fake: is the time an item constant, is the memory flat?"""
    source, config = request(folder, write_manifest(folder, 20_000, each_its_own=False), batch_size="8")
    timestamps: list[tuple[float, float]] = []

    class Marks(NoProgress):
        done = 0

        def result(self, result: ItemResult, line: str) -> None:
            self.done += 1
            if self.done % 2000 == 0:
                timestamps.append((time.perf_counter(), peak()))

    start = time.perf_counter()
    outcome = run(source, config, load_backend=Forgetful, progress=Marks())
    assert outcome.exit_code == 0
    return {
        "an item, first tenth": 1000 * (timestamps[0][0] - start) / 2000,
        "an item, last tenth": 1000 * (timestamps[-1][0] - timestamps[-2][0]) / 2000,
        "unit": "ms",
        "peak memory in MB after a tenth": timestamps[0][1],
        "peak memory in MB at the end": timestamps[-1][1],
    }


def million(folder: Path, count: int = EDITED, minutes: float = MINUTES) -> dict[str, Any]:
    """`count` items edited by the fake as far as `minutes` reach, looked at ten times on the way; then the resume."""
    path = write_manifest(folder, count, each_its_own=False)
    source, config = request(folder, path, batch_size="8", max_duration=f"{60 * minutes:.0f}s")
    timestamps: list[tuple[float, float, float, int]] = []

    class Marks(NoProgress):
        done = 0

        def result(self, result: ItemResult, line: str) -> None:
            self.done += 1
            if self.done % max(count // 200, 1) == 0:
                timestamps.append((time.perf_counter(), time.process_time(), resident(), self.done))

    seen = Marks()
    outcome = run(source, config, load_backend=Forgetful, progress=seen)
    assert outcome.report.failed == 0
    done = seen.done
    message: dict[str, Any] = {"items": done, "minutes": outcome.report.seconds / 60, "peak memory in MB": peak()}
    picked = [timestamps[0], *(timestamps[(len(timestamps) - 1) * tenth // 10] for tenth in range(1, 11))]
    for before, after in pairwise(picked):
        each = 1000 / (after[3] - before[3])
        times = [(after[n] - before[n]) * each for n in (0, 1)]
        message[f"at {after[3]} items"] = f"{after[2]:.0f} MB, {times[0]:.2f} ms an item, {times[1]:.2f} ms of CPU time"
    # What the time left in flight was finished, but not in order: of these items nearly all are done.
    source, config = request(folder, path, trust_journal=True, limit=done)
    start, cpu = time.perf_counter(), time.process_time()
    outcome = run(
        source,
        config,
        load_backend=FakeBackend,
        describe=describe_without_loading,
        progress=NoProgress(),
    )
    message["resume"] = time.perf_counter() - start
    message["resume, CPU time"] = time.process_time() - cpu
    assert outcome.report.skipped >= 0.99 * done
    assert outcome.report.ok == done
    return message | {"resume, edited anew": done - outcome.report.skipped, "unit": "s", "peak memory with it": peak()}


PARTS = {"overhead": overhead, "manifest": manifest, "resume": resume, "run": whole_run}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("parts", nargs="*", metavar="part", help=", ".join([*PARTS, "million"]))
    flags.add_argument("--count", type=int, default=EDITED)
    flags.add_argument("--minutes", type=float, default=MINUTES)
    flags.add_argument("--here", action="store_true", help="in this process, the figures as JSON")
    asked = flags.parse_args()
    if unknown := [name for name in asked.parts if name not in (*PARTS, "million")]:
        flags.error(f"no part is called {unknown[0]}")
    if asked.here:
        (name,) = asked.parts
        part = partial(million, count=asked.count, minutes=asked.minutes) if name == "million" else PARTS[name]
        with tempfile.TemporaryDirectory(dir=".") as folder:
            print(json.dumps({name: part(Path(folder).resolve())}))
        return
    for name in asked.parts or PARTS:
        command = [sys.executable, __file__, name, "--here", f"--count={asked.count}", f"--minutes={asked.minutes}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        for part, figures in json.loads(done.stdout).items():
            print(part)
            for label, value in figures.items():
                print(f"  {label:32} {value:.3g}" if isinstance(value, float) else f"  {label:32} {value}")


if __name__ == "__main__":
    main()
