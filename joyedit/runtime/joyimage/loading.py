"""From a checkpoint, or from nothing but a size, to the backend that owns the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.job.spec import RunConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_loading import load_tokenizer
from joyedit.models.schedule import SHIFT
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.networks import DeviceChoice, Networks, PlacedModel
from joyedit.runtime.joyimage.placing import place
from joyedit.runtime.joyimage.prompt_files import open_conditioner
from joyedit.runtime.placement.placed_network import PlacedNetwork
from joyedit.runtime.tuning.compile import keep_compiled_code
from joyedit.weights import random
from joyedit.weights.defaults import nano_folder
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.load import (
    Component,
    Loading,
    WeightReader,
    check,
    load,
    load_in_order,
    told_as_faults_of,
)
from joyedit.weights.locate import locate
from joyedit.weights.random import SizeName
from joyedit.weights.wanted import Wanted


def load_backend(config: RunConfig) -> JoyImageBackend:
    """Find, recognise, check and load the checkpoint that `config` names.

    The DiT, two thirds of it, loads on in a thread while the encoder takes the first batch; `ready` waits
    for it. Raises CheckpointError, DeviceError or UsageError, with nothing half loaded.
    """
    model = Wanted.of(config)
    if not model.is_enough:
        raise CheckpointError("no model is given")
    started = time.perf_counter()
    keep_compiled_code(config)
    DeviceChoice.of(config)  # a device that is not there is told before a download
    checkpoint = open_checkpoint(locate(model))
    wanted = DeviceChoice.of(config, checkpoint.fp32_bytes)
    check(checkpoint.components, checkpoint.layout)
    conditioner = open_conditioner(checkpoint.text_encoder, checkpoint.tokenizer_folder, checkpoint.processor_folder)
    attention = wanted.attention(config.attention, checkpoint.dit.cfg)
    placed = place(checkpoint.dit, checkpoint.text_encoder, checkpoint.vae, wanted, config)
    part_of = {checkpoint.dit: placed.dit, checkpoint.text_encoder: placed.encoder, checkpoint.vae: None}
    # Encoding needs what is resident of the encoder and the VAE; what passes may still arrive while it is used.
    at_once = [c for c in checkpoint.components if c.module is not checkpoint.dit and part_of[c.module] is None]
    later = [(c, part_of[c.module]) for c in reversed(checkpoint.components) if c not in at_once]
    for component in at_once:
        _load(component, None, wanted)
    checkpoint.text_encoder.rebuild_rotary(wanted.device)
    if wanted.device.type == "cuda":
        torch.cuda.synchronize(wanted.device)
    rates = [_read_ahead(component, part, wanted) for component, part in later if part is not None and part.reads_later]
    networks = Networks(
        dit=checkpoint.dit,
        vae=checkpoint.vae,
        text_encoder=checkpoint.text_encoder,
        conditioner=conditioner,
        schedule=checkpoint.schedule,
        shift=checkpoint.shift,
        layout=checkpoint.layout + (" (Edit-Plus)" if checkpoint.edit_plus else ""),
        attention=attention,
        placed=replace(placed, disk_rate=min(rates, default=None)),
    )
    loading = Loading(partial(_load_all, later, wanted))
    try:
        return JoyImageBackend(networks, wanted, config, model=model.label, started=started, loading=loading)
    except BaseException:
        loading.cancel()
        raise


def _read_ahead(component: Component, placed: PlacedNetwork, wanted: DeviceChoice) -> float:
    """Begin to read what is not loaded; gives bytes a second. Raises CheckpointError."""
    reader = WeightReader(component)
    return placed.read_ahead(partial(_read_again, component, reader, wanted), reader.close)


def _load_all(
    components: Sequence[tuple[Component, PlacedNetwork | None]], wanted: DeviceChoice, cancelled: Callable[[], bool]
) -> None:
    """Load networks one after the other. After an error, whoever waits for one of them gets it."""
    try:
        for component, placed in components:
            _load(component, placed, wanted, cancelled)
    except BaseException as error:
        for _, placed in components:
            if placed is not None:
                placed.fail(error)
        raise


def _load(
    component: Component,
    placed: PlacedNetwork | None,
    wanted: DeviceChoice,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Load one network to the end: onto the device, or to where its placement says."""
    dtype_of = partial(wanted.dtype_of, component.name)
    if placed is None:
        load(component, wanted.device, dtype_of, cancelled)
    else:
        load_in_order(component, placed, wanted.device, dtype_of, cancelled)
    if wanted.device.type == "cuda":
        torch.cuda.synchronize(wanted.device)


def _read_again(component: Component, reader: WeightReader, wanted: DeviceChoice, views: Mapping[str, Tensor]) -> None:
    """Read weights that the host has no room to keep. Raises CheckpointError."""
    with told_as_faults_of(component, wanted.device, partial(wanted.dtype_of, component.name)):
        reader.fill(views)


def random_backend(size: SizeName, config: RunConfig) -> JoyImageBackend:
    """A backend of a size with random weights, built on the device; tokenizer and processor are nano's."""
    started = time.perf_counter()
    keep_compiled_code(config)
    wanted = DeviceChoice.of(config)
    folder = nano_folder()
    tokens = load_tokenizer(folder / "tokenizer")
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    ids = {f"{name}_token_id": int(tokens.convert_tokens_to_ids(token)) for name, token in names.items()}
    placed: list[PlacedModel] = []

    def placers(dit: DiT, encoder: TextEncoder, vae: VAE) -> random.Placers:
        placed.append(place(dit, encoder, vae, wanted, config, has_files=False))
        parts = {"transformer": placed[0].dit, "text encoder": placed[0].encoder}
        return {name: part.place for name, part in parts.items() if part is not None}

    dit, vae, text_encoder = random.build(size, wanted.device, wanted.dtype_of, ids, place=placers)
    networks = Networks(
        dit=dit,
        vae=vae,
        text_encoder=text_encoder,
        conditioner=open_conditioner(text_encoder, folder / "tokenizer", folder / "processor"),
        schedule="diffusers",
        shift=SHIFT,
        layout="random weights",
        attention=wanted.attention(config.attention, random.configs(size)[0]),
        placed=placed[0],
    )
    return JoyImageBackend(networks, wanted, config, model=f"random {size}", started=started)
