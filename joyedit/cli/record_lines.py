"""Records as `--json` prints them: a line of results.jsonl, and where the picture lies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joyedit.job.results.records import line_of, output_of


def printed_line(record: str | Mapping[str, Any], folder: Path) -> str:
    """The line for stdout of a record, or of its line in results.jsonl.

    It has one key more than the record: `output_path`, the absolute path of the finished picture; null if there is
    none. results.jsonl does not have it, because an output folder may be moved.
    """
    known: Mapping[str, Any] = json.loads(record) if isinstance(record, str) else record
    output = output_of(dict(known))
    path = None if output is None else os.path.join(os.path.abspath(folder), output)
    return line_of({**known, "output_path": path})
