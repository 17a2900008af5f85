"""From networks without weights to a placement, and to networks that take their weights by it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.job.spec import RunConfig, Size
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE
from joyedit.printable import gigabytes
from joyedit.runtime.joyimage.memory import RESERVE, MemoryModel, available_bytes, cache_bytes
from joyedit.runtime.joyimage.networks import DeviceChoice, PlacedModel
from joyedit.runtime.placement.placed_network import Passing, PlacedNetwork
from joyedit.runtime.placement.plan import SLOTS, Placement, WorkingMemory, choose, resident
from joyedit.runtime.placement.sizes import BLOCKS, EMBEDDING, TEXT_LAYERS, VISION_BLOCKS, Sizes, stays_with_rest
from joyedit.runtime.tuning.device import DTYPES

LARGEST: Size = (1024, 1024)
"""The largest target that a plan makes room for; its reference is as large."""
STEPS = 50
FEWEST_TEXT_SLOTS = 2


def plan(
    dit: DiT, encoder: TextEncoder, vae: VAE, wanted: DeviceChoice, config: RunConfig, beside: int = 0
) -> tuple[Placement, int]:
    """The placement of these networks, which may be on the meta device, and the bytes of the device that it keeps to.

    `beside` are bytes of the device that something else takes all the time, such as LoRAs.
    Raises DeviceError where nothing fits.
    """
    sizes = Sizes.of(dit, encoder, vae, wanted.dtype_of)
    budget = device_budget(wanted.device, config.memory)
    working = _working(dit, vae, encoder, wanted, sizes, budget)
    working = replace(working, kept=working.kept + beside)
    if wanted.device.type == "cpu" and config.memory is None and config.offload == "auto":
        _check_host(sizes, wanted)
        return resident(sizes, working), budget
    host = machine_memory.available_bytes()
    return choose(sizes, working, budget, host, offload=config.offload, reserve=RESERVE), budget


def place(
    dit: DiT, encoder: TextEncoder, vae: VAE, wanted: DeviceChoice, config: RunConfig, beside: int = 0
) -> PlacedModel:
    """Plan, and prepare the networks whose layers pass for their weights. `beside` as in `plan`. Raises DeviceError."""
    placement, budget = plan(dit, encoder, vae, wanted, config, beside)
    if wanted.device.type == "cuda" and config.memory is not None:
        _bound(wanted.device, budget)
    placed_dit = placed_encoder = None
    if placement.streams_blocks:
        passing = Passing(
            prefix=BLOCKS, streamed=placement.streamed_blocks(), slots=placement.slots, left_out=stays_with_rest
        )
        placed_dit = PlacedNetwork(dit, [passing], wanted.device, partial(wanted.dtype_of, "transformer"))
        (dit.weights,) = placed_dit.groups
    if placement.encoder_streams:
        config_of = encoder.config
        layers, blocks = config_of.text_config.num_hidden_layers, config_of.vision_config.depth
        placed_encoder = PlacedNetwork(
            encoder,
            [
                Passing(prefix=VISION_BLOCKS, streamed=range(blocks), slots=SLOTS),
                Passing(prefix=TEXT_LAYERS, streamed=range(layers), slots=FEWEST_TEXT_SLOTS),
            ],
            wanted.device,
            partial(wanted.dtype_of, "text encoder"),
            on_host=(EMBEDDING,),
        )
        for group in placed_encoder.groups:
            group.hook()
    return PlacedModel(placement=placement, budget=budget, dit=placed_dit, encoder=placed_encoder)


def device_budget(device: torch.device, memory: int | None) -> int:
    """The bytes of the device that joyedit may use: what is free, and no more than `memory`."""
    free = available_bytes(device)
    return free if memory is None else min(memory, free) if device.type == "cuda" else memory


def _bound(device: torch.device, budget: int) -> None:
    """Let torch refuse more than the budget, whatever the plan expected."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device)


def lift_bound(device: torch.device) -> None:
    """Let torch take all of the device again."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _working(
    dit: DiT, vae: VAE, encoder: TextEncoder, wanted: DeviceChoice, sizes: Sizes, budget: int
) -> WorkingMemory:
    model = MemoryModel(dit=dit.cfg, vae=vae.cfg, itemsize=DTYPES[wanted.dtype].itemsize)
    return WorkingMemory(
        encode=model.encoding_bytes(LARGEST, encoder.config.text_config),
        denoise=model.denoising_bytes(LARGEST, 1, STEPS),
        decode=model.decoding_bytes(LARGEST),
        kept=cache_bytes(budget - sizes.total),
    )


def _check_host(sizes: Sizes, wanted: DeviceChoice) -> None:
    """Raises DeviceError if the weights do not fit into the host's memory, which is the device."""
    there = machine_memory.available_bytes()
    if there is None or sizes.total <= there:
        return
    remedy = "use a machine with more memory"
    if wanted.dtype == "fp32" and sizes.total // 2 <= there:
        remedy = f"--dtype bf16 takes half of it; or {remedy}"
    raise DeviceError(
        f"the weights take {gigabytes(sizes.total)} in {wanted.dtype}, and {gigabytes(there)} of memory are available;"
        f" {remedy}"
    )
