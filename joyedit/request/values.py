"""The options of a run as the parts of joyedit take them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from joyedit.job.spec import MAX_PIXELS, READ_TIMEOUT
from joyedit.job.writing.shard_names import SHARD_SIZE
from joyedit.options import RunOptions, names_of
from joyedit.quantities import memory_bytes, seconds_of

if TYPE_CHECKING:
    pass


def named_as(kind: type, options: RunOptions) -> dict[str, Any]:
    """The values of the options that a class has a field of the same name for."""
    both = {one.name for one in fields(kind)} & set(names_of(RunOptions))
    return {name: getattr(options, name) for name in both}


def converted(options: RunOptions) -> dict[str, Any]:
    """What a run needs in another form than a person gives it."""
    return {
        "batch_size": None if options.batch_size == "auto" else int(options.batch_size),
        "redo": "all" if options.overwrite else "failed" if options.retry_failed else "changed",
        "format": options.format or "png",
        "shard_size": options.shard_size or SHARD_SIZE,
        "memory": memory_bytes(options.memory),
        "max_duration": seconds_of("--max-duration", options.max_duration),
        "max_pixels": options.max_pixels or MAX_PIXELS,
        "read_timeout": seconds_of("--read-timeout", options.read_timeout) or READ_TIMEOUT,
    }
