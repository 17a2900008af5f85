"""Copies between host and device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device. On CUDA the copy goes through pinned memory, so the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_device_as(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of weights on the device in this dtype. For an Apple GPU it takes the dtype first: float64 and float8
    do not exist there."""
    return tensor.to(dtype).to(device) if device.type == "mps" else tensor.to(device, dtype)


def use_in_this_thread(device: torch.device) -> None:
    """Let the calling thread's CUDA device be this one, as every thread that asks something of CUDA has to.

    torch keeps it for each thread, and it begins as the first GPU. What asks CUDA there takes memory of that GPU, some
    500 MB, whoever computes on it.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
