"""Tensors read from their files onto a CUDA device, through pinned memory of the host.

The next piece is read by several threads while the last one is on its way over the bus. A mapped file would be touched
page by page by one thread, and copied once more by the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from joyedit.weights.stored import PIECE, THREADS, Stored, StoredReader

SLOTS = 4
"""Two pieces are read, one is copied, and another one smooths what the bus or the disk does to others."""
SLOT_BYTES = THREADS * PIECE // 2


@dataclass(slots=True)
class _Slot:
    """A piece of pinned memory. `copied` is reached when it may be filled again."""

    memory: Tensor
    copied: torch.cuda.Event = field(default_factory=torch.cuda.Event)


class DeviceReader:
    """Reads stored tensors to a CUDA device. For one thread; the pinned memory goes with the last reference."""

    def __init__(self, reader: StoredReader, device: torch.device) -> None:
        self._reader = reader
        self._device = device
        self._slots: list[_Slot] = []
        self._next = 0

    def read(self, stored: Stored) -> Tensor:
        """The elements of a tensor on the device, (n,) of the file's dtype.

        The copy is queued on the current stream, and the host does not wait for it. Raises what
        `StoredReader.read` raises, and torch.OutOfMemoryError.
        """
        try:
            return self._read(stored)
        except BaseException:
            self._slots, self._next = [], 0  # threads may fill these still, beside what is read next
            raise

    def _read(self, stored: Stored) -> Tensor:
        found = torch.empty(stored.nbytes // stored.dtype.itemsize, dtype=stored.dtype, device=self._device)
        target = found.view(torch.uint8)
        begun: deque[Callable[[], None]] = deque()
        for start in range(0, stored.nbytes, SLOT_BYTES):
            begun.append(self._begin(stored, start, target[start : start + SLOT_BYTES]))
            if len(begun) == SLOTS - 1:
                begun.popleft()()
        for copy in begun:
            copy()
        return found

    def _begin(self, stored: Stored, start: int, target: Tensor) -> Callable[[], None]:
        """Begin to read a piece. Gives a function that waits for it, and queues its copy."""
        slot = self._free_slot()
        piece = slot.memory[: target.numel()]
        part = Stored(path=stored.path, offset=stored.offset + start, nbytes=piece.numel(), dtype=torch.uint8)
        wait = self._reader.start(part, piece)

        def copy() -> None:
            wait()
            target.copy_(piece, non_blocking=True)
            slot.copied.record(torch.cuda.current_stream(self._device))

        return copy

    def _free_slot(self) -> _Slot:
        """The slot that was filled longest ago, when its copy has ended."""
        if len(self._slots) < SLOTS:
            self._slots.append(_Slot(_pinned(SLOT_BYTES)))
            return self._slots[-1]
        slot = self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        slot.copied.synchronize()
        return slot


def _pinned(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)
