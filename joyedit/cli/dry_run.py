"""`joyedit run --dry-run`: the batches as they would be formed. Loads no model and writes nothing."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator
from typing import Any

from joyedit.cli import console
from joyedit.cli.settings_in_force import in_force
from joyedit.errors import EXIT_OK, EXIT_SOME_FAILED
from joyedit.job.plan import plan
from joyedit.job.results.output_folder import OutputFolder
from joyedit.job.results.records import line_of
from joyedit.job.spec import Batch, FailedItem, Size
from joyedit.request import Request

ASSUMED_BATCH_SIZE = 4
"""Stands for `--batch-size auto`, which only a device can settle."""


def dry_run(request: Request, *, json: bool, quiet: bool) -> int:
    """Print one line for each batch and each item that would fail, then the counts; gives the exit code."""
    config = request.config
    OutputFolder(config.output).check()
    summary = request.source.check()
    if not quiet:
        for label, value in in_force(request, summary):
            console.message(f"{label}: {value}")
        if config.batch_size is None:
            console.message(f"batch size: auto, shown with {ASSUMED_BATCH_SIZE} (a run measures what fits its device)")
    counts = {"items": 0, "batches": 0, "failed": 0, "passed_over": summary.passed_over}
    planned = plan(request.source.items(), config.batch_size or ASSUMED_BATCH_SIZE, config.window)
    for entry in planned:
        if isinstance(entry, Batch):
            counts["batches"] += 1
            counts["items"] += len(entry.items)
        else:
            counts["failed"] += 1
            counts["items"] += 1
        if json:
            console.result(line_of(_record(entry)))
        elif not quiet:
            console.result(_line(entry))
    if json:
        console.result(jsonlib.dumps({"summary": counts}))
    elif not quiet:
        console.result(", ".join(f"{label.replace('_', ' ')} {count}" for label, count in counts.items()))
    return EXIT_SOME_FAILED if counts["failed"] else EXIT_OK


def _line(entry: Batch | FailedItem) -> str:
    if isinstance(entry, FailedItem):
        return f"failed: {entry.id}: {entry.code}: {entry.message}"
    first = entry.items[0]
    references = " + ".join(_size(size) for size in first.references) or "no reference"
    return (
        f"batch {entry.index}: {_size(first.target)} from {references}, "
        f"{first.item.sampling.steps} steps, {len(entry.items)}: {', '.join(_ids(entry))}"
    )


def _record(entry: Batch | FailedItem) -> dict[str, Any]:
    if isinstance(entry, FailedItem):
        return {
            "failed": entry.id,
            "error": {"code": entry.code, "message": entry.message},
            "source": {"file": entry.origin.file, "line": entry.origin.line},
        }
    first = entry.items[0]
    return {
        "batch": entry.index,
        "bucket": list(first.target),
        "references": [list(size) for size in first.references],
        "steps": first.item.sampling.steps,
        "items": list(_ids(entry)),
    }


def _ids(batch: Batch) -> Iterator[str]:
    return (sized.item.id for sized in batch.items)


def _size(size: Size) -> str:
    """Height x width, as buckets are named throughout."""
    return f"{size[0]}x{size[1]}"
