"""The time of day, as records, reports, the log and the lock write it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal


def utc_now(timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """The time of day in UTC, in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec=timespec)
