"""What a run did, as one object (`Report`) for the table and for report.json.

The warm-up is the first batch: it includes compiling, the choice of kernels and the first use of memory.
Steady figures leave it out; they are null if there was no other batch.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from joyedit.job.spec import Settings
from joyedit.printable import printable, printable_json

State = Literal["running", "complete", "interrupted", "out_of_time", "stopped"]
"""A report that says `running` while no run is going on comes from a killed run."""


@lru_cache
def version_of(package: str) -> str | None:
    """The installed version of `package`; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def joyedit_version() -> str:
    """joyedit's own version; `0+unknown` where it runs without being installed."""
    return version_of("joyedit") or "0+unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageWork:
    """What the device did in one stage.

    `tflop` are 10^12 operations by formula, `seconds` the time of the batches that were finished, `tflops`
    the operations a second, `share` their share of the measured matmul ceiling.
    """

    tflop: float
    seconds: float
    tflops: float | None
    share: float | None

    @classmethod
    def of(cls, operations: int, seconds: float, ceiling: float | None) -> StageWork:
        """`ceiling` in TFLOP/s; None if it was not measured."""
        tflop = operations / 1e12
        tflops = tflop / seconds if seconds > 0 else None
        return cls(tflop=tflop, seconds=seconds, tflops=tflops, share=tflops / ceiling if tflops and ceiling else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    """Seconds without a batch on the device, and their share of `of_seconds`, the time after loading."""

    seconds: float
    of_seconds: float
    share: float

    @classmethod
    def of(cls, whole: float, busy: float) -> Idle:
        idle = max(0.0, whole - busy)
        return cls(seconds=idle, of_seconds=whole, share=idle / whole)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerWork:
    """What one worker process of a run did. `items` came back from it, finished or failed; `busy` are seconds in which
    its device had a batch, `idle` its seconds without one since it was loaded (None: it never was, and `device` is
    empty). `peak_memory` is in bytes of its device, `deaths` how often its process died. `exchanged` are the bytes that
    the first device of a group has sent to the others; None where a worker has one device.
    """

    worker: int
    device: str
    items: int
    batches: int
    busy: float
    idle: Idle | None
    peak_memory: int | None
    deaths: int
    exchanged: int | None = None

    def text(self) -> str:
        """For the table."""
        told = [f"{self.device or 'was never ready'}: {self.items} items in {self.batches} batches"]
        told.append(f"busy {seconds_text(self.busy)}")
        if self.idle is not None:
            told.append(f"idle {self.idle.share:.1%}")
        if self.peak_memory is not None:
            told.append(f"peak memory {_bytes(self.peak_memory)}")
        if self.exchanged is not None:
            told.append(f"sent {_bytes(self.exchanged)} to the other ranks")
        if self.deaths:
            told.append("died once" if self.deaths == 1 else f"died {self.deaths} times")
        return ", ".join(told)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One complete run. Times are seconds, memory is bytes, timestamps are UTC in ISO 8601.

    `items` have a record now. An earlier run did `skipped` of the `ok` ones. `left` were not edited: they have no
    record, or a finished picture that differs from what was asked (null: only the end of the source would tell).
    `missing` were counted at the start and did not come. `error` is what stopped the run. `batches` and
    `images_per_second` count this run alone; the latter is all finished pictures over all the time after loading.
    `asked` is what the ids of the items depend on, and the hash of what they share. Of the run of a shard, `shard`
    holds its number, `of` how many there are, its items, and the items of all shards (null: nobody counted them).

    `seconds` is the time by the clock, `stages` the time in each stage (the sum over all threads for reading
    and writing), `waited` the time in which the device waited for pictures to be read or written. Stages
    overlap, because the device encodes one batch while it works on another. `compile_seconds` is part of the
    stage `load`. `device_work` holds the operations of each stage if the backend counts them, `matmul_tflops`
    the measured ceiling. `predicted_peak` is the device memory that the memory model expected.
    `speed` says what steps were to leave out: the level, each part with its figures, and the loss where a
    level's was measured. `computed` counts over all
    items of this run how often a block of the DiT ran and did not; None where nothing was left out.
    `write` is the layout of the output where it is another one than loose pictures: its `format`, and of shards their
    `shard_size`, how many lie there `complete` and `partial`, and how many are `waiting` for a picture.
    `workers` are the processes that shared the work, none for a run in one process; with some, `device_idle` is the sum
    over their devices, and a memory of the device the largest of them.
    """

    state: State
    exit_code: int
    error: str | None
    started: str
    ended: str
    seconds: float
    source: str
    asked: Mapping[str, Any]
    output: str
    items: int
    ok: int
    skipped: int
    failed: int
    left: int | None
    missing: int
    failed_by_code: Mapping[str, int]
    passed_over: int
    passed_over_files: Sequence[Mapping[str, str]]
    batches: int
    stages: Mapping[str, float]
    waited: Mapping[str, float]
    device_work: Mapping[str, StageWork]
    matmul_tflops: float | None
    device_idle: Idle | None
    workers: Sequence[WorkerWork] = ()
    images_per_second: float | None
    warm_up: Mapping[str, Any] | None
    steady: Mapping[str, Any] | None
    peak_memory: Mapping[str, int | None]
    predicted_peak: int | None
    model: str
    layout: str
    device: str
    dtype: str
    precision: str
    attention: str
    schedule: str
    placement: str
    fused: bool
    compile: bool
    compile_seconds: float
    batch_size: int | str
    settings: Settings
    notes: tuple[str, ...]
    versions: Mapping[str, str | None]
    shard: Mapping[str, int | None] | None = None
    speed: Mapping[str, Any] | None = None
    computed: Mapping[str, Any] | None = None
    write: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        assert self.items == self.ok + self.failed, "the counts of items do not add up"
        assert self.failed == sum(self.failed_by_code.values()), "failed items and their codes do not add up"

    def to_json(self) -> str:
        """report.json."""
        text = json.dumps(_rounded(asdict(self)), indent=2, ensure_ascii=False)
        return printable_json(text) + "\n"

    def rows(self) -> list[tuple[str, str]]:
        """The rows of the table: label and text."""
        failures = ", ".join(f"{code} {count}" for code, count in sorted(self.failed_by_code.items()))
        rows = [
            (
                "items",
                f"{self.items}: {self.ok} ok, {self.failed} failed" + (f" ({failures})" if failures else ""),
            ),
        ]
        if self.shard is not None:
            rows.insert(0, ("shard", shard_text(self.shard)))
        if self.skipped:
            rows.append(("done before", f"{self.skipped} of them"))
        if self.left:
            rows.append(("left", f"{self.left} (not edited)"))
        if self.missing:
            rows.append(("missing", f"{self.missing} (counted at the start, gone since)"))
        if self.write is not None and "waiting" in self.write:
            rows.append(("shards", _shards(self.write)))
        if self.passed_over:
            rows.append(("passed over", f"{self.passed_over} files and folders (-v names them)"))
        rows.append(("batches", str(self.batches)))
        for stage, seconds in self.stages.items():
            # Threads read and write, and what each of them takes is added up.
            threads = " (all threads together)" if stage in ("read", "write") and seconds > self.seconds else ""
            rows.append((stage, _stage(seconds, self.device_work.get(stage)) + threads))
        if self.matmul_tflops is not None:
            rows.append(("matmul ceiling", f"{self.matmul_tflops:.3g} TFLOP/s"))
        rows.append(("device waited", _waited(self.waited)))
        if self.device_idle is not None:
            idle = self.device_idle
            of = f"{seconds_text(idle.seconds)} of {seconds_text(idle.of_seconds)} after loading"
            rows.append(("device idle", f"{idle.share:.1%} ({of})"))
        rows += [(f"worker {work.worker}", work.text()) for work in self.workers]
        rows.append(("total", seconds_text(self.seconds)))
        if self.images_per_second is not None:
            rows.append(("images a second", f"{self.images_per_second:.3g} (all, after loading)"))
        if self.warm_up is not None:
            images = self.warm_up["images"]
            rows.append(("warm-up", f"{seconds_text(self.warm_up['seconds'])} for the first batch ({images} images)"))
        if self.steady is not None:
            rows.append(("steady", _steady(self.steady)))
        elif self.warm_up is not None:
            rows.append(("steady", "no figure: there was only the warm-up batch"))
        memory = ", ".join(f"{where} {_bytes(count)}" for where, count in self.peak_memory.items() if count is not None)
        if self.predicted_peak is not None:
            memory += f" (device predicted {_bytes(self.predicted_peak)})"
        rows.append(("peak memory", memory or "unknown"))
        rows.append(("model", f"{printable(self.model)} ({self.layout})"))
        compiled = f", compiled in {seconds_text(self.compile_seconds)}" if self.compile else ""
        fused = ", fused kernels" if self.fused else ""
        precision = "" if self.precision == "exact" else f", {self.precision} products"
        rows.append(("device", f"{self.device}, {self.dtype}{precision}, attention {self.attention}{fused}{compiled}"))
        if self.placement:
            rows.append(("weights", self.placement))
        rows.append(("schedule", self.schedule))
        if self.computed is not None:
            rows.append(("computed", _computed(self.computed)))
        rows.append(("output", printable(self.output)))
        return rows


def shard_text(shard: Mapping[str, int | None]) -> str:
    """`3 of 16: 312 of 5,000 items`, without the counts where nobody counted."""
    text = f"{shard['number']} of {shard['of']}"
    items, whole = shard["items"], shard["whole"]
    return text if items is None or whole is None else f"{text}: {items:,} of {whole:,} items"


def versions() -> dict[str, str | None]:
    """Versions of the packages that make a picture; None for a package that is not installed."""
    return {
        "joyedit": joyedit_version(),
        "python": platform.python_version(),
        "torch": version_of("torch"),
        "transformers": version_of("transformers"),
        "pillow": version_of("pillow"),
    }


def host_peak_memory() -> int | None:
    """The most memory that this process has used, in bytes; None if the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def seconds_text(seconds: float | None) -> str:
    """A duration in words: `0.012 s`, `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _stage(seconds: float, work: StageWork | None) -> str:
    message = seconds_text(seconds)
    if work is None or work.tflops is None:
        return message
    message += f", {work.tflops:.3g} TFLOP/s"
    return message if work.share is None else f"{message} ({work.share:.0%} of the ceiling)"


def _waited(waited: Mapping[str, float]) -> str:
    return ", ".join(f"{seconds_text(seconds)} for {stage}" for stage, seconds in waited.items())


def _steady(steady: Mapping[str, Any]) -> str:
    spread, rate = steady["seconds_an_image"], steady["images_per_second"]
    each = f"{seconds_text(spread['median'])} an image (median), {seconds_text(spread['p95'])} (p95)"
    return each if rate is None else f"{rate:.3g} images a second; {each}"


def _shards(write: Mapping[str, Any]) -> str:
    told = [f"{write['complete']:,} complete"]
    told += [f"{write[name]:,} {name}" for name in ("partial", "waiting") if write[name]]
    return f"{', '.join(told)} ({write['format']})"


def _computed(counts: Mapping[str, Any]) -> str:
    left_out = f"{counts['reused']:,} were reused, {counts['unguided']:,} were of a branch whose guidance was kept"
    told = f"{counts['share']:.1%} of the DiT's blocks: {counts['block_steps']:,} ran, {left_out}"
    return told + (f"; {counts['share_of_tokens']:.1%} of their tokens" if "share_of_tokens" in counts else "")


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _rounded(value: Any) -> Any:
    """`value` with every float rounded to microseconds."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_rounded(part) for part in value]
    return value
