"""A record of results.jsonl -> one flat row. docs/exports.md says how.

A key of a table in a record becomes `table_key`. What is nested deeper is JSON text; a list of texts stays a list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from joyedit.job.results.all_records import FinalRecord

FIRST = (
    *("id", "status", "output", "instruction", "inputs", "input_sha256", "width", "height"),
    *("bucket_width", "bucket_height", "error_code", "error_message", "notes"),
    *("settings_seed", "settings_steps", "settings_guidance_scale", "settings_negative_prompt", "settings_basesize"),
    *("settings_size", "settings_fit", "settings_model", "settings_schedule", "settings_dtype", "settings_attention"),
    *("settings_joyedit", "seconds", "seconds_read", "seconds_encode", "seconds_denoise", "seconds_decode"),
    *("seconds_write", "source_file", "source_line", "output_bytes", "output_sha256", "fingerprint", "shared", "shard"),
    "at",
)
"""The columns of every export, in order. Others follow in the order in which records bring them."""

_TABLES = ("error", "settings", "seconds", "source", "fit", "drift", "computed", "parts")
_OTHERS = ("id", "status", "instruction", "inputs", "notes", "output_bytes", "output_sha256", "fingerprint", "shared",
           "planned_output", "replaces", "earlier", "chain", "loras", "at")  # fmt: skip
_OWN = {*FIRST, *_OTHERS, "mask_path", "mask_share", "mask_sha256"}
CARRIED = "columns"


def row_of(found: FinalRecord) -> dict[str, Any]:
    """The row: names of columns and values, which are texts, numbers, True, False, None, and lists of texts."""
    record = found.record
    row: dict[str, Any] = {
        "id": record["id"],
        "status": record["status"],
        "output": found.output,
        "shard": None if found.shard is None else f"{found.shard.shard.number}/{found.shard.shard.of}",
        "input_sha256": _hashes(record.get("inputs_seen")),
    }
    row |= {name: flat(record[name]) for name in _OTHERS if name in record and name not in row}
    for name in _TABLES:
        table = record.get(name)
        for key, value in table.items() if isinstance(table, dict) else ():
            row[f"{name}_{key}"] = flat(value)
    row |= _size("", record.get("size")) | _size("bucket_", record.get("bucket"))
    row["seconds"] = _total(record.get("seconds"))
    mask = record.get("mask")
    if isinstance(mask, dict):
        seen = mask.get("seen")
        row |= {"mask_path": flat(mask.get("path")), "mask_share": flat(mask.get("share"))}
        row["mask_sha256"] = seen[0] if isinstance(seen, list) and seen and isinstance(seen[0], str) else None
    carried = record.get(CARRIED)
    for key, value in carried.items() if isinstance(carried, dict) else ():
        row[whole(_carried_name(str(key)))] = flat(value)
    return {name: whole(value) if isinstance(value, str) else value for name, value in row.items()}


def _carried_name(key: str) -> str:
    """The column of a carried key: its own name, unless that is the name of a column of joyedit's own."""
    is_own = key in _OWN or any(key.startswith(f"{table}_") for table in (*_TABLES, CARRIED))
    return f"{CARRIED}_{key}" if is_own else key


def flat(value: Any) -> Any:
    """A value that a cell can hold."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [whole(one) for one in value]
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return value


def whole(text: str) -> str:
    """The text in characters that UTF-8 has: a byte of a file name that is none is written as an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _size(prefix: str, size: Any) -> dict[str, Any]:
    if not (isinstance(size, list) and len(size) == 2):
        return {}
    return {f"{prefix}height": size[0], f"{prefix}width": size[1]}


def _hashes(seen: Any) -> list[str] | None:
    if not isinstance(seen, list) or not seen:
        return None
    found = [one[0] for one in seen if isinstance(one, list) and one and isinstance(one[0], str)]
    return found if len(found) == len(seen) else None


def _total(seconds: Any) -> float | None:
    if not isinstance(seconds, Mapping) or not seconds:
        return None
    return round(sum(one for one in seconds.values() if isinstance(one, (int, float))), 6)
