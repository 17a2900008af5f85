"""Items that were in work each time the process died: they are not tried again, unless something about them changed."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from joyedit.job.contained import is_url
from joyedit.job.data_picture import address_of, file_of
from joyedit.job.results.records import error_code, has_same_settings
from joyedit.job.spec import EditItem

KILLED = "killed_the_run"
"""The error code of an item that is given up because the whole run died with it."""
KILLED_WORKERS = "killed_workers"
"""The error code of one that is given up because worker processes died with it."""


def is_given_up(item: EditItem, record: dict[str, Any]) -> bool:
    """Whether `record`, the last one of `item`, gave it up, and neither its line nor its pictures changed since."""
    return (
        error_code(record) in (KILLED, KILLED_WORKERS)
        and _has_same_line(item, record)
        and not _has_newer_picture(item, record)
    )


def _has_same_line(item: EditItem, record: dict[str, Any]) -> bool:
    if not has_same_settings(item, record):
        return False
    paths = [address_of(one) for one in item.images]
    return record.get("instruction") == item.instruction and record.get("inputs") == paths


def _has_newer_picture(item: EditItem, record: dict[str, Any]) -> bool:
    try:
        at = datetime.fromisoformat(str(record.get("at"))).timestamp()
        return any(_changed_at(file_of(one)) > at for one in item.inputs)
    except (OSError, ValueError):  # the edit will say what is wrong with the picture
        return True


def _changed_at(path: str | None) -> float:
    """When a file changed last, in seconds; 0 for a picture in no file, and for what is behind a URL."""
    return 0.0 if path is None or is_url(path) else os.stat(path).st_ctime
