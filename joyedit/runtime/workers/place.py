"""Where a worker computes: the one thing that tells a worker process which part of the machine is its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from joyedit.runtime.parallel.layout import ALONE, Layout

VISIBLE = "CUDA_VISIBLE_DEVICES"
NUMBER = "JOYEDIT_WORKER"
"""In a worker's environment: the number of its place."""
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """`number` counts from 0. `devices` are those that the worker's process sees, as CUDA_VISIBLE_DEVICES names them:
    indices or UUIDs; empty for the CPU. `threads` is the number of CPU threads that it computes with. A worker whose
    `layout` has several ranks is the first of them: it starts a process for each other one, and they share `devices`.
    """

    number: int
    devices: tuple[str, ...] = ()
    threads: int = 1
    layout: Layout = ALONE

    @property
    def name(self) -> str:
        """How messages call the worker: `worker 1 (GPU 3)`."""
        return f"worker {self.number} (GPU {', '.join(self.devices)})" if self.devices else f"worker {self.number}"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of the worker's process; `base` is that of its parent. A number of threads there stays."""
        made = {THREADS: str(self.threads), **base, NUMBER: str(self.number)}
        return made | {VISIBLE: ",".join(self.devices)} if self.devices else made
