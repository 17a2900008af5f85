"""Where a writer puts the file of a picture: into the output folder that it shares, or on an object store."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from joyedit.errors import ItemError, OutputError
from joyedit.job.own_files import holds_mark
from joyedit.job.results.hand_over import leave
from joyedit.job.results.objects.store import ObjectStore
from joyedit.job.results.output_folder import TAKEN_REMEDY, OutputFolder
from joyedit.job.run_config import RunConfig

Leave = Callable[[str, bytes], str]
"""Takes an output and the bytes of its file, and gives its temporary name; empty where it has its final name."""


@contextmanager
def open_output(config: RunConfig, replaceable: frozenset[str]) -> Iterator[Leave]:
    """What writes the files of one row. Raises OutputError where this machine cannot write there."""
    if config.objects is not None:
        yield partial(_put, ObjectStore(config.objects), replaceable)
        return
    folder = OutputFolder(config.output)
    try:
        _open(folder)
        yield partial(leave, folder)
    finally:
        folder.close()


def _open(folder: OutputFolder) -> None:
    """The driver has made it: if it is not here, this machine does not share it."""
    if not Path(folder.path).is_dir():
        raise OutputError(
            f"the output folder {folder.path} is not on {socket.gethostname()}: all machines of the cluster must see it"
            " under this path"
        )
    folder.prepare()


def _put(store: ObjectStore, replaceable: frozenset[str], output: str, data: bytes) -> str:
    """Put a picture under its final name.

    When the run began, nothing of this name was there, unless it is `replaceable`. So what joyedit made under it since
    is of an earlier try: Ray runs a task again whose machine died. Raises ItemError for a file of somebody else.
    """
    try:
        store.write(output, data, is_new=output not in replaceable)
    except FileExistsError as error:
        there = store.read(output) or b""
        if hashlib.sha256(there).digest() == hashlib.sha256(data).digest():
            return ""
        if not holds_mark(there):
            message = f"the object {output!r} is there already, and no record of joyedit names it"
            raise ItemError("output_taken", f"{message} ({TAKEN_REMEDY})") from error
        store.write(output, data)
    return ""
