"""What one machine of a cluster sees: a Ray task that runs there before the model loads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from joyedit.errors import JoyeditError, os_reason
from joyedit.job.own_files import LOCK
from joyedit.job.results.objects.address import address_of
from joyedit.job.results.objects.remote_lock import read_lock
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.report import joyedit_version
from joyedit.runtime.ray_engine import environment

_SHARED = " (all machines must see the same files under the same paths)"
_PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """The version of joyedit there, and what is missing or different."""

    version: str
    faults: tuple[str, ...]


def look(output: str, token: bytes, paths: tuple[str, ...], variables: Mapping[str, str]) -> Looked:
    """`token` is what the lock of `output` holds on the driver's machine; `paths` are there, too. `variables` are those
    of the driver.
    """
    environment.take(variables)
    faults = [f"{path} is not there{_SHARED}" for path in paths if not os.path.exists(path)]
    faults += _faults_of_store(output, token) if address_of(output) else _faults_of_folder(output, token)
    return Looked(version=joyedit_version(), faults=tuple(faults))


def _faults_of_folder(output: str, token: bytes) -> Iterator[str]:
    try:
        with open(os.path.join(output, LOCK), "rb") as file:
            if file.read(4096) != token:
                yield f"another folder is {output}{_SHARED}"
    except OSError as error:
        yield f"the output folder {output} cannot be read: {os_reason(error)}{_SHARED}"
    else:
        if not os.access(output, os.W_OK | os.X_OK):
            yield f"the output folder {output} cannot be written{_SHARED}"


def _faults_of_store(output: str, token: bytes) -> Iterator[str]:
    """Whether this machine has the package and the credentials, and sees what the driver wrote."""
    try:
        store = ObjectStore(output, patience=_PATIENCE)
        found = read_lock(store)
    except JoyeditError as error:
        yield str(error)
        return
    if found is None or str(found.get("token")).encode() != token:
        yield f"{output} is another place there: it lacks the lock of this run"
