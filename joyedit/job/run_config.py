"""Everything about a run that does not concern one item alone. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from joyedit.job.spec import (
    MAX_PIXELS,
    READ_TIMEOUT,
    AttentionName,
    FormatName,
    Lora,
    MetadataName,
    OffloadName,
    PanoramaName,
    PrecisionName,
    SpeedName,
    SwitchName,
    WriteName,
)
from joyedit.job.writing.shard_names import SHARD_SIZE

RandomSize = Literal["tiny", "small", "full"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything about a run that does not concern one item alone. `batch_size` None means auto.

    `dit`, `encoder` and `vae` name files or folders of single networks, `tokenizer` a folder; what they leave open is
    that of `model`. `redo` says which of the items with a record the run edits again: those that changed, all of them,
    or those that failed. `update` allows to replace finished pictures that differ for another reason than their own
    line or picture: flags, a recipe, the model, another source. With `trust_journal` a file whose size and times are
    the recorded ones counts as unchanged. `memory` bounds the bytes of the device that joyedit uses; None stands for
    all that is free. `offload` overrides the plan of what stays there. `max_duration` and `read_timeout` are seconds.
    The run refuses pictures with more than `max_pixels` pixels, and writes figures to `metrics`. `expected_steps` is
    the number of steps of all items to come, counted in steps of a 1024-pixel edit, `largest` the largest base size of
    an item; None if it is unknown. `expected_items` is how many there are; `expected_guidance` is False where guidance
    is off for all of them. The work is shared by `workers` devices, each with a process of its own; 1 is this process
    alone. `parallel` is what they do. The `engine` ray does the work on the machines of a Ray cluster. `host_memory`
    bounds the bytes of the machine's memory that weights may wait in; None stands for all that is free. Where weights
    do not fit into that, `shared_memory` bounds one copy for all workers, in the open file in memory with the handle
    `shared_weights`. `merged_loras` become part of the DiT's weights when it is loaded: all items have these. Where
    items differ, `lora_sets` are the sets that are known at the start. `tree` is the output folder of all shards, where
    the run edits one shard into `output`; what has finished records there is done. `random` stands for networks of a
    size with random weights, in place of a model: that is for measuring. `speed` says what steps leave out; `reuse`,
    `reuse_order`, `guidance_reuse` and `regions` say it for single parts, spelled as on the command line (None: as
    `speed` has it). `write` is what the run writes; shards have `shard_size` items, and with `write_partial` also those
    get a file of which items have no picture. `objects` is the address of an object store where the pictures go;
    `output` is its state folder then.
    """

    output: Path
    write: WriteName = "folder"
    shard_size: int = SHARD_SIZE
    write_partial: bool = False
    tree: Path | None = None
    model: str | None = None
    dit: str | None = None
    encoder: str | None = None
    vae: str | None = None
    tokenizer: str | None = None
    batch_size: int | None = None
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    precision: PrecisionName = "exact"
    attention: AttentionName = "auto"
    compile: SwitchName = "auto"
    fused: SwitchName = "auto"
    offload: OffloadName = "auto"
    memory: int | None = None
    schedule: Literal["auto", "original", "diffusers"] = "auto"
    speed: SpeedName = "exact"
    reuse: str | None = None
    reuse_order: int | None = None
    guidance_reuse: str | None = None
    regions: str | None = None
    format: FormatName = "png"
    quality: int | None = None
    metadata: MetadataName = "keep"
    keep_unedited: bool = False
    register: bool = False
    panorama: PanoramaName = "whole"
    window: int = 256
    redo: Literal["changed", "all", "failed"] = "changed"
    update: bool = False
    trust_journal: bool = False
    max_duration: float | None = None
    max_pixels: int = MAX_PIXELS
    read_timeout: float = READ_TIMEOUT
    metrics: Path | None = None
    expected_steps: float | None = None
    largest: int | None = None
    expected_items: int | None = None
    expected_guidance: bool = True
    workers: int = 1
    parallel: Literal["auto", "data", "guidance", "sequence"] = "auto"
    engine: Literal["local", "ray"] = "local"
    host_memory: int | None = None
    shared_weights: int | None = None
    shared_memory: int | None = None
    merged_loras: tuple[Lora, ...] = ()
    lora_sets: tuple[tuple[Lora, ...], ...] = ()
    random: RandomSize | None = None
    objects: str | None = None
