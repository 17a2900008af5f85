"""One copy of the weights that pass, for all workers of a machine whose memory is too short for a copy each.

Their parent opens a file in memory without a name, and each worker maps the layers that it streams. A layer has its
place in the file by what it is, whatever a worker's plan says of others. Each worker writes all of its layers, as it
would into memory of its own, and uses a layer when it has written it itself. All write the same bytes and nothing else,
so it does not matter who was first, or who dies in the midst of it, and nobody waits for another. When the last process
is gone, however that was, the memory is free.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from joyedit.runtime.placement.sizes import BLOCKS, TEXT_LAYERS, VISION_BLOCKS, DtypeOf
from joyedit.runtime.workers.shared_weights import GROUP_BYTES

_GROUPS = {BLOCKS: 1, TEXT_LAYERS: 2, VISION_BLOCKS: 3}
_DIGEST = 32


class SharedHost:
    """The file, as one worker sees it. `handle` is inherited from the parent, and stays open."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def agree(self, what: bytes) -> bool:
        """Whether all workers so far hold the same: the first one says what. Others must keep their weights apart."""
        fcntl.lockf(self._handle, fcntl.LOCK_EX, _DIGEST)
        try:
            known = os.pread(self._handle, _DIGEST, 0)
            if not known.strip(b"\0"):
                os.pwrite(self._handle, what, 0)
                return True
            return known == what
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN, _DIGEST)

    @property
    def nbytes(self) -> int:
        """Bytes of the machine's memory that the copy takes so far."""
        return os.fstat(self._handle).st_blocks * 512

    def place(self, prefix: str, sizes: Iterable[int]) -> Callable[[int], Tensor]:
        """Gives the memory of a layer by its number: uint8, of the size in `sizes`. `prefix` names the ModuleList."""
        places: list[tuple[int, int]] = []
        end = _GROUPS[prefix] * GROUP_BYTES
        for size in sizes:
            places.append((end, size))
            end += -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        return lambda layer: self._mapped(*places[layer])

    def _mapped(self, offset: int, size: int) -> Tensor:
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(
            mmap.mmap(self._handle, size, flags=mmap.MAP_SHARED, offset=offset), dtype=torch.uint8, count=size
        )


def digest_of(networks: Mapping[str, nn.Module], dtype_of: DtypeOf, *more: object) -> bytes:
    """Tells weights that differ from each other: by their names, shapes and dtypes, and by what else decides them."""
    told = [
        (network, name, tuple(parameter.shape), str(dtype_of(network, name)))
        for network, module in networks.items()
        for name, parameter in module.named_parameters()
    ]
    return hashlib.sha256(repr((told, more)).encode()).digest()
