"""Records as `--json` prints them: a line of results.jsonl, and where the picture lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

from joyedit.job.results.records import line_of, output_of


def printed_line(line: str, folder: Path | str) -> str:
    """The line for stdout of a line in the results.jsonl of the output folder `folder`.

    It has one key more than the record: `output_path`, the absolute path of the finished picture, or its address where
    `folder` is that of an object store; null if there is none. results.jsonl does not have it, because an output folder
    may be moved.
    """
    record = json.loads(line)
    output = output_of(record)
    place = folder if isinstance(folder, str) else os.path.abspath(folder)
    path = None if output is None else os.path.join(place, output)
    return line_of({**record, "output_path": path})
