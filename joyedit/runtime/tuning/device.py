"""`auto` turned into a device and a dtype; a wish that cannot be met is refused."""

from __future__ import annotations

import os
from typing import Literal

import torch

from joyedit.errors import DeviceError

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(wish: Literal["auto", "cuda", "cpu"]) -> torch.device:
    """auto: CUDA where torch sees a device, else the CPU. Raises DeviceError."""
    # Freed memory of any size serves again; without this, some 1.4 GB more are reserved at 1024 pixels. torch reads it
    # when it first allocates.
    os.environ.setdefault(ALLOCATOR, "expandable_segments:True")
    if wish == "auto":
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda: torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch"
        )
    return torch.device(wish, torch.cuda.current_device()) if wish == "cuda" else torch.device(wish)


def choose_dtype(wish: Literal["auto", "bf16", "fp32"], device: torch.device) -> str:
    """auto: bf16 on CUDA, fp32 on the CPU."""
    if wish == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return wish
