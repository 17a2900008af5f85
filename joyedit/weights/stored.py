"""Tensors read straight from their files into memory that is there already, by several threads.

A mapped file is read page by page as it is touched. This asks for large pieces at once, and copies nothing twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.weights.regular_files import open_regular, printable_path

THREADS = 16
PIECE = 16 << 20
"""Bytes that a thread reads at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A tensor's elements in a file: `nbytes` from `offset` on, in order and without gaps."""

    path: Path
    offset: int
    nbytes: int
    dtype: torch.dtype


class StoredReader:
    """Reads stored tensors. Files stay open until `close`; one reader may serve several threads."""

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "joyedit-read-weights")

    def read(self, stored: Stored, target: Tensor) -> None:
        """Fill a contiguous tensor of the host, of the same dtype and number of elements.

        Raises CheckpointError for a file that has become shorter, OSError for one that cannot be read.
        """
        self.start(stored, target)()

    def start(self, stored: Stored, target: Tensor) -> Callable[[], None]:
        """Begin to fill a tensor as `read` does. Gives a function that waits for it, and raises what `read` raises."""
        assert target.is_contiguous()
        assert target.nbytes == stored.nbytes
        assert target.dtype == stored.dtype
        memory = memoryview(target.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        file = self._file(stored.path)
        starts = range(0, stored.nbytes, PIECE)
        pieces = [self._pool.submit(_read_piece, stored, file, memory, start) for start in starts]

        def wait() -> None:
            for piece in pieces:
                piece.result()

        return wait

    def close(self) -> None:
        """Close the files. Nobody may be reading."""
        self._pool.shutdown()
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _file(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                with open_regular(path) as file:
                    self._files[path] = os.dup(file.fileno())
            return self._files[path]


def _read_piece(stored: Stored, file: int, memory: memoryview, start: int) -> None:
    end = min(start + PIECE, stored.nbytes)
    while start < end:
        count = os.preadv(file, [memory[start:end]], stored.offset + start)
        if not count:
            raise CheckpointError(f"{printable_path(stored.path)}: became shorter while it was read")
        start += count
