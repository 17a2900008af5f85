"""From a checkpoint, or from nothing but a size, to the backend that owns the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from joyedit.errors import CheckpointError
from joyedit.job.run_config import RandomSize, RunConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_loading import load_tokenizer
from joyedit.models.schedule import SHIFT
from joyedit.models.transfer import use_in_this_thread
from joyedit.models.vae import VAE
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loras import Loras, Merger
from joyedit.runtime.joyimage.networks import DeviceChoice, Networks, PlacedModel
from joyedit.runtime.joyimage.placing import Unplaced, lift_bound, place
from joyedit.runtime.joyimage.prompt_files import open_conditioner
from joyedit.runtime.placement.placed_network import PlacedNetwork
from joyedit.runtime.tuning.compile import keep_compiled_code
from joyedit.runtime.tuning.device import DTYPES
from joyedit.weights import random
from joyedit.weights.defaults import DEFAULTS_FILE, nano_folder, recommended
from joyedit.weights.layouts import Checkpoint, open_checkpoint
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
from joyedit.weights.quantised_files import QuantisedFiles, quantised_component
from joyedit.weights.wanted import Wanted


def load_backend(config: RunConfig) -> JoyImageBackend:
    """Find, recognise, check and load the checkpoint that `config` names; or random weights, where it asks for them.

    The DiT, two thirds of it, loads on in a thread while the encoder takes the first batch; `ready` waits
    for it. Raises CheckpointError, DeviceError or UsageError, with nothing half loaded.
    """
    if config.random is not None:
        return random_backend(config.random, config)
    model = Wanted.of(config)
    if not model.is_enough:
        raise CheckpointError("no model is given")
    started = time.perf_counter()
    keep_compiled_code(config)
    DeviceChoice.of(config)  # a device that is not there is told before a download
    checkpoint = open_checkpoint(locate(model))
    wanted = DeviceChoice.of(config, checkpoint.fp32_bytes)
    check(checkpoint.components, checkpoint.layout)
    loras = Loras(checkpoint.dit, config)
    merger = loras.merger(wanted.device, partial(wanted.exact_dtype_of, "transformer"))
    wanted.prepare(checkpoint.dit)
    attention = wanted.attention(config.attention, checkpoint.dit.cfg)
    beside = loras.device_bytes(DTYPES[wanted.dtype].itemsize)
    placed = place(Unplaced(checkpoint.dit, checkpoint.text_encoder, checkpoint.vae), wanted, config, beside)
    begun: list[Loading] = []
    try:
        at_once, later = _in_order(checkpoint, placed, wanted, merger)
        rates = [rate for part in later if (rate := _read_ahead(part, wanted))]
        first = Loading(partial(_load_all, [_Part(component=component) for component in at_once], wanted))
        begun.append(first)
        loading = Loading(partial(_load_after, first, later, wanted))
        begun.append(loading)
        # Importing what reads prompts takes seconds, and reading weights needs no Python meanwhile.
        conditioner = open_conditioner(
            checkpoint.text_encoder, checkpoint.tokenizer_folder, checkpoint.processor_folder
        )
        first.wait()
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
            placed=replace(placed, disk_rate=min(rates, default=None)),
            loras=loras,
            originals=_originals(later),
            sigmas=() if checkpoint.folder is None else recommended(checkpoint.folder / DEFAULTS_FILE).sigmas,
        )
        return JoyImageBackend(networks, wanted, config, model=model.label, started=started, loading=loading)
    except BaseException:
        for one in begun:
            one.cancel()
        placed.close()
        lift_bound(wanted.device)
        raise


def _in_order(
    checkpoint: Checkpoint, placed: PlacedModel, wanted: DeviceChoice, merger: Merger | None
) -> tuple[list[Component], list[_Part]]:
    """What the first batch waits for, and the networks that may arrive while it is encoded: all others."""
    part_of = {checkpoint.dit: placed.dit, checkpoint.text_encoder: placed.encoder, checkpoint.vae: None}
    # Encoding needs what is resident of the encoder and the VAE; what passes may still arrive while it is used.
    at_once = [c for c in checkpoint.components if c.module is not checkpoint.dit and part_of[c.module] is None]
    later = [
        _dit_part(one, wanted, placed.dit, merger)
        if one.module is checkpoint.dit
        else _Part(component=one, placed=part_of[one.module])
        for one in reversed(checkpoint.components)
        if one not in at_once
    ]
    return at_once, later


def _originals(parts: Sequence[_Part]) -> QuantisedFiles | None:
    """The files whose weights are quantised as they are read, if there are such."""
    return next((files for part in parts if isinstance(files := part.component.files, QuantisedFiles)), None)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A network to be loaded: where its weights go by its placement, and what merges LoRAs into them."""

    component: Component
    placed: PlacedNetwork | None = None
    merger: Merger | None = None


def _dit_part(component: Component, wanted: DeviceChoice, placed: PlacedNetwork | None, merger: Merger | None) -> _Part:
    """The DiT; weights of 8 bits are merged with LoRAs before they are quantised."""
    if wanted.precision == "exact":
        return _Part(component=component, placed=placed, merger=merger)
    dtypes = partial(wanted.dtype_of, component.name), partial(wanted.exact_dtype_of, component.name)

    def is_exact(name: str) -> bool:
        return dtypes[0](name) == dtypes[1](name)

    before = None if merger is None else merger.only(lambda name: not is_exact(name))
    made = quantised_component(component, wanted.device, *dtypes, before)
    return _Part(component=made, placed=placed, merger=None if merger is None else merger.only(is_exact))


class _MergedOnTheWay:
    """A destination whose weights get LoRAs merged before they are used."""

    def __init__(self, placed: PlacedNetwork, merger: Merger) -> None:
        self._placed, self._merger = placed, merger
        self.order, self.is_read_later, self.filled = placed.order, placed.is_read_later, placed.filled

    def host_view(self, name: str) -> Tensor | None:
        """A changed weight goes to its place when it is changed: other workers may compute with what lies there."""
        return None if self._merger.changes(name) else self._placed.host_view(name)

    def place(self, name: str, tensor: Tensor) -> None:
        """Change it, and hand it on."""
        self._placed.place(name, self._merger(name, tensor))


def _merge_in_place(merger: Merger, name: str, view: Tensor) -> None:
    made = merger(name, view)
    if made is not view:
        view.copy_(made)


def _read_ahead(part: _Part, wanted: DeviceChoice) -> float:
    """Begin to read what is not loaded; gives bytes a second, 0 where all is. Raises CheckpointError."""
    if part.placed is None or not part.placed.reads_later:
        return 0.0
    reader = WeightReader(part.component)
    # What is merged or quantised on the device on the way waits for nothing that is computed there. It is one stream
    # for all layers: each stream keeps memory of the device.
    aside = _stream_of_its_own(wanted.device)
    return part.placed.read_ahead(partial(_read_again, part, reader, wanted, aside), reader.close)


def _read_again(
    part: _Part,
    reader: WeightReader,
    wanted: DeviceChoice,
    aside: AbstractContextManager[object],
    views: Mapping[str, Tensor],
) -> None:
    """Read weights that the host has no room to keep. Raises CheckpointError, and DeviceError for lack of memory."""
    component = part.component
    with told_as_faults_of(component, wanted.device, partial(wanted.dtype_of, component.name)), aside:
        reader.fill(views)
        if part.merger is not None:
            for name, view in views.items():
                _merge_in_place(part.merger, name, view)


def _load_all(parts: Sequence[_Part], wanted: DeviceChoice, cancelled: Callable[[], bool]) -> None:
    """Load networks one after the other. After an error, whoever waits for one of them gets it."""
    try:
        use_in_this_thread(wanted.device)
        for part in parts:
            _load(part, wanted, cancelled)
    except BaseException as error:
        _fail(parts, error)
        raise


def _fail(parts: Sequence[_Part], error: BaseException) -> None:
    for part in parts:
        if part.placed is not None:
            part.placed.fail(error)


def _load_after(first: Loading, parts: Sequence[_Part], wanted: DeviceChoice, cancelled: Callable[[], bool]) -> None:
    """Load networks when others are loaded. Where these fail, nobody gets these either."""
    try:
        first.wait()
    except BaseException as error:
        _fail(parts, error)
        raise
    _load_all(parts, wanted, cancelled)


def _load(part: _Part, wanted: DeviceChoice, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Load one network to the end: onto the device, or to where its placement says."""
    component, placed, merger = part.component, part.placed, part.merger
    dtype_of = partial(wanted.dtype_of, component.name)
    with _stream_of_its_own(wanted.device):
        if placed is None:
            load(component, wanted.device, dtype_of, cancelled)
            if merger is not None:
                merger.network(component.module)
        else:
            destination = placed if merger is None else _MergedOnTheWay(placed, merger)
            load_in_order(component, destination, wanted.device, dtype_of, cancelled)
    if wanted.device.type == "cuda":
        torch.cuda.synchronize(wanted.device)


def _stream_of_its_own(device: torch.device) -> AbstractContextManager[object]:
    """A context in which copies wait for nothing that is computed meanwhile."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def random_backend(size: RandomSize, config: RunConfig) -> JoyImageBackend:
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
        wanted.prepare(dit)
        placed.append(place(Unplaced(dit, encoder, vae), wanted, config, has_files=False))
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
