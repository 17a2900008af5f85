"""The matmul ceiling of a device: what the linear layers could reach at most."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch

from joyedit.runtime.tuning.timing import synchronize, timed


@lru_cache
def matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """The best of several large square products on random data, in TFLOP/s; measured once a process."""
    multiply, wait, operations = _product(device, dtype)
    seconds, _, _ = timed(multiply, wait, 20 if device.type == "cuda" else 8)
    return operations / min(seconds)


def sustained_matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """The mean of about two seconds without a pause, in which a GPU may lower its clock."""
    multiply, wait, operations = _product(device, dtype)
    calls = max(1, int(2.0 * matmul_tflops(device, dtype) / operations)) if device.type == "cuda" else 20

    def many() -> None:
        for _ in range(calls):
            multiply()

    (seconds,), _, _ = timed(many, wait, 1)
    return operations * calls / seconds


def _product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Any], Callable[[], None], float]:
    """A large product on random data, what waits for it, and its operations in TFLOP."""
    side = {"cuda": 8192, "mps": 4096}.get(device.type, 1024)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: torch.mm(a, b), partial(synchronize, device), 2 * side**3 / 1e12
