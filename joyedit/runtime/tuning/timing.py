"""Timing of calls on a device, with the first call apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def timed(call: Callable[[], T], synchronize: Callable[[], None], rounds: int) -> tuple[list[float], float, T]:
    """Seconds of `rounds` calls, those of a call before them (the warm-up), and the last result.

    `synchronize` waits for the device; it is called before and after each call.
    """
    seconds = []
    for _ in range(rounds + 1):
        synchronize()
        start = time.perf_counter()
        result = call()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:], seconds[0], result


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
