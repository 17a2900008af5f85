"""Messages as events: one JSON object a line on stderr, in place of text (`--log-format json`).

`EVENTS` is the table of all events and of the fields that each may have beside those of every line; docs/logs.md has
the same table. A line is ASCII alone, so no encoding of a terminal or of a log can break it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]

ALWAYS = ("time", "level", "event", "message")
"""The fields of every line. `message` is what text mode prints, or a short sentence."""

EVENTS: Mapping[str, tuple[str, ...]] = {
    "start": ("command", "version", "pid"),
    "download": ("bytes", "total_bytes"),
    "loading": ("model",),
    "loaded": (
        *("model", "layout", "device", "dtype", "precision", "attention", "schedule", "placement"),
        *("items", "batch_size", "seconds"),
    ),
    "settings": ("settings",),
    "passed_over": ("path", "reason", "count"),
    "progress": ("done", "total", "items_per_second", "seconds_left", "step", "steps"),
    "item_finished": ("id", "output", "seconds", "stages", "notes"),
    "item_failed": ("id", "code", "seconds", "stages", "file", "line"),
    "skipped": ("reason", "count"),
    "stopping": ("reason",),
    "stopped": ("exit_code",),
    "summary": ("state", "items", "ok", "skipped", "failed", "failed_by_code", "left", "seconds", "output", "page"),
    "message": (),
    "warning": ("category", "file", "line"),
    "error": ("exit_code", "problems", "remedy"),
    "traceback": (),
    "output": (),
    "end": ("command", "exit_code", "seconds"),
}
"""Event -> its own fields. One that does not apply is left out of a line."""

_is_json = False


def set_json(on: bool) -> None:
    """Write messages as events from now on, or as text. It holds for the whole process, as stderr does."""
    global _is_json
    _is_json = on


def is_json() -> bool:
    """Whether messages are written as events."""
    return _is_json


def event_line(event: str, message: str, level: Level = "info", **fields: Any) -> str:
    """The line of an event, without its newline. Fields with None are left out; numbers that JSON lacks too."""
    assert set(fields) <= set(EVENTS[event]), f"the event {event!r} has no such fields: {sorted(fields)}"
    told = {"time": now(), "level": level, "event": event, "message": message}
    told |= {name: value for name, value in fields.items() if value is not None}
    return json.dumps(_plain(told), ensure_ascii=True)


def last_words(message: str, exit_code: int) -> bytes:
    """What a process that ends at once writes to stderr: text, or the event `stopped`."""
    if _is_json:
        return f"{event_line('stopped', message, 'warning', exit_code=exit_code)}\n".encode()
    return f"\n{message}\n".encode()


def now() -> str:
    """The time of day in UTC, as RFC 3339 has it, with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    """The same as JSON can say it: no half of a surrogate pair, and None for an infinite number."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (int, bool)) or value is None else _plain(str(value))
