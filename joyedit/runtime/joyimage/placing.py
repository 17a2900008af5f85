"""From networks without weights to a placement, and to networks that take their weights by it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.job.run_config import RunConfig
from joyedit.job.speed.bundles import speed_of_run
from joyedit.job.speed.settings import FIRST_BLOCKS
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE
from joyedit.printable import gigabytes
from joyedit.runtime.joyimage.memory import RESERVE, MemoryModel, available_bytes, cache_bytes
from joyedit.runtime.joyimage.networks import DeviceChoice, PlacedModel
from joyedit.runtime.placement.placed_network import Passing, PlacedNetwork
from joyedit.runtime.placement.plan import ENCODE_AHEAD, SLOTS, Placement, WorkingMemory, choose, resident
from joyedit.runtime.placement.shared_host import SharedHost, digest_of
from joyedit.runtime.placement.sizes import BLOCKS, EMBEDDING, TEXT_LAYERS, VISION_BLOCKS, Sizes, stays_with_rest
from joyedit.runtime.tuning.bus_rate import bus_rate, known_bus_rate
from joyedit.runtime.tuning.device import DTYPES
from joyedit.weights.layouts import Checkpoint

LARGEST = 1024
"""The base size that a plan makes room for, where nobody knows that of the items."""
STEPS = 50


class Unplaced(NamedTuple):
    """The three networks, which may be on the meta device."""

    dit: DiT
    encoder: TextEncoder
    vae: VAE


def plan(
    networks: Unplaced,
    wanted: DeviceChoice,
    config: RunConfig,
    beside: int = 0,
    *,
    has_files: bool = True,
    shared: SharedHost | None = None,
) -> tuple[Placement, int]:
    """The placement of these networks, and the bytes of the device that it keeps to.

    `beside` are bytes of the device that something else takes all the time, such as LoRAs.
    Raises DeviceError where nothing fits. Without `has_files`, all weights must have room in memory. `shared` is the
    one copy of several workers.
    """
    dit, encoder, vae = networks
    sizes = Sizes.of(dit, encoder, vae, wanted.dtype_of)
    budget = device_budget(wanted.device, config.memory)
    itemsize = DTYPES[wanted.dtype].itemsize
    speed = speed_of_run(config, config.schedule)  # what steps keep does not depend on the schedule
    model = MemoryModel(dit=dit.cfg, vae=vae.cfg, itemsize=itemsize, precision=wanted.precision, speed=speed)
    cache = cache_bytes(budget - sizes.total)
    working = _working(model, encoder.config.text_config, config.largest or LARGEST, cache)
    working = replace(working, kept=working.kept + beside)
    if wanted.device.type != "cuda" and config.memory is None and config.offload == "auto":
        _check_host(sizes, wanted, budget, config.host_memory)
        return resident(sizes, working), budget
    host = _host_room(config, shared)
    placement = choose(
        sizes,
        working,
        budget,
        host,
        offload=config.offload,
        reserve=RESERVE,
        may_read_later=has_files,
        first_stays=0 if speed.reuse is None else FIRST_BLOCKS,
    )
    return placement, budget


def place(
    networks: Unplaced, wanted: DeviceChoice, config: RunConfig, beside: int = 0, *, has_files: bool = True
) -> PlacedModel:
    """Plan, and prepare the networks whose layers pass for their weights. `beside` as in `plan`. Raises DeviceError."""
    dit, encoder, _ = networks
    shared = _shared(networks, wanted, config)
    placement, budget = plan(networks, wanted, config, beside, has_files=has_files, shared=shared)
    if wanted.device.type == "cuda" and config.memory is not None:
        _bound(wanted.device, budget)
    placed_dit = placed_encoder = None
    if placement.streams_blocks:
        passing = Passing(
            prefix=BLOCKS,
            streamed=placement.streamed_blocks(),
            from_disk=placement.blocks_from_disk(),
            slots=placement.slots,
            left_out=stays_with_rest,
        )
        placed_dit = PlacedNetwork(
            dit, [passing], wanted.device, partial(wanted.dtype_of, "transformer"), shared=shared
        )
        (dit.weights,) = placed_dit.groups
    if placement.encoder_streams:
        config_of = encoder.config
        layers, blocks = config_of.text_config.num_hidden_layers, config_of.vision_config.depth
        placed_encoder = PlacedNetwork(
            encoder,
            [
                Passing(prefix=VISION_BLOCKS, streamed=range(blocks), slots=blocks),
                Passing(prefix=TEXT_LAYERS, streamed=range(layers), slots=SLOTS),
            ],
            wanted.device,
            partial(wanted.dtype_of, "text encoder"),
            on_host=(EMBEDDING,),
            shared=shared,
        )
        vision, text = placed_encoder.groups
        vision.hook()
        encoder.layers.weights = text
    rate = None if placement.is_resident else bus_rate(wanted.device)
    return PlacedModel(placement=placement, budget=budget, bus_rate=rate, dit=placed_dit, encoder=placed_encoder)


def describe_placement(config: RunConfig, checkpoint: Checkpoint) -> str:
    """What a run would say of its placement; nothing is loaded. Raises DeviceError where nothing fits."""
    wanted = DeviceChoice.of(config, checkpoint.fp32_bytes)
    wanted.prepare(checkpoint.dit)
    networks = Unplaced(checkpoint.dit, checkpoint.text_encoder, checkpoint.vae)
    placement, budget = plan(networks, wanted, config)
    return placement.text(budget, None if placement.is_resident else known_bus_rate(wanted.device))


def device_budget(device: torch.device, memory: int | None) -> int:
    """The bytes of the device that joyedit may use: what is free, and no more than `memory`."""
    free = available_bytes(device)
    return free if memory is None else min(memory, free) if device.type == "cuda" else memory


def _bound(device: torch.device, budget: int) -> None:
    """Let torch refuse more than the budget, whatever the plan expected; it counts what other models use already."""
    total, used = torch.cuda.get_device_properties(device).total_memory, torch.cuda.memory_allocated(device)
    torch.cuda.set_per_process_memory_fraction(min(1.0, (budget + used) / total), device)


def lift_bound(device: torch.device) -> None:
    """Let torch take all of the device again."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _working(model: MemoryModel, text: Any, basesize: int, cache: int) -> WorkingMemory:
    """For one edit with a reference of this base size: what is larger runs if it happens to fit.

    `text` is the text part of the encoder's configuration, `cache` the bytes of the content cache.
    """
    target = (basesize, basesize)
    return WorkingMemory(
        encode=model.encoding_bytes(target, text),
        denoise=model.denoising_bytes(target, 1, STEPS),
        decode=model.decoding_bytes(target),
        kept=cache + ENCODE_AHEAD * model.conditioning_bytes(target),
    )


def _shared(networks: Unplaced, wanted: DeviceChoice, config: RunConfig) -> SharedHost | None:
    """The one copy of all workers: where a copy each may not fit, and they hold the same weights."""
    if config.shared_weights is None or config.host_memory is None:
        return None
    if Sizes.of(*networks, wanted.dtype_of).total <= config.host_memory - machine_memory.SPARE:
        return None
    shared = SharedHost(config.shared_weights)
    device = torch.cuda.get_device_name(wanted.device) if wanted.device.type == "cuda" else wanted.device.type
    by_name = {"transformer": networks.dit, "text encoder": networks.encoder}
    what = digest_of(by_name, wanted.dtype_of, device, config.precision, [lora.sha256 for lora in config.merged_loras])
    return shared if shared.agree(what) else None


def _host_room(config: RunConfig, shared: SharedHost | None) -> int | None:
    """Bytes of the machine's memory for weights that pass: what other workers have written counts as there."""
    free = machine_memory.available_bytes()
    if shared is None:
        return _least(free, config.host_memory)
    return _least(None if free is None else free + shared.nbytes, config.shared_memory)


def _least(one: int | None, other: int | None) -> int | None:
    """The smaller of two bounds; None stands for none."""
    return min((bound for bound in (one, other) if bound is not None), default=None)


def _check_host(sizes: Sizes, wanted: DeviceChoice, budget: int, bound: int | None) -> None:
    """Raises DeviceError if the weights do not fit into the host's memory, which is the device's too.

    `budget`: what Metal gives of it to an Apple GPU. Copies of weights that wait beside it would take the same memory,
    so none pass. `bound` is the share of one of several workers.
    """
    there = budget if wanted.device.type == "mps" else _least(machine_memory.available_bytes(), bound)
    if there is None or sizes.total <= there:
        return
    remedy = "use a machine with more memory"
    if wanted.dtype == "fp32" and sizes.total // 2 <= there:
        remedy = f"--dtype bf16 takes half of it; or {remedy}"
    raise DeviceError(
        f"the weights take {gigabytes(sizes.total)} in {wanted.dtype}, and {gigabytes(there)} of memory are available;"
        f" {remedy}"
    )
