"""Torch's ways to say that there is no room, told in the one word of the backend protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from joyedit.runtime.protocol import OutOfMemory

# What allocators say beside torch.OutOfMemoryError: cuBLAS and the driver, and the CPU's own.
_NO_ROOM = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "can't allocate memory")


@contextmanager
def memory_faults() -> Iterator[None]:
    """A context, or a decorator, that raises `OutOfMemory` for any fault of memory inside it.

    Whoever goes on drops the error's context: its traceback holds the tensors that fill the device.
    """
    message: str | None = None
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        message = str(error) or type(error).__name__
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_ROOM):
            raise
        message = str(error)
    if message is not None:
        raise OutOfMemory(message.splitlines()[0])
