"""The matmul ceiling of a device: what the linear layers could reach at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch


def timed(call: Callable[[], Any], synchronize: Callable[[], None], rounds: int) -> tuple[list[float], float, Any]:
    """Seconds of `rounds` calls after a first one, which is told apart, and the last result."""
    seconds = []
    result = None
    for _ in range(rounds + 1):
        synchronize()
        start = time.perf_counter()
        result = call()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:], seconds[0], result


@lru_cache
def matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """The best of several large square products on random data, in TFLOP/s; measured once a process."""
    side, rounds = (8192, 20) if device.type == "cuda" else (1024, 8)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    seconds, _, _ = timed(lambda: torch.mm(a, b), synchronize, rounds)
    return 2 * side**3 / min(seconds) / 1e12
