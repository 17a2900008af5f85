"""Where finished pictures lie: in files of their own, or in shards. What asks for a picture asks here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from joyedit.errors import ItemError, system_limit
from joyedit.job.contained import Slice
from joyedit.job.containers.pictures import contained_at, read_contained
from joyedit.job.data_picture import Reference
from joyedit.job.results.records import file_of, output_of, packed_in


def picture_at(folder: Path, record: Mapping[str, Any]) -> Reference | None:
    """The finished picture of a record; None if it names none. A picture that is gone is the file where it was."""
    output = output_of(record)
    if output is None:
        return None
    path = os.path.join(folder, output)
    found = None if packed_in(record) is None else contained_at(path)
    return Path(path) if found is None else found


def is_there(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether something stands where the file of a record's picture is, or the shard that holds it."""
    file = file_of(record)
    return file is not None and os.path.lexists(os.path.join(folder, file))


def packed_state(path: str, record: Mapping[str, Any], *, trust: bool) -> Literal["recorded", "lost"]:
    """Whether a shard holds the recorded picture at the address `path`. With `trust`, its length is enough.

    Raises `JoyeditError` where the system has no memory or no file handle left.
    """
    size = record.get("output_bytes")
    try:
        found = contained_at(path)
        if found is None:
            return "lost"
        if isinstance(found.at, Slice) and (trust or found.at.length != size):
            return "recorded" if found.at.length == size else "lost"
        if trust:
            return "recorded"
        data = read_contained(found)
    except (ItemError, OSError, ValueError) as error:
        limit = system_limit(error)
        if limit is not None:
            raise limit from error
        return "lost"
    is_same = len(data) == size and hashlib.sha256(data).hexdigest() == record.get("output_sha256")
    return "recorded" if is_same else "lost"
