"""What a checkpoint folder holds: its layout, and from it the three networks, still without weights.

Recognised: `diffusers` (model_index.json and a folder for each network) and `original` (the
authors': transformer/transformer.pth, one .pth in vae/, JoyAI-Image-Und/). The authors'
infer_config.py is never executed; what it says is read off the tensors' shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from joyedit.errors import CheckpointError, first_line
from joyedit.models.config import ConfigError, DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.schedule import SHIFT, ScheduleName
from joyedit.models.vae import VAE
from joyedit.weights import names
from joyedit.weights.defaults import local_folder
from joyedit.weights.files import PickleFile, TensorFiles, open_safetensors
from joyedit.weights.infer import dit_config_of_shapes, vae_config_of_shapes
from joyedit.weights.load import Component

Layout = Literal["diffusers", "original"]
T = TypeVar("T")
UNDERSTANDING = "JoyAI-Image-Und"
HUB_PATTERNS = ["*.json", "*.safetensors", "*.pth", "*.txt", "*.jinja"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A recognised checkpoint: its networks on the meta device, and where everything lies."""

    folder: Path
    layout: Layout
    dit: DiT
    vae: VAE
    text_encoder: TextEncoder
    tokenizer_folder: Path
    processor_folder: Path
    schedule: ScheduleName
    shift: float
    edit_plus: bool
    components: tuple[Component, ...]


def resolve(model: str) -> Path:
    """The local folder of `model`: a path, `nano`, or a hub id, which huggingface_hub downloads."""
    folder = local_folder(model)
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=HUB_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"--model {model}: no such folder here, and the hub did not give it ({first_line(error)});"
            " check the name and the network, or give a local folder"
        ) from error


def detect(folder: Path) -> Layout:
    """Tell the layout by what is in the folder. Raises CheckpointError for none."""
    if (folder / "transformer" / "transformer.pth").is_file():
        return "original"
    if (folder / "model_index.json").is_file() or (folder / "transformer" / "config.json").is_file():
        return "diffusers"
    if any(folder.rglob("joy_image_edit*.safetensors")):
        raise CheckpointError(
            f"{folder}: this looks like the ComfyUI layout (single safetensors files), which joyedit does not"
            " read; use the diffusers or the authors' folder"
        )
    raise CheckpointError(
        f"{folder}: no known checkpoint layout. A diffusers folder holds model_index.json, transformer/, vae/,"
        f" text_encoder/; the authors' holds transformer/transformer.pth, vae/*.pth, {UNDERSTANDING}/"
    )


def schedule_of(folder: Path, layout: Layout) -> ScheduleName:
    """The noise schedule that a checkpoint was made for."""
    return "diffusers" if layout == "diffusers" and (folder / _SCHEDULER).is_file() else "original"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Recognise the layout and build the networks on the meta device. Reads configs and headers only.

    Raises CheckpointError on anything missing or unreadable.
    """
    layout = detect(folder)
    return _open_diffusers(folder) if layout == "diffusers" else _open_original(folder)


def _open_diffusers(folder: Path) -> Checkpoint:
    dit_config = _config(folder / "transformer" / "config.json", DiTConfig.from_dict)
    vae_config = _config(folder / "vae" / "config.json", VAEConfig.from_dict)
    text_folder = folder / "text_encoder"
    text_config = _config(text_folder / "config.json", dict)
    schedule = schedule_of(folder, "diffusers")
    shift = _config(folder / _SCHEDULER, _shift) if schedule == "diffusers" else SHIFT
    index = folder / "model_index.json"
    class_name = _config(index, lambda raw: str(raw.get("_class_name", ""))) if index.is_file() else ""
    processor = folder / "processor"
    tokenizer = folder / "tokenizer"
    return _assemble(
        folder,
        "diffusers",
        dit_config=dit_config,
        vae_config=vae_config,
        text_config=text_config,
        text_folder=text_folder,
        files={
            "dit": (open_safetensors(folder / "transformer", _DIFFUSERS_STEM), names.dit_from_diffusers),
            "vae": (open_safetensors(folder / "vae", _DIFFUSERS_STEM), names.vae_from_diffusers),
            "text": (open_safetensors(text_folder, "model"), names.text_encoder),
        },
        tokenizer_folder=tokenizer if tokenizer.is_dir() else processor,
        processor_folder=processor if processor.is_dir() else tokenizer,
        schedule=schedule,
        shift=shift,
        edit_plus="EditPlus" in class_name,
    )


def _open_original(folder: Path) -> Checkpoint:
    text_folder = folder / UNDERSTANDING
    if not text_folder.is_dir():
        raise CheckpointError(f"{folder}: the authors' layout needs {UNDERSTANDING}/ (the Qwen3-VL folder)")
    vae_files = sorted((folder / "vae").glob("*.pth"))
    if len(vae_files) != 1:
        raise CheckpointError(f"{folder / 'vae'}: one .pth file is expected, found {len(vae_files)}")
    dit = PickleFile(folder / "transformer" / "transformer.pth")
    vae = PickleFile(vae_files[0])
    try:
        dit_config = dit_config_of_shapes(dit.shapes())
        vae_config = vae_config_of_shapes(vae.shapes())
    except (KeyError, ConfigError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: recognised as the authors' layout,"
            f" but the sizes of the networks cannot be read from its tensors: {error.args[0] if error.args else error}"
        ) from error
    return _assemble(
        folder,
        "original",
        dit_config=dit_config,
        vae_config=vae_config,
        text_config=_config(text_folder / "config.json", dict),
        text_folder=text_folder,
        files={
            "dit": (dit, names.dit_from_original),
            "vae": (vae, names.vae_from_original(vae_config.num_res_blocks)),
            "text": (open_safetensors(text_folder, "model"), names.text_encoder),
        },
        tokenizer_folder=text_folder,
        processor_folder=text_folder,
        schedule=schedule_of(folder, "original"),
        shift=SHIFT,
        edit_plus=False,
    )


_DIFFUSERS_STEM = "diffusion_pytorch_model"
_SCHEDULER = Path("scheduler", "scheduler_config.json")


def _assemble(
    folder: Path,
    layout: Layout,
    *,
    dit_config: DiTConfig,
    vae_config: VAEConfig,
    text_config: dict[str, Any],
    text_folder: Path,
    files: dict[str, tuple[TensorFiles, names.Rename]],
    **rest: Any,
) -> Checkpoint:
    """Build the three networks on the meta device and pair each with its files."""
    try:
        with torch.device("meta"):
            dit, vae, text = DiT(dit_config), VAE(vae_config), TextEncoder(text_config)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{text_folder / 'config.json'}: not a usable Qwen3-VL config ({error})") from error
    if dit_config.in_channels != vae_config.z_dim:
        raise CheckpointError(
            f"{folder}: the transformer takes {dit_config.in_channels} latent channels, the VAE makes"
            f" {vae_config.z_dim}"
        )
    if dit_config.text_dim != text.config.text_config.hidden_size:
        raise CheckpointError(
            f"{folder}: the transformer takes text features of {dit_config.text_dim} channels, the text encoder"
            f" makes {text.config.text_config.hidden_size}"
        )
    fits = {"dit": names.fit_dit, "vae": names.fit_vae, "text": names.fit_as_is}
    labels = {"dit": "transformer", "vae": "vae", "text": "text encoder"}
    modules = {"dit": dit, "vae": vae, "text": text}
    components = tuple(
        Component(name=labels[key], module=modules[key], files=source, rename=rename, fit=fits[key])
        for key, (source, rename) in files.items()
    )
    return Checkpoint(folder=folder, layout=layout, dit=dit, vae=vae, text_encoder=text, components=components, **rest)


def _config(path: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """One JSON config through its reader; any fault in it becomes a CheckpointError that names the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise ConfigError("must be a JSON object")
        return read(raw)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; the checkpoint is incomplete") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: {detail}") from error


def _shift(raw: dict[str, Any]) -> float:
    for key in ("use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        if raw.get(key):
            raise ConfigError(f"scheduler option {key} is not supported")
    return float(raw.get("shift", SHIFT))
