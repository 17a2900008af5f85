"""Whether the DiT's blocks are compiled, and the compilation itself, which is timed before the first batch.

Compiled code is kept in the user's cache folder, so a second run starts faster. If no compiler works, the plain blocks
run, and a note says why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch

from joyedit.errors import first_line
from joyedit.job.run_config import RunConfig
from joyedit.models.attention import TextLengths
from joyedit.models.dit import DiT
from joyedit.runtime.tuning.measurements import make_cache_folder
from joyedit.runtime.tuning.timing import synchronize, timed

COMPILE_SECONDS = 30.0
"""Duration of a compilation with an empty cache: measured on an H100 with 16 CPU cores."""

SAVED_SECONDS = 0.065
"""What compiled blocks save in one step of a 1024-pixel edit with guidance: 0.765 s become 0.70 s on an H100."""

INDUCTOR_CACHE = "TORCHINDUCTOR_CACHE_DIR"
TRITON_CACHE = "TRITON_CACHE_DIR"
FA4_CACHE, FA4_CACHE_ENABLED = "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Compilation:
    """Whether the blocks are compiled, and in how many seconds. `note` says why not, if compiling failed."""

    on: bool
    seconds: float = 0.0
    note: str = ""


def worth_compiling(config: RunConfig, device: torch.device, fused: bool = False) -> bool:
    """Whether to compile. auto: on CUDA without fused kernels, if the expected steps save more than compiling costs.

    A run of unknown length counts as short.
    """
    if config.compile != "auto":
        return config.compile == "on"
    return device.type == "cuda" and not fused and (config.expected_steps or 0.0) * SAVED_SECONDS > COMPILE_SECONDS


def keep_compiled_code(config: RunConfig) -> None:
    """Let torch, Triton and FlashAttention 4 keep compiled code in joyedit's cache folder, unless the user named one.

    Call it before anything imports their compilers, which read these variables when they are imported.
    """
    folder = make_cache_folder()
    if config.compile != "off":
        os.environ.setdefault(INDUCTOR_CACHE, str(folder / "inductor"))
    os.environ.setdefault(TRITON_CACHE, str(folder / "triton"))
    os.environ.setdefault(FA4_CACHE_ENABLED, "1")
    os.environ.setdefault(FA4_CACHE, str(folder / "fa4"))


def compile_dit(dit: DiT, device: torch.device) -> Compilation:
    """Compile the blocks on random input of usual shapes. Raises torch.OutOfMemoryError only."""
    dit.compile_blocks()
    try:
        (again,), first, _ = timed(partial(_forward, dit, device), partial(synchronize, device), 1)
    except torch.OutOfMemoryError:
        raise
    # A missing or broken compiler raises any of these. The note passes the reason on.
    except (RuntimeError, ImportError, OSError) as error:
        dit.plain_blocks()
        torch._dynamo.reset()
        return Compilation(on=False, note=f"not compiled: the compiler does not work here ({first_line(error)})")
    return Compilation(on=True, seconds=max(0.0, first - again))


def _forward(dit: DiT, device: torch.device) -> None:
    """One forward as in a run: both guidance branches at once on CUDA, one at a time on the CPU."""
    # The compiler tunes its kernels for the first sizes: on CUDA those of a 1024-pixel edit.
    lengths, side = ([1060, 1043], 128) if device.type == "cuda" else ([9], 8)
    channels = dit.cfg.in_channels
    with torch.inference_mode():
        items = [torch.randn(len(lengths), channels, side, side, device=device) for _ in range(2)]
        txt = torch.randn(sum(lengths), dit.cfg.hidden_size, device=device).to(dit.dtype)
        mods = dit.modulations(torch.full((1,), 500.0, device=device))
        dit.predict(items, mods, txt, TextLengths.of(lengths))
