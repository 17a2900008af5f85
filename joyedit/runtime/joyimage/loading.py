"""From a checkpoint, or from nothing but a size, to the backend that owns the device."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from joyedit.runtime.joyimage.loras import Loras, Merger
from joyedit.runtime.joyimage.networks import DeviceChoice, Networks, PlacedModel
from joyedit.runtime.joyimage.placing import place
from joyedit.runtime.joyimage.prompt_files import open_conditioner
from joyedit.runtime.placement.placed_network import PlacedNetwork
from joyedit.runtime.tuning.compile import keep_compiled_code
from joyedit.runtime.tuning.device import DTYPES
from joyedit.weights import random
from joyedit.weights.defaults import DEFAULTS_FILE, nano_folder, recommended
from joyedit.weights.hub import resolve
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.load import Component, Loading, check, load, load_in_order
from joyedit.weights.random import SizeName


def load_backend(config: RunConfig) -> JoyImageBackend:
    """Find, recognise, check and load the checkpoint that `config.model` names.

    The DiT, two thirds of it, loads on in a thread while the encoder takes the first batch; `ready` waits
    for it. Raises CheckpointError, DeviceError or UsageError, with nothing half loaded.
    """
    if config.model is None:
        raise CheckpointError("no model is given")
    started = time.perf_counter()
    keep_compiled_code(config)
    wanted = DeviceChoice.of(config)
    checkpoint = open_checkpoint(resolve(config.model))
    check(checkpoint.components, checkpoint.layout)
    conditioner = open_conditioner(checkpoint.text_encoder, checkpoint.tokenizer_folder, checkpoint.processor_folder)
    attention = wanted.attention(config.attention, checkpoint.dit.cfg)
    loras = Loras(checkpoint.dit, config)
    beside = loras.device_bytes(DTYPES[wanted.dtype].itemsize)
    placed = place(checkpoint.dit, checkpoint.text_encoder, checkpoint.vae, wanted, config, beside)
    later = next(c for c in checkpoint.components if c.module is checkpoint.dit)
    for component in checkpoint.components:
        if component is not later:
            _load(component, placed.encoder if component.module is checkpoint.text_encoder else None, wanted)
    checkpoint.text_encoder.rebuild_rotary(wanted.device)
    networks = Networks(
        dit=checkpoint.dit,
        vae=checkpoint.vae,
        text_encoder=checkpoint.text_encoder,
        conditioner=conditioner,
        schedule=checkpoint.schedule,
        shift=checkpoint.shift,
        layout=checkpoint.layout + (" (Edit-Plus)" if checkpoint.edit_plus else ""),
        attention=attention,
        placed=placed,
        loras=loras,
        sigmas=recommended(checkpoint.folder / DEFAULTS_FILE).sigmas,
    )
    if wanted.device.type == "cuda":
        torch.cuda.synchronize(wanted.device)
    merger = loras.merger(wanted.device, partial(wanted.dtype_of, later.name))
    loading = Loading(partial(_load, later, placed.dit, wanted, merger=merger))
    try:
        return JoyImageBackend(networks, wanted, config, model=config.model, started=started, loading=loading)
    except BaseException:
        loading.cancel()
        raise


def _load(
    component: Component,
    placed: PlacedNetwork | None,
    wanted: DeviceChoice,
    cancelled: Callable[[], bool] = lambda: False,
    *,
    merger: Merger | None = None,
) -> None:
    """Load one network to the end: onto the device, or to where its placement says. `merger` changes its weights."""
    dtype_of = partial(wanted.dtype_of, component.name)
    if placed is None:
        load(component, wanted.device, dtype_of, cancelled)
        if merger is not None:
            merger.network(component.module)
    else:

        def put(name: str, tensor: Tensor) -> None:
            placed.place(name, tensor if merger is None else merger(name, tensor))

        try:
            load_in_order(component, put, placed.order, wanted.device, dtype_of, cancelled)
        except BaseException as error:
            placed.fail(error)
            raise
    if wanted.device.type == "cuda":
        torch.cuda.synchronize(wanted.device)


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
        placed.append(place(dit, encoder, vae, wanted, config))
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
        loras=Loras(dit, config),
    )
    return JoyImageBackend(networks, wanted, config, model=f"random {size}", started=started)
