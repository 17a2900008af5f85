"""What a process is told of the group of ranks that it belongs to. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joyedit.runtime.parallel.layout import Layout

TIMEOUT = 600.0
"""Seconds. Loading and compiling of the slowest rank count, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The place of one process in its group.

    `folder` is empty at first, on a local disk, the same for all ranks of this group and for them alone; nobody else
    may write there. `device` is the number of the rank's CUDA device among those that the process sees; None for the
    current one. After `timeout` seconds a rank gives up to wait for another.
    """

    rank: int
    layout: Layout
    folder: Path
    device: int | None = None
    timeout: float = TIMEOUT
