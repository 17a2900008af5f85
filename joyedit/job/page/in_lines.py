"""Pictures that stand in lines of the source (`data:` URIs): no record holds them, so the source is read once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from joyedit.errors import JoyeditError
from joyedit.job.data_picture import MOST_HELD, DataPicture, is_in_a_line
from joyedit.job.own_files import RESULTS
from joyedit.job.results.records import lines_of, parse
from joyedit.job.results.safe_open import open_to_read
from joyedit.job.results.shard_folders import whole_of
from joyedit.job.source.sources import reopen
from joyedit.job.spec import EditItem


def pictures_in_lines(
    out: Path, report: Mapping[str, Any], has_copy: Callable[[str], bool], stopped: Callable[[], bool]
) -> dict[str, DataPicture]:
    """By sha256: the pictures of the records of `out` that stand in lines of its source and have no copy yet.

    At most so many bytes of them as items may hold in memory; what is more, and a source that is gone or was standard
    input, has no picture here.
    """
    wanted = {sha256 for sha256 in _addresses(out / RESULTS) if not has_copy(sha256)}
    found: dict[str, DataPicture] = {}
    held = 0
    if not wanted or stopped():
        return found
    try:
        for item in reopen(report.get("asked"), whole_of(out)).items():
            for image in item.images if isinstance(item, EditItem) else ():
                if isinstance(image, DataPicture) and image.sha256 in wanted and image.sha256 not in found:
                    found[image.sha256] = image
                    held += len(image.data)
            if stopped() or held > MOST_HELD or len(found) == len(wanted):
                break
    except (JoyeditError, OSError):  # the page goes on without them
        pass
    return found


def _addresses(journal: Path) -> set[str]:
    """The sha256 of all such pictures that a record names. Most journals have none, so few lines are parsed."""
    found = set()
    with open(open_to_read(journal), "rb") as file:
        for line, _ in lines_of(file):
            record = parse(line) if b'"data:' in line else None
            inputs = (record or {}).get("inputs")
            for address in inputs if isinstance(inputs, list) else ():
                if is_in_a_line(address):
                    found.add(address.rpartition("=")[2])
    return found
