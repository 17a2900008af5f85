"""The parent's part of one copy of weights for all workers: a file in memory that they inherit. No torch here.

It has no name, so nothing is left of it, however a run ends. See `runtime.placement.shared_host`.
"""

from __future__ import annotations

import os

GROUP_BYTES = 1 << 40
"""From one group of layers to the next in the file: far more than one has. Only what is written takes memory."""
_GROUPS = 4


def open_shared() -> int | None:
    """A handle of an empty file in memory; None where the system has none."""
    make = getattr(os, "memfd_create", None)
    if make is None:
        return None
    handle = None
    try:
        handle = int(make("joyedit-weights", getattr(os, "MFD_CLOEXEC", 0)))
        os.ftruncate(handle, _GROUPS * GROUP_BYTES)
    except OSError:  # a user may have a limit for the size of files
        if handle is not None:
            os.close(handle)
        return None
    return handle


def inherited(handle: int | None) -> tuple[int, ...]:
    """For `pass_fds` of a process that is to have it, under the same number."""
    return () if handle is None else (handle,)
