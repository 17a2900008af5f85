"""What a run reads of a mask before the edit: whether it is a picture that fits, its hash, how much it lets change.

Its pixels are read once more when the result is written, so that no mask waits in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from joyedit.errors import ItemError
from joyedit.job.data_picture import Reference
from joyedit.job.hashing import HashCache
from joyedit.job.masks import mask_fault
from joyedit.job.pictures.budget import Reading, shared_budget
from joyedit.job.pictures.decode import load_picture
from joyedit.job.pictures.masked import mask_of, notes_of, share_of
from joyedit.job.sizes import Size
from joyedit.job.spec import MAX_PIXELS, SeenMask
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.threads import running_call


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadMask:
    """A mask that was looked at. `notes` say what a person may want to know of it."""

    seen: SeenMask
    notes: tuple[str, ...]
    seconds: float


def read_mask(
    path: Reference, picture: Size, clock: StageClock, hashes: HashCache, max_pixels: int = MAX_PIXELS
) -> ReadMask:
    """Hash, decode and orient a mask for a picture of this (height, width).

    Raises `ItemError`, and `StoppedError` where it waits for memory.
    """
    with clock.stage("read") as lap, Reading(shared_budget(), running_call()) as reading, of_mask():
        read = load_picture(path, max_pixels, hashes, reading, follows_profile=False)
        mask = mask_of(read)
        if mask_fault((mask.height, mask.width), picture) is not None:
            raise ItemError("picture_changed", f"{path}: it has another size than before")
        share, notes = share_of(mask), notes_of(mask)
    assert read.seen is not None  # it was asked for
    return ReadMask(seen=SeenMask(read.seen, share), notes=notes, seconds=lap.seconds)


@contextmanager
def of_mask() -> Iterator[None]:
    """Lets an error of reading say that the picture is a mask."""
    try:
        yield
    except ItemError as error:
        raise ItemError(error.code, f"mask {error}") from error.__cause__
