"""Host memory from which copies to a GPU run at the full speed of the bus, while nobody waits for them.

torch's own pinned memory is rounded up to a power of two: a block of the published DiT would take a third more than it
has. This one has exactly the size that was asked for, rounded to a page.
"""

from __future__ import annotations

import mmap
import weakref
from contextlib import suppress

import torch
from torch import Tensor


def host_bytes(size: int) -> Tensor:
    """`size` bytes of the host, uint8, with addresses of their own and given back when the tensor goes."""
    memory = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # fewer page faults; not every system has large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8, count=size) if size else torch.empty(0, dtype=torch.uint8)


def pin(buffer: Tensor, device: torch.device) -> bool:
    """Lock a buffer of `host_bytes` in memory for copies to a CUDA device; whether that worked.

    Where it does not, copies are slower, and the host waits for them. The results are the same.
    """
    if device.type != "cuda" or not buffer.numel():
        return False
    runtime = torch.cuda.cudart()
    address = buffer.data_ptr()
    code = runtime.cudaHostRegister(address, buffer.numel(), 0)
    if int(code) != 0:
        return False
    weakref.finalize(buffer.untyped_storage(), runtime.cudaHostUnregister, address).atexit = False
    return True
