"""From the parts of a checkpoint to its three networks, still without weights.

`find` says where the parts lie. A part has a configuration as its maker wrote it, or it is read off the shapes of its
tensors; where shapes do not tell a value, the published one is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from joyedit.errors import CheckpointError, first_line
from joyedit.models.config import PIXEL_STEP, DiTConfig, VAEConfig
from joyedit.models.config_values import ConfigError, Values
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_config import checked_text_encoder
from joyedit.models.schedule import SHIFT, ScheduleName
from joyedit.models.vae import VAE
from joyedit.printable import brief
from joyedit.weights import names
from joyedit.weights.encoder_names import deepstack_layers, encoder_from_any
from joyedit.weights.files import TensorFiles
from joyedit.weights.find import Found, Layout, refuse_absent
from joyedit.weights.infer import dit_config_of_shapes, vae_config_of_shapes
from joyedit.weights.infer_encoder import encoder_config_of_shapes
from joyedit.weights.load import Component
from joyedit.weights.part import Part
from joyedit.weights.prompt_sources import PromptFolders, prompt_folders, token_ids
from joyedit.weights.regular_files import printable_path, read_object
from joyedit.weights.tensors import open_part
from joyedit.weights.wanted import NETWORKS, Role

T = TypeVar("T")
LEAST_TENSORS = 4
"""A layer of any of the networks has at least so many."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A recognised checkpoint: its networks on the meta device, and where everything lies.

    `processor_folder` is None where the published settings of the image processor are to be taken.
    """

    folder: Path | None
    layout: Layout
    dit: DiT
    vae: VAE
    text_encoder: TextEncoder
    tokenizer_folder: Path
    processor_folder: Path | None
    schedule: ScheduleName
    shift: float
    edit_plus: bool
    components: tuple[Component, ...]

    @property
    def fp32_bytes(self) -> int:
        """What the weights of all networks take in fp32."""
        return fp32_bytes(*(part.module for part in self.components))


def fp32_bytes(*networks: torch.nn.Module) -> int:
    """What the weights of these networks take in fp32."""
    return 4 * sum(one.numel() for network in networks for one in network.parameters())


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """The tensors of one network, and how their names lead to ours."""

    part: Part
    files: TensorFiles
    rename: names.Rename

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes by our names. Of the tensors that are not needed only those of the VAE are kept: they say what
        its levels do."""
        found = {}
        for name, shape in self.files.shapes().items():
            target = self.rename(name)
            if target == names.DROP and ".time_conv." in name:
                target = name.replace(".downsamples.", ".down_blocks.")
            if target:
                found[target] = shape
        return found


def open_checkpoint(found: Found, *, may_fetch: bool = True) -> Checkpoint:
    """Build the networks on the meta device. Reads configs and headers only.

    `may_fetch`: whether a tokenizer may be downloaded. Raises CheckpointError on anything missing or unreadable.
    """
    prompts = prompt_folders(found, may_fetch=may_fetch)
    refuse_absent(found, prompts.absent)
    said = found.said()
    shift = SHIFT if found.scheduler is None else _config(found.scheduler, _shift)
    readers: dict[Role, Callable[[dict[str, Any]], Any]] = {
        "dit": DiTConfig.from_dict, "vae": VAEConfig.from_dict, "encoder": checked_text_encoder,
    }  # fmt: skip
    configs = {  # all of them before the first header
        role: _config(config, read)
        for role, read in readers.items()
        if (config := found.parts[role].config) is not None
    }
    opened: dict[Role, _Opened] = {role: _open(part) for role, part in found.parts.items()}
    dit = configs.get("dit") or _read_off(found, opened["dit"], lambda shapes: dit_config_of_shapes(shapes, said))
    vae = configs.get("vae") or _read_off(found, opened["vae"], vae_config_of_shapes)
    opened["vae"] = _with_levels(opened["vae"], vae)
    text = configs.get("encoder") or _read_off(
        found, opened["encoder"], lambda shapes: _encoder_config(shapes, opened["encoder"].files, prompts)
    )
    return _assemble(found, opened, dit_config=dit, vae_config=vae, text_config=text, prompts=prompts, shift=shift)


def _open(part: Part) -> _Opened:
    files = open_part(part)
    known = files.shapes()
    renames: dict[Role, Callable[[], names.Rename]] = {
        "dit": lambda: names.dit_from_any,
        "vae": lambda: names.vae_from_any(known, 1),
        "encoder": lambda: encoder_from_any(known),
    }
    return _Opened(part=part, files=files, rename=renames[part.role]())


def _with_levels(opened: _Opened, config: VAEConfig) -> _Opened:
    """Wan's names are counted through all levels, so the renaming needs the size of a level."""
    rename = names.vae_from_any(opened.files.shapes(), config.num_res_blocks)
    return _Opened(part=opened.part, files=opened.files, rename=rename)


def _read_off(found: Found, opened: _Opened, read: Callable[[dict[str, tuple[int, ...]]], T]) -> T:
    """A configuration from shapes; any fault becomes a CheckpointError."""
    try:
        return read(opened.shapes())
    except (LookupError, ArithmeticError, ValueError) as error:
        reason = brief(str(error.args[0] if error.args else error), 200)
        if found.layout == "original" and found.folder is not None:
            start = f"{printable_path(found.folder)}: recognised as the authors' layout, but the sizes of the networks"
        else:
            start = f"{opened.files.where}: the size of the {NETWORKS[opened.part.role]}"
        raise CheckpointError(f"{start} cannot be read from its tensors: {reason}") from error


def _encoder_config(shapes: dict[str, tuple[int, ...]], files: TensorFiles, prompts: PromptFolders) -> dict[str, Any]:
    values: Mapping[str, Any] = getattr(files, "values", {})
    raw = encoder_config_of_shapes(shapes, values, deepstack_layers(files.shapes()), token_ids(prompts.tokenizer))
    return checked_text_encoder(raw)


def _assemble(
    found: Found,
    opened: Mapping[Role, _Opened],
    *,
    dit_config: DiTConfig,
    vae_config: VAEConfig,
    text_config: dict[str, Any],
    prompts: PromptFolders,
    shift: float,
) -> Checkpoint:
    """Build the three networks on the meta device and pair each with its files."""
    where = "the model" if found.folder is None else printable_path(found.folder)
    if dit_config.in_channels != vae_config.z_dim:
        raise CheckpointError(
            f"{where}: the transformer takes {dit_config.in_channels} latent channels, the VAE makes {vae_config.z_dim}"
        )
    for side in dit_config.patch:
        if PIXEL_STEP % (side * vae_config.spatial_factor):
            raise CheckpointError(
                f"{where}: {vae_config.spatial_factor} pixels a latent and {side} latents a patch"
                f" do not divide {PIXEL_STEP}"
            )
    _check_layers(dit_config, vae_config, text_config, opened)
    with torch.device("meta"):
        dit, vae = DiT(dit_config), VAE(vae_config)
        text = _text_encoder(text_config, opened["encoder"].part)
    if dit_config.text_dim != text.config.text_config.hidden_size:
        raise CheckpointError(
            f"{where}: the transformer takes text features of {dit_config.text_dim} channels, the text encoder"
            f" makes {text.config.text_config.hidden_size}"
        )
    fits: dict[Role, names.Fit] = {"dit": names.fit_dit, "vae": names.fit_vae, "encoder": names.fit_as_is}
    modules: dict[Role, torch.nn.Module] = {"dit": dit, "vae": vae, "encoder": text}
    components = tuple(
        Component(name=NETWORKS[role], module=modules[role], files=one.files, rename=one.rename, fit=fits[role])
        for role, one in ((role, opened[role]) for role in fits)
    )
    assert prompts.tokenizer is not None  # it would be among what is absent
    return Checkpoint(
        folder=found.folder,
        layout=found.layout,
        dit=dit,
        vae=vae,
        text_encoder=text,
        tokenizer_folder=prompts.tokenizer,
        processor_folder=prompts.processor,
        schedule=found.schedule,
        shift=shift,
        edit_plus=found.edit_plus,
        components=components,
    )


def _check_layers(dit: DiTConfig, vae: VAEConfig, text: dict[str, Any], opened: Mapping[Role, _Opened]) -> None:
    """Raises CheckpointError for more layers than the files can have tensors for: building those takes minutes."""
    layers: dict[Role, tuple[str, int]] = {
        "dit": ("num_layers", dit.num_layers),
        "vae": ("num_res_blocks times the levels of dim_mult", vae.num_res_blocks * len(vae.dim_mult)),
        "encoder": (
            "num_hidden_layers and depth",
            text["text_config"].get("num_hidden_layers", 0) + text["vision_config"].get("depth", 0),
        ),
    }
    for role, (name, count) in layers.items():
        source = opened[role].files
        if count * LEAST_TENSORS > len(source.shapes()):
            raise CheckpointError(
                f"{source.where}: holds {len(source.shapes())} tensors, too few for the {count} layers that the"
                f" configuration asks for ({name})"
            )


def _text_encoder(config: dict[str, Any], part: Part) -> TextEncoder:
    """The network of a checked configuration. What transformers still refuses in it is told with the file's name."""
    try:
        return TextEncoder(config)
    except MemoryError:
        raise
    except Exception as error:
        name = printable_path(part.config or part.files[0])
        raise CheckpointError(f"{name}: not a usable Qwen3-VL config ({first_line(error)})") from error


def _config(path: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """One JSON config through its reader; any fault in it becomes a CheckpointError that names the file."""
    try:
        return read(read_object(path))
    except ConfigError as error:
        raise CheckpointError(f"{printable_path(path)}: {error}") from error


def _shift(raw: dict[str, Any]) -> float:
    for key in (
        *("use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
        *("invert_sigmas", "shift_terminal", "stochastic_sampling"),
    ):
        if raw.get(key):
            raise ConfigError(f"scheduler option {key} is not supported")
    return Values(raw).number("shift", 0.001, 1000, SHIFT)
