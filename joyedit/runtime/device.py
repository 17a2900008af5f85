"""`auto` turned into a device, a dtype and an attention backend; a wish that cannot be met is refused."""

from __future__ import annotations

from typing import Literal

import torch

from joyedit.errors import DeviceError
from joyedit.models.attention import varlen_kernel

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(wish: Literal["auto", "cuda", "cpu"]) -> torch.device:
    """auto: CUDA where torch sees a device, else the CPU. Raises DeviceError."""
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


def choose_attention(wish: Literal["auto", "flash", "sdpa"], device: torch.device, dtype: str) -> tuple[str, str]:
    """The attention backend, and why flash is off where it is. Raises DeviceError.

    auto takes FlashAttention's variable-length kernel where there is one, and sdpa elsewhere.
    """
    if wish == "sdpa":
        return "sdpa", ""
    reason = ""
    if device.type != "cuda":
        reason = "FlashAttention needs a CUDA device"
    elif dtype != "bf16":
        reason = "FlashAttention needs bf16"
    elif not has_kernel():
        reason = "neither torch 2.10 or newer nor flash-attn is installed (pip install joyedit[flash])"
    if reason and wish == "flash":
        raise DeviceError(f"--attention flash: {reason}; use --attention sdpa")
    return ("sdpa", reason) if reason else ("flash", "")


def has_kernel() -> bool:
    """Whether flash-attn or torch's own build of it can be imported."""
    try:
        varlen_kernel()
    except ImportError:
        return False
    return True
