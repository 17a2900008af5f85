"""`auto` turned into a device and a dtype; a wish that cannot be met is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import torch

from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.runtime.tuning.processor import bf16_units

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(wish: Literal["auto", "cuda", "mps", "cpu"]) -> torch.device:
    """auto: CUDA where torch sees a device, else the CPU. Raises DeviceError."""
    # Freed memory of any size serves again; without this, some 1.4 GB more are reserved at 1024 pixels. torch reads it
    # when it first allocates.
    os.environ.setdefault(ALLOCATOR, "expandable_segments:True")
    if wish == "auto":  # never mps: nobody has measured it, or compared its pictures
        wish = "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda: torch sees no CUDA device here; use --device cpu, or install a CUDA build of torch"
            " (joyedit doctor says which)"
        )
    if wish == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            "--device mps: torch sees no Apple GPU here (it needs a Mac with Apple silicon, a recent macOS and torch's"
            " build for it); use --device cpu"
        )
    return torch.device(wish, torch.cuda.current_device()) if wish == "cuda" else torch.device(wish)


def gpu_count() -> int:
    """How many GPUs torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_dtype(
    wish: Literal["auto", "bf16", "fp32"], device: torch.device, fp32_bytes: Callable[[], int] | None = None
) -> str:
    """auto: bf16 on a GPU that has it, fp32 on the CPU. Raises DeviceError for bf16 on a Mac without it.

    On a CPU with units for bf16, auto is bf16 too if `fp32_bytes`, the bytes of the weights in fp32, exceed the memory
    of the machine. All of its memory counts, not what is free: the dtype of a run must not change from day to day.
    """
    if device.type == "mps":
        if wish != "fp32" and has_bf16(device):
            return "bf16"
        if wish == "bf16":
            raise DeviceError("--dtype bf16: this macOS has no bf16 on its GPU; update macOS, or use --dtype fp32")
        return "fp32"
    if wish != "auto":
        return wish
    if device.type == "cuda":
        return "bf16"
    return "bf16" if fp32_bytes is not None and bf16_units() and not fits_machine(fp32_bytes()) else "fp32"


def fits_machine(nbytes: int) -> bool:
    """Whether weights of this size fit into the memory that the machine has; also where it does not tell."""
    total = machine_memory.total_bytes()
    return total is None or nbytes + machine_memory.SPARE <= total


def has_bf16(device: torch.device) -> bool:
    """Whether a Mac's GPU computes in bf16: macOS before 14 does not, nor do older GPUs."""
    try:
        one = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool((one @ one).float().cpu()[0, 0] == 2)
    except (TypeError, RuntimeError):
        return False
