"""Groups of processes that make pictures together: rank 0 is the test's own process, the others are kept for more."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from joyedit.job.spec import RunConfig
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.parallel.follow import follow
from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.parallel.lead import LeadBackend, lead
from joyedit.runtime.parallel.place import Place

TIMEOUT = 60.0
"""Seconds after which a rank gives up; no test waits for them to pass."""

Load = Callable[[RunConfig], JoyImageBackend]


class Followers:
    """Processes that serve as rank 1, 2, ... of one group after the other."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def start(self, config: RunConfig, layout: Layout, folder: Path, loads: dict[int, Load]) -> None:
        """Let processes follow; those that are not there yet, or ended, are started."""
        for rank in range(1, layout.world):
            place = Place(rank=rank, layout=layout, folder=folder, timeout=TIMEOUT)
            self._pipe(rank).send((config, place, loads.get(rank, load_backend)))

    def ending(self, rank: int) -> str:
        """How the process's last group ended: empty, the error's traceback, or `gone`."""
        try:
            said: str = self._pipes[rank - 1].recv()
        except EOFError:
            said = "gone"
        if said == "gone":
            self._processes[rank - 1].join()
        return said

    def process(self, rank: int) -> Any:
        """The process of a rank."""
        return self._processes[rank - 1]

    def _pipe(self, rank: int) -> Connection:
        while len(self._processes) < rank:
            self._processes.append(None)
            self._pipes.append(None)  # type: ignore[arg-type]
        process = self._processes[rank - 1]
        if process is None or not process.is_alive():
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes[rank - 1], self._pipes[rank - 1] = process, ours
        return self._pipes[rank - 1]

    def close(self) -> None:
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            if process is not None:
                pipe.close()
                process.join(20)
                process.kill()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            config, place, load = pipe.recv()
        except EOFError:
            return
        try:
            follow(config, place, load)
        except Exception:
            pipe.send(traceback.format_exc())
        else:
            pipe.send("")


@contextmanager
def group(
    followers: Followers,
    folder: Path,
    layout: Layout,
    *,
    first: Load = load_backend,
    others: dict[int, Load] | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> Iterator[LeadBackend]:
    """A group that has loaded a checkpoint. `first` and `others` load for rank 0 and for others, by rank."""
    config = RunConfig(output=Path("unused"), model=str(folder), **options)
    with tempfile.TemporaryDirectory() as scratch:
        followers.start(config, layout, Path(scratch), others or {})
        place = Place(rank=0, layout=layout, folder=Path(scratch), timeout=timeout)
        backend = lead(config, place, first)
        try:
            yield backend
        finally:
            backend.close()
