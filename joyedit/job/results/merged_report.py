"""report.json of an output folder that shards were merged into: their sum, and what each of them did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from joyedit.errors import EXIT_OK, EXIT_SOME_FAILED
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import error_code
from joyedit.job.results.report import seconds_text
from joyedit.job.results.shard_folders import ShardFolder, missing_shards
from joyedit.job.results.status import state_of
from joyedit.job.shard import Shard, missing_text
from joyedit.job.speed.settings import BlockSteps
from joyedit.printable import printable_json

_COMMON = (
    "source", "passed_over", "passed_over_files", "model", "layout", "device", "dtype", "precision", "attention",
    "schedule", "placement", "fused", "compile", "batch_size", "settings", "notes", "versions", "speed",
)  # fmt: skip
"""What is the same for all shards, or is told of one of them."""
_UNKNOWN = ("images_per_second", "warm_up", "steady", "device_idle", "matmul_tflops", "predicted_peak")
"""Figures of one process: each shard has its own."""
_OWN = ("started", "ended", "stages", "waited", "peak_memory", "computed")
"""What each shard has of its own, from which that of all is made."""
_SUMS = ("seconds", "batches", "skipped", "missing", "compile_seconds")


def summary_of(folder: ShardFolder, journal: Journal, report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a shard: counts from its records, and the rest from its report."""
    failed = sum(1 for _ in journal.failures())
    of_shard = report.get("shard")
    whole = of_shard.get("whole") if isinstance(of_shard, dict) else None
    return {
        "number": folder.shard.number,
        "of": folder.shard.of,
        "state": state_of(dict(report), None),
        "items": len(journal),
        "ok": len(journal) - failed,
        "failed": failed,
        "left": report.get("left"),
        "whole": whole,
        "asked": report.get("asked"),
        **{key: report.get(key) for key in (*_OWN, *_SUMS, *_COMMON)},
    }


def report_text(before: Mapping[str, Any], shard: Shard, summary: dict[str, Any], journal: Journal, out: Path) -> str:
    """report.json with this shard. `before` is the one that is there, `journal` the merged records."""
    shards: dict[str, dict[str, Any]] = {}
    known = before.get("shards")
    if isinstance(known, dict):
        shards = {name: one for name, one in known.items() if isinstance(one, dict)}
    shared = {key: summary.pop(key) for key in _COMMON}
    asked = summary.pop("asked")
    shards[shard.folder] = summary
    whole = max(_numbers(one.get("whole") for one in shards.values()), default=None)  # a retry counts fewer
    report = {**_unless_known(shared, before), **_whole(asked, whole, before), **_sums(shards), **_counts(journal)}
    missing = missing_shards([ShardFolder(shard, out)], shards)
    expected = report["expected"]
    left = None if expected is None else max(0, expected - report["items"])
    are_complete = not missing and all(one.get("state") == "complete" for one in shards.values())
    is_complete = not left if left is not None else are_complete
    report |= {
        "state": "complete" if is_complete else "stopped",
        "exit_code": EXIT_SOME_FAILED if report["failed"] or not is_complete else EXIT_OK,
        "error": None if is_complete or not missing else missing_text(missing, shard.of),
        "output": str(out),
        "left": left,
        "shards": shards,
    }
    return printable_json(json.dumps(report, indent=2, ensure_ascii=False)) + "\n"


def rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of the table that `joyedit merge` prints."""
    codes = ", ".join(f"{code} {count}" for code, count in sorted(report["failed_by_code"].items()))
    failed = f"{report['failed']} failed" + (f" ({codes})" if codes else "")
    found = [("items", f"{report['items']}: {report['ok']} ok, {failed}")]
    if report.get("left"):
        found.append(("left", f"{report['left']} (not edited)"))
    count = len(report["shards"])
    found.append(
        ("total", f"{seconds_text(report['seconds'])}, " + ("1 shard" if count == 1 else f"in {count} shards"))
    )
    return found


def _unless_known(shared: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What all shards share; of a shard without a report what is known from others."""
    return {key: before.get(key) if value is None else value for key, value in shared.items()}


def _whole(asked: object, whole: object, before: Mapping[str, Any]) -> dict[str, Any]:
    """The whole source: what the ids depend on, without the shard, and how many items it has."""
    known = asked if isinstance(asked, dict) else before.get("asked")
    given = {key: value for key, value in (known if isinstance(known, dict) else {}).items() if key != "shard"}
    expected = whole if isinstance(whole, int) else before.get("expected")
    return {"asked": given, "expected": expected if isinstance(expected, int) else None}


def _sums(shards: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    all_of = list(shards.values())
    made: dict[str, Any] = {key: round(sum(_numbers(one.get(key) for one in all_of)), 6) for key in _SUMS}
    for key in ("stages", "waited"):
        total: Counter[str] = Counter()
        for one in all_of:
            table = one.get(key)
            for name, value in table.items() if isinstance(table, dict) else ():
                total[name] += value
        made[key] = {name: round(value, 6) for name, value in total.items()}
    peaks: dict[str, Any] = {}
    for one in all_of:
        table = one.get("peak_memory")
        for name, value in table.items() if isinstance(table, dict) else ():
            peaks[name] = max(_numbers((value, peaks.get(name))), default=None)
    started = [text for one in all_of if isinstance(text := one.get("started"), str)]
    ended = [text for one in all_of if isinstance(text := one.get("ended"), str)]
    times = {"started": min(started, default=None), "ended": max(ended, default=None)}
    made["computed"] = _computed(one.get("computed") for one in all_of)
    return {**times, **made, "peak_memory": peaks, "device_work": {}, **dict.fromkeys(_UNKNOWN)}


def _computed(tables: Iterable[object]) -> dict[str, Any] | None:
    """What ran of the steps in all shards; None where nothing was left out."""
    names = ("block_steps", "reused", "unguided", "tokens", "tokens_left_out")
    # Those of tokens stand only in the reports of runs with regions.
    absent = {"tokens": 0, "tokens_left_out": 0}
    counts = [_numbers((absent | table).get(name) for name in names) for table in tables if isinstance(table, dict)]
    known = [BlockSteps(*map(int, one)) for one in counts if len(one) == len(names)]
    return BlockSteps.total(known).as_record() if known else None


def _numbers(values: Iterable[object]) -> list[float]:
    return [value for value in values if isinstance(value, (int, float))]


def _counts(journal: Journal) -> dict[str, Any]:
    codes = Counter(error_code(record) or "unknown" for record in journal.failures())
    items, failed = len(journal), codes.total()
    return {"items": items, "ok": items - failed, "failed": failed, "failed_by_code": dict(codes)}
