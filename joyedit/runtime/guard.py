"""The real backend, with torch's faults told in the words of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from joyedit.job.spec import Size
from joyedit.runtime.backend import BackendInfo, BatchInput, OutOfMemory
from joyedit.runtime.joyimage import Encoded, JoyImageBackend

if TYPE_CHECKING:
    from PIL import Image

# What allocators say beside torch.OutOfMemoryError: cuBLAS and the driver, and the CPU's own.
_NO_ROOM = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory", "can't allocate memory")


class Guarded:
    """Hands everything on to `inner`; raises `OutOfMemory` where that runs out of it."""

    def __init__(self, inner: JoyImageBackend) -> None:
        self.inner = inner
        self.info: BackendInfo = inner.info

    def encode(self, batch: BatchInput) -> Encoded:
        with _memory():
            return self.inner.encode(batch)

    def denoise(self, encoded: Encoded, on_step: Callable[[int, int], None]) -> Tensor:
        with _memory():
            return self.inner.denoise(encoded, on_step)

    def not_finite(self, latents: Tensor) -> tuple[int, ...]:
        fine: list[bool] = latents.isfinite().flatten(1).all(dim=1).tolist()
        return tuple(place for place, is_fine in enumerate(fine) if not is_fine)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        with _memory():
            return self.inner.decode(latents)

    def synchronize(self) -> None:
        with _memory():
            self.inner.synchronize()

    def peak_memory(self) -> int | None:
        return self.inner.peak_memory()

    def auto_batch_size(self, target: Size) -> int:
        return self.inner.auto_batch_size(target)

    def free_memory(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def close(self) -> None:
        self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextmanager
def _memory() -> Iterator[None]:
    """Faults of memory, as the protocol names them. Whoever goes on drops the traceback: it holds tensors."""
    told: str | None = None
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        told = str(error) or type(error).__name__
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_ROOM):
            raise
        told = str(error)
    if told is not None:
        raise OutOfMemory(told.splitlines()[0])
