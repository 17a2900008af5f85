"""failed.jsonl: the items whose last record is a failure, as a manifest that edits just them again.

Each line holds all of the item: its instruction with any template filled in, its settings, absolute
paths of its pictures. Only a line of the source that never was an item has no place in it.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, BinaryIO

from joyedit.job.results.journal import Journal
from joyedit.job.results.output_folder import OutputFolder

FAILED = "failed.jsonl"
_SETTINGS = ("negative_prompt", "seed", "steps", "guidance_scale", "basesize")


def write_failed(folder: OutputFolder, journal: Journal) -> int:
    """Write failed.jsonl, or remove it if nothing failed; gives the number of its lines.

    Raises `OutputError`.
    """
    count = 0

    def fill(file: BinaryIO) -> None:
        nonlocal count
        for record in journal.failures():
            line = manifest_line(record)
            if line is not None:
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "strict") + b"\n")
                count += 1

    if any(manifest_line(record) is not None for record in journal.failures()):
        folder.write(FAILED, fill)
    else:
        with contextlib.suppress(OSError):
            (folder.path / FAILED).unlink(missing_ok=True)
    return count


def manifest_line(record: dict[str, Any]) -> dict[str, Any] | None:
    """The item of a failed record as a line of a manifest; None if it cannot be written as one."""
    settings, output = record.get("settings"), record.get("planned_output")
    if not isinstance(settings, dict) or not settings or not isinstance(output, str):
        return None
    line: dict[str, Any] = {"id": record["id"], "instruction": record["instruction"], "output": output}
    inputs = record["inputs"]
    if inputs:
        line |= {"image": inputs[0]} if len(inputs) == 1 else {"images": inputs}
    line |= {key: settings[key] for key in _SETTINGS}
    if settings["width"] is not None:
        line |= {"width": settings["width"], "height": settings["height"]}
    try:
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None
    return line
