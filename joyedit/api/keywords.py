"""The keywords of `run`, `stream`, `load` and `edit` with their types, for completion and for type checkers.

A test holds them against the options of the command, so that none is missing here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from PIL import Image

from joyedit.job.sizes import FitName
from joyedit.job.source.layouts.choice import LayoutName
from joyedit.job.spec import (
    AttentionName,
    FormatName,
    MetadataName,
    OffloadName,
    PanoramaName,
    PrecisionName,
    SpeedName,
    SwitchName,
    WriteName,
)
from joyedit.options import DeviceName, DtypeName, ScheduleWish
from joyedit.options.run import EngineName
from joyedit.runtime.parallel.layout import ParallelName

PathLike: TypeAlias = str | os.PathLike[str]
Picture: TypeAlias = Image.Image | str | os.PathLike[str]
LoraGiven: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
Loras: TypeAlias = LoraGiven | Sequence[LoraGiven]
"""A path, `{"file": path, "scale": number}`, or a list of these."""
Names: TypeAlias = str | Sequence[str]
Pairs: TypeAlias = Mapping[str, str] | Sequence[str]
"""`{"image": "source_img"}`, or the texts of the flag: `("image=source_img",)`."""


class RunKeywords(TypedDict, total=False):
    """The keywords of `run` and `stream` beside those in their signature: the long flags of the command."""

    dit: PathLike | None
    encoder: PathLike | None
    vae: PathLike | None
    tokenizer: PathLike | None
    prompt: str | None
    lora: Loras | None
    steps: int | None
    guidance_scale: float | None
    seed: int | None
    negative_prompt: str | None
    basesize: int | None
    size: str | None
    fit: FitName | None
    keep_unedited: bool
    register: bool
    panorama: PanoramaName
    mask: PathLike | None
    batch_size: int | str
    device: DeviceName
    gpus: int | str | Sequence[int] | None
    parallel: ParallelName
    engine: EngineName
    dtype: DtypeName
    precision: PrecisionName
    attention: AttentionName
    fused: SwitchName
    compile: SwitchName
    memory: int | str
    offload: OffloadName
    schedule: ScheduleWish
    speed: SpeedName
    reuse: float | str | None
    reuse_order: int | None
    guidance_reuse: int | str | None
    regions: float | str | None
    shard: str | None
    limit: int | None
    exclude: Names
    recipe: PathLike | None
    name: str | None
    seeds: int | str | Sequence[int] | None
    sweep: Mapping[str, Sequence[Any]] | Sequence[str]
    input: PathLike | Sequence[PathLike]
    layout: LayoutName
    split: str | None
    where: Pairs
    chain_turns: bool
    image_root: PathLike | None
    map: Pairs
    ignore_columns: Names
    keep_columns: Names
    text_to_image: bool
    skip_missing: bool
    format: FormatName | None
    quality: int | None
    metadata: MetadataName
    write: WriteName
    shard_size: int | None
    write_partial: bool
    overwrite: bool
    update: bool
    retry_failed: bool
    trust_journal: bool
    max_duration: float | str | None
    max_pixels: int | None
    read_timeout: float | str | None
    metrics: PathLike | None


class LoadKeywords(TypedDict, total=False):
    """The keywords of `load`."""

    dit: PathLike | None
    encoder: PathLike | None
    vae: PathLike | None
    tokenizer: PathLike | None
    lora: Loras | None
    device: DeviceName
    dtype: DtypeName
    precision: PrecisionName
    attention: AttentionName
    compile: SwitchName
    fused: SwitchName
    memory: int | str
    offload: OffloadName
    schedule: ScheduleWish
    speed: SpeedName
    reuse: float | str | None
    reuse_order: int | None
    guidance_reuse: int | str | None
    regions: float | str | None


class EditKeywords(TypedDict, total=False):
    """The settings of one edit."""

    steps: int | None
    guidance_scale: float | None
    seed: int | None
    negative_prompt: str | None
    basesize: int | None
    width: int | None
    height: int | None
    size: str | None
    fit: FitName | None
    box: Sequence[float] | str | None
    mask: Picture | None
