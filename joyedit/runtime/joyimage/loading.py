"""From a checkpoint, or from nothing but a size, to the backend that owns the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from joyedit.errors import CheckpointError
from joyedit.job.spec import RunConfig
from joyedit.models.qwen_loading import load_tokenizer
from joyedit.models.schedule import SHIFT
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.networks import DeviceChoice, Networks
from joyedit.runtime.joyimage.prompt_files import open_conditioner
from joyedit.runtime.tuning.compile import keep_compiled_code
from joyedit.weights import random
from joyedit.weights.defaults import nano_folder
from joyedit.weights.layouts import open_checkpoint
from joyedit.weights.load import Component, Loading, check, load
from joyedit.weights.locate import locate
from joyedit.weights.random import SizeName
from joyedit.weights.wanted import Wanted

HOST = torch.device("cpu")


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
    wanted = DeviceChoice.of(config)
    checkpoint = open_checkpoint(locate(model))
    check(checkpoint.components, checkpoint.layout)
    conditioner = open_conditioner(checkpoint.text_encoder, checkpoint.tokenizer_folder, checkpoint.processor_folder)
    attention = wanted.attention(config.attention, checkpoint.dit.cfg)
    later = next(c for c in checkpoint.components if c.module is checkpoint.dit)
    for component in checkpoint.components:
        if component is not later:
            moves = config.offload == "encoder" and component.module is checkpoint.text_encoder
            load(component, HOST if moves else wanted.device, partial(wanted.dtype_of, component.name))
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
    )
    if wanted.device.type == "cuda":
        torch.cuda.synchronize(wanted.device)
    loading = Loading(partial(_load_on, later, HOST if config.offload == "encoder" else wanted.device, wanted))
    try:
        return JoyImageBackend(networks, wanted, config, model=model.label, started=started, loading=loading)
    except BaseException:
        loading.cancel()
        raise


def _load_on(component: Component, device: torch.device, wanted: DeviceChoice, cancelled: Callable[[], bool]) -> None:
    """Load one network to the end, in a thread."""
    load(component, device, partial(wanted.dtype_of, component.name), cancelled)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_backend(size: SizeName, config: RunConfig) -> JoyImageBackend:
    """A backend of a size with random weights, built on the device; tokenizer and processor are nano's."""
    started = time.perf_counter()
    keep_compiled_code(config)
    wanted = DeviceChoice.of(config)
    folder = nano_folder()
    tokens = load_tokenizer(folder / "tokenizer")
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    ids = {f"{name}_token_id": int(tokens.convert_tokens_to_ids(token)) for name, token in names.items()}
    dit, vae, text_encoder = random.build(size, wanted.device, wanted.dtype_of, ids)
    networks = Networks(
        dit=dit,
        vae=vae,
        text_encoder=text_encoder,
        conditioner=open_conditioner(text_encoder, folder / "tokenizer", folder / "processor"),
        schedule="diffusers",
        shift=SHIFT,
        layout="random weights",
        attention=wanted.attention(config.attention, random.configs(size)[0]),
    )
    return JoyImageBackend(networks, wanted, config, model=f"random {size}", started=started)
