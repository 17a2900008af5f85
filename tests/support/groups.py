"""Groups of processes that make pictures together: rank 0 is the test's own process, the others are kept for more."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from joyedit.errors import ItemError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.parallel.follow import follow
from joyedit.runtime.parallel.layout import Layout
from joyedit.runtime.parallel.lead import LeadBackend, lead
from joyedit.runtime.parallel.place import Place
from joyedit.runtime.protocol import OutOfMemory

TIMEOUT = 200.0
"""Seconds after which a rank gives up; no test waits for them to pass."""

Load = Callable[[RunConfig], JoyImageBackend]


@dataclass(frozen=True)
class Failing:
    """Loads a backend that fails once. `at`: before a call computes, or in the midst of what ranks do together."""

    method: Literal["load", "encode_share", "denoise"]
    how: Literal["no room", "bad item", "bug", "dies", "interrupted"]
    at: Literal["before", "midst"] = "before"

    def __call__(self, config: RunConfig) -> JoyImageBackend:
        if self.method == "load":
            self._fail()
        backend = load_backend(config)
        plain = getattr(backend, self.method)
        left = [1]

        def failing(*given: Any) -> Any:
            if left:
                left.clear()
                if self.at == "midst":
                    given[-1]()  # tells the others that all is ready
                self._fail()
            return plain(*given)

        setattr(backend, self.method, failing)
        return backend

    def _fail(self) -> None:
        if self.how == "dies":
            os._exit(7)
        errors = {
            "no room": OutOfMemory("no room for this one"),
            "bad item": ItemError("instruction_too_long", "the instruction is too long"),
            "bug": RuntimeError("a bug"),
            "interrupted": KeyboardInterrupt(),
        }
        raise errors[self.how]


@dataclass(frozen=True)
class Other:
    """Loads a backend that says something else of itself."""

    dtype: str = "bf16"
    attention: str = "sdpa"

    def __call__(self, config: RunConfig) -> JoyImageBackend:
        backend = load_backend(config)
        backend.info = replace(backend.info, dtype=self.dtype, attention=self.attention)
        return backend


class Followers:
    """Processes that serve as rank 1, 2, ... of one group after the other."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Connection] = {}
        self._busy: set[int] = set()

    def start(self, config: RunConfig, layout: Layout, folder: Path, loads: dict[int, Load]) -> None:
        """Let processes follow; those that are not there yet, or ended, are started."""
        for rank in range(1, layout.world):
            place = Place(rank=rank, layout=layout, folder=folder, timeout=TIMEOUT)
            if rank in self._busy:
                self.ending(rank)
            self._pipe(rank).send((config, place, loads.get(rank, load_backend)))
            self._busy.add(rank)

    def ending(self, rank: int = 1) -> str:
        """How the process's last group ended: empty, the error's traceback, or `gone`."""
        self._busy.remove(rank)
        try:
            said: str = self._pipes[rank].recv()
        except (EOFError, ConnectionResetError):
            self._processes.pop(rank).join()
            return "gone"
        return said

    def _pipe(self, rank: int) -> Connection:
        if rank not in self._processes:
            self._pipes[rank], theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs, torch.get_num_threads()), daemon=True)
            process.start()
            theirs.close()
            self._processes[rank] = process
        return self._pipes[rank]

    def close(self) -> None:
        for rank, process in self._processes.items():
            self._pipes[rank].close()
            process.join(20)
            process.kill()


def _serve(pipe: Connection, threads: int) -> None:
    torch.set_num_threads(threads)  # with another number, sums come in another order
    while True:
        try:
            config, place, load = pipe.recv()
        except (EOFError, ConnectionResetError):
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
