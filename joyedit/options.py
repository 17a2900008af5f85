"""The flags of `joyedit run` as they were typed; None stands for a flag that was not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# As in job.spec, which takes too long to import before there is something to do.
AttentionName = Literal["auto", "fa4", "fa3", "fa2", "varlen", "cudnn", "flash-sdpa", "flash", "sdpa"]
SwitchName = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """One command line. The names are those of the flags, the defaults what holds without them."""

    source: str
    output: Path = Path("edited")
    model: str | None = None
    prompt: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    basesize: int | None = None
    batch_size: str = "auto"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    attention: AttentionName = "auto"
    compile: SwitchName = "auto"
    fused: SwitchName = "auto"
    offload: Literal["none", "encoder"] = "none"
    schedule: Literal["auto", "original", "diffusers"] = "auto"
    limit: int | None = None
    recipe: str | None = None
    values: tuple[str, ...] = ()
    format: Literal["png", "jpg", "webp"] = "png"
    quality: int | None = None
    overwrite: bool = False
    retry_failed: bool = False
    trust_journal: bool = False
    max_duration: str | None = None
    max_pixels: int | None = None
    read_timeout: str | None = None
    dry_run: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
