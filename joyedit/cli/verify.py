"""`joyedit verify OUT` and `joyedit status OUT`: what an output folder holds, without a model."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from joyedit.cli import console
from joyedit.errors import EXIT_OK, EXIT_SOME_FAILED

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        help="An output folder of joyedit run, or the address of an object store that it wrote to.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="Compare with this source instead of the last run's. Records of ids that it lacks are reported then.",
        show_default=False,
    ),
]
SHOWN = 20


def verify_command(folder: Folder, source: Source = None, json: Json = False) -> None:
    """Check that every record has its picture, every picture a record, and every item of the source a record.

    Prints one line for each difference, then the counts. Of shards that are not merged it checks each, and that each
    item of the source is in one of them. Exit codes: 0 all is in order, 2 the folder is not an output
    folder of joyedit, 3 something differs, or items failed.
    """
    from joyedit.job.results.objects.reading import output_to_read

    with output_to_read(folder) as (local, who):
        code = _verify(local, who, source, json)
    raise typer.Exit(code)


def _verify(folder: Path, writer: dict[str, object] | None, source: str | None, json: bool) -> int:
    """Check this folder; gives the exit code. `writer` is who writes to the output now."""
    from dataclasses import asdict

    from joyedit.job.results.lock import holder, holder_text
    from joyedit.job.results.shard_folders import shard_folders
    from joyedit.job.results.verify import Counts, verify
    from joyedit.job.results.verify_shards import verify_shards
    from joyedit.printable import printable

    counts = Counts()
    shards = shard_folders(folder)
    mismatches = verify_shards(folder, counts, source) if shards else verify(folder, counts, source)
    for path, who in ((folder, writer), *((one.path, holder(one.path)) for one in shards)):
        if who is not None:
            told = f"a run is writing to {path} now ({holder_text(who)})" if shards else "a run is writing here now"
            told += "" if shards else f" ({holder_text(who)})"
            console.message(f"{told}: items of its running batches look unfinished")
    for mismatch in mismatches:
        if json:
            console.result(jsonlib.dumps(asdict(mismatch)))
        elif mismatch.kind != "no_record" or counts.mismatches["no_record"] <= SHOWN:
            parts = [mismatch.kind, mismatch.id, mismatch.file, mismatch.message]
            console.result(": ".join(printable(part) for part in parts if part is not None))
    failed = counts.failed.total()
    if not json and counts.mismatches["no_record"] > SHOWN:
        console.result(
            f"no_record: {counts.mismatches['no_record'] - SHOWN} more items (use --json to see all of them)"
        )
    if counts.unread is not None:
        console.message(f"only the number of items is compared, not their ids: {counts.unread}")
    if json:
        summary = {
            "records": counts.records,
            "ok": counts.ok,
            "failed": failed,
            "failed_by_code": dict(counts.failed),
            "expected": counts.expected,
            "left": counts.left,
            "unknown": counts.unknown,
            "files": counts.files,
            "findings": dict(counts.mismatches),
        }
        console.result(jsonlib.dumps({"summary": summary}))
    else:
        left = "" if counts.left is None else f", left {counts.left}"
        left += f", not in the source {counts.unknown}" if counts.unknown else ""
        off = counts.mismatches.total()
        console.result(
            f"records {counts.records}, ok {counts.ok}, failed {failed}{left}, files {counts.files}, off {off}"
        )
    return EXIT_SOME_FAILED if failed or counts.mismatches else EXIT_OK


def status_command(folder: Folder, json: Json = False) -> None:
    """Show how far a run is: items done, failed by code, left, and the rate. Works while the run goes on, too.

    Of shards that are not merged it shows each, and their sum. Exit codes: 0 all items are done or a run is editing
    them, 2 the folder is not an output folder of joyedit, 3 items failed, or items are left and no run is editing them.
    """
    from joyedit.job.results.objects.reading import output_to_read

    with output_to_read(folder) as (local, who):
        code = _status(local, who, json)
    raise typer.Exit(code)


def _status(folder: Path, writer: dict[str, object] | None, json: bool) -> int:
    """Print the status of this folder; gives the exit code. `writer` is who writes to the output now."""
    from dataclasses import asdict

    from joyedit.job.results.lock import holder_text
    from joyedit.job.results.report import seconds_text
    from joyedit.job.results.shard_status import tree_status
    from joyedit.job.results.status import status
    from joyedit.job.writing.packed_shards import PackedShards

    tree = tree_status(folder)
    if tree is not None:
        from joyedit.cli.shard_rows import rows_of

        if json:
            console.result(jsonlib.dumps(tree.as_json()))
        else:
            console.table(rows_of(tree))
        return EXIT_SOME_FAILED if tree.is_off else EXIT_OK
    found = status(folder, lambda path: writer)
    shards = PackedShards.of(folder, found)
    if json:
        told = asdict(found) | {"shards": None if shards is None else asdict(shards)}
        console.result(jsonlib.dumps(told))
    else:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(found.failed_by_code.items()))
        rows = [
            ("state", found.state if found.holder is None else f"{found.state} ({holder_text(found.holder)})"),
            ("done", str(found.done)),
            ("failed", f"{found.failed} ({codes})" if codes else str(found.failed)),
            ("left", "unknown" if found.left is None else str(found.left)),
        ]
        if shards is not None:
            rows.append(("shards", shards.text()))
        if found.rate is not None:
            rows.append(("rate", f"{found.rate:.2g} items a second"))
            if found.left and found.holder is not None:
                rows.append(("time left", seconds_text(found.left / found.rate)))
        console.table(rows)
    return EXIT_SOME_FAILED if found.is_off else EXIT_OK
