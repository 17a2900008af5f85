"""How fast weights come from the host's pinned memory to a GPU."""

from __future__ import annotations

from functools import partial

import torch

from joyedit.runtime.tuning.measurements import Measurements
from joyedit.runtime.tuning.timing import synchronize, timed

SAMPLE = 64 << 20
"""Bytes of a measured copy."""
_FILE = "bus-rates.json"


def bus_rate(device: torch.device) -> float | None:
    """Bytes a second. Measured once in a moment, and kept in the cache folder; None on the CPU."""
    if device.type != "cuda":
        return None
    known = known_bus_rate(device)
    if known is not None:
        return known
    host = torch.empty(SAMPLE, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(SAMPLE, dtype=torch.uint8, device=device)
    seconds, _, _ = timed(lambda: there.copy_(host, non_blocking=True), partial(synchronize, device), 5)
    rate = SAMPLE / min(seconds)
    Measurements(_FILE).put(torch.cuda.get_device_name(device), rate)
    return rate


def known_bus_rate(device: torch.device) -> float | None:
    """The same, if it was measured before."""
    if device.type != "cuda":
        return None
    found = Measurements(_FILE).get(torch.cuda.get_device_name(device))
    is_rate = isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < 1e15
    return float(found) if is_rate else None  # type: ignore[arg-type]
