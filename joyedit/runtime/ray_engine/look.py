"""What one machine of a cluster sees: a Ray task that runs there before the model loads."""

from __future__ import annotations

import os
from dataclasses import dataclass

from joyedit.errors import os_reason
from joyedit.job.own_files import LOCK
from joyedit.job.results.report import joyedit_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The version of joyedit there, and what is missing or different."""

    version: str
    faults: tuple[str, ...]


def look(output: str, token: bytes, paths: tuple[str, ...]) -> Looked:
    """`token` is what the lock file in `output` holds on the driver's machine; `paths` are there, too."""
    faults = [f"{path} is not there" for path in paths if not os.path.exists(path)]
    try:
        with open(os.path.join(output, LOCK), "rb") as file:
            if file.read(4096) != token:
                faults.append(f"another folder is {output}")
    except OSError as error:
        faults.append(f"the output folder {output} cannot be read: {os_reason(error)}")
    else:
        if not os.access(output, os.W_OK | os.X_OK):
            faults.append(f"the output folder {output} cannot be written")
    return Looked(version=joyedit_version(), faults=tuple(faults))
