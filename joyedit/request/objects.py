"""`-o s3://bucket/prefix`: whether a run can write to an object store, and the state folder that stands for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from joyedit.errors import UsageError
from joyedit.job.results.objects.address import address_of, check_address, folder_of
from joyedit.job.results.objects.names import STATE_VARIABLE, state_folder
from joyedit.job.results.objects.open_output import ObjectOutput
from joyedit.job.source.picture_folder import PICTURE_SUFFIXES
from joyedit.options import RunOptions
from joyedit.printable import printable
from joyedit.runtime.pipeline.progress import NoProgress, Progress

if TYPE_CHECKING:
    from joyedit.runtime.ray_engine.engine import RayEngine


def with_objects(options: RunOptions) -> tuple[RunOptions, str | None]:
    """The options with a folder of this machine as output, and the address of the object store that it stands for.

    None for an output folder. Raises UsageError for an address that cannot be written.
    """
    address = address_of(options.output)
    if address is None:
        return replace(options, output=folder_of(options.output)), None
    shown = printable(address)
    if options.engine != "ray":
        raise UsageError(
            f"-o {shown}: only --engine ray writes to an object store (add it, also for this machine alone; or name a"
            " folder, and copy it there afterwards)"
        )
    if Path(address).suffix.lower() in PICTURE_SUFFIXES:
        raise UsageError(f"-o {shown}: one picture needs no cluster (leave --engine out, or name a prefix)")
    check_address(address)
    try:
        return replace(options, output=state_folder(address)), address
    except RuntimeError as error:
        raise UsageError(f"-o {shown}: this user has no home folder (name a folder with {STATE_VARIABLE})") from error


@contextmanager
def open_objects(address: str | None, folder: Path, ray: RayEngine, progress: Progress | None) -> Iterator[None]:
    """In the block the records of the store are in `folder`, its state folder. Errors as of `ObjectOutput`."""
    if address is None:
        yield
        return
    with ObjectOutput(address, (progress or NoProgress()).note, folder=folder) as output:
        ray.uploader = output.uploader
        yield


def shown_place(output: Path, objects: str | None, name: str = "") -> str:
    """How a message names an output, or something in it."""
    place = str(output) if objects is None else objects
    return os.path.join(place, name) if name else place
