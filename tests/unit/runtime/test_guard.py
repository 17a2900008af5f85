"""Torch's ways to say that there is no room, and latents that are not finite, in the words of the protocol."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from joyedit.runtime.backend import OutOfMemory
from joyedit.runtime.guard import Guarded


class Inner:
    """A backend that raises."""

    info = "info"
    extra = 7

    def __init__(self, error: Exception) -> None:
        self.error = error

    def encode(self, batch: Any) -> Any:
        raise self.error

    def denoise(self, encoded: Any, on_step: Any) -> Any:
        raise self.error

    def decode(self, latents: Any) -> Any:
        raise self.error

    def synchronize(self) -> None:
        raise self.error


def calls(error: Exception) -> list[Any]:
    guarded: Any = Guarded(Inner(error))  # type: ignore[arg-type]
    return [
        lambda: guarded.encode(None),
        lambda: guarded.denoise(None, None),
        lambda: guarded.decode(None),
        guarded.synchronize,
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_out_of_memory(error: Exception) -> None:
    for call in calls(error):
        with pytest.raises(OutOfMemory) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_other_errors_stay() -> None:
    for call in calls(RuntimeError("shapes do not match")):
        with pytest.raises(RuntimeError, match="shapes"):
            call()


def test_latents_that_are_not_finite() -> None:
    latents = torch.zeros(4, 2, 3, 3)
    latents[1, 0, 0, 0] = float("nan")
    latents[3, 1, 2, 2] = float("inf")
    assert Guarded(Inner(ValueError())).not_finite(latents) == (1, 3)  # type: ignore[arg-type]


def test_the_rest_is_handed_on() -> None:
    guarded = Guarded(Inner(ValueError()))  # type: ignore[arg-type]
    assert (guarded.info, guarded.extra) == ("info", 7)
    guarded.free_memory()
