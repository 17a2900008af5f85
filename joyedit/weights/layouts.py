"""What a checkpoint folder holds: its layout, and from it the three networks, still without weights.

Recognised: `diffusers` (model_index.json and a folder for each network) and `original` (the
authors': transformer/transformer.pth, one .pth in vae/, JoyAI-Image-Und/). The authors'
infer_config.py is never executed; what it says is read off the tensors' shapes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

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
from joyedit.weights.defaults import HUB_EDIT, HUB_EDIT_PLUS, HUB_ORIGINAL
from joyedit.weights.files import TensorFiles, absent_files, open_safetensors
from joyedit.weights.infer import dit_config_of_shapes, vae_config_of_shapes
from joyedit.weights.load import Component
from joyedit.weights.pickle_file import PickleFile
from joyedit.weights.regular_files import entries, files_below, is_there, printable_path, read_object

Layout = Literal["diffusers", "original"]
T = TypeVar("T")
Source = tuple[TensorFiles, names.Rename]
"""The tensors of one network, and how their names lead to ours."""
MOST_SHOWN = 100
"""The names of so many missing files are told, and the number of the others."""
LEAST_TENSORS = 4
"""A layer of any of the networks has at least so many."""
UNDERSTANDING = "JoyAI-Image-Und"


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


def detect(folder: Path) -> Layout:
    """Tell the layout by what is in the folder. Raises CheckpointError for none."""
    if is_there(folder / "transformer" / "transformer.pth"):
        return "original"
    if is_there(folder / "model_index.json") or is_there(folder / "transformer" / "config.json"):
        return "diffusers"
    if any(path.match("joy_image_edit*.safetensors") for path in files_below(folder)):
        raise CheckpointError(
            f"{printable_path(folder)}: this looks like the ComfyUI layout (single safetensors files), which"
            " joyedit does not read; use the diffusers or the authors' folder"
        )
    raise CheckpointError(
        f"{printable_path(folder)}: no known checkpoint layout. A diffusers folder holds model_index.json,"
        f" transformer/, vae/, text_encoder/; the authors' holds transformer/transformer.pth, vae/*.pth,"
        f" {UNDERSTANDING}/"
    )


def schedule_of(folder: Path, layout: Layout) -> ScheduleName:
    """The noise schedule that a checkpoint was made for."""
    return "diffusers" if layout == "diffusers" and is_there(folder / _SCHEDULER) else "original"


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
    text_config = _config(text_folder / "config.json", checked_text_encoder)
    schedule = schedule_of(folder, "diffusers")
    shift = _config(folder / _SCHEDULER, _shift) if schedule == "diffusers" else SHIFT
    index = folder / "model_index.json"
    class_name = _config(index, lambda raw: Values(raw).text("_class_name", "")) if is_there(index) else ""
    edit_plus = "EditPlus" in class_name
    stems = {"transformer": _DIFFUSERS_STEM, "vae": _DIFFUSERS_STEM, "text_encoder": "model"}
    _refuse_absent(folder, stems, HUB_EDIT_PLUS if edit_plus else HUB_EDIT)
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
        edit_plus=edit_plus,
    )


def _open_original(folder: Path) -> Checkpoint:
    text_folder = folder / UNDERSTANDING
    if not os.path.isdir(text_folder):
        raise CheckpointError(
            f"{printable_path(folder)}: the authors' layout needs {UNDERSTANDING}/ (the Qwen3-VL folder)"
        )
    vae_files = [path for path in entries(folder / "vae") if path.suffix == ".pth"]
    if len(vae_files) != 1:
        raise CheckpointError(f"{printable_path(folder / 'vae')}: one .pth file is expected, found {len(vae_files)}")
    dit = PickleFile(folder / "transformer" / "transformer.pth")
    vae = PickleFile(vae_files[0])
    try:
        dit_config = dit_config_of_shapes(dit.shapes())
        vae_config = vae_config_of_shapes(vae.shapes())
    except (LookupError, ArithmeticError, ValueError) as error:
        reason = brief(str(error.args[0] if error.args else error), 200)
        raise CheckpointError(
            f"{printable_path(folder)}: recognised as the authors' layout,"
            f" but the sizes of the networks cannot be read from its tensors: {reason}"
        ) from error
    _refuse_absent(folder, {UNDERSTANDING: "model"}, HUB_ORIGINAL)
    return _assemble(
        folder,
        "original",
        dit_config=dit_config,
        vae_config=vae_config,
        text_config=_config(text_folder / "config.json", checked_text_encoder),
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


def _refuse_absent(folder: Path, stems: Mapping[str, str], published: str) -> None:
    """Raises CheckpointError that names every weight file that is absent, and how to get them.

    `stems` are the names of the files in each component's folder, `published` the checkpoint of this layout on the hub.
    """
    absent = [path for part, stem in stems.items() for path in absent_files(folder / part, stem)]
    if absent:
        where = printable_path(folder)
        what = "1 file of weights is missing" if len(absent) == 1 else f"{len(absent)} files of weights are missing"
        shown = [brief(path.relative_to(folder).as_posix()) for path in absent[:MOST_SHOWN]]
        shown += [f"... and {len(absent) - MOST_SHOWN} more"] if len(absent) > MOST_SHOWN else []
        names = "\n".join(shown)
        raise CheckpointError(
            f"{where}: {what}\n{names}\nif these are the published weights, this command fetches what is missing:\n"
            f"hf download {published} --local-dir {shlex.quote(where)}"
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
    files: dict[str, Source],
    **rest: Any,
) -> Checkpoint:
    """Build the three networks on the meta device and pair each with its files."""
    where = printable_path(folder)
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
    _check_layers(dit_config, vae_config, text_config, files)
    with torch.device("meta"):
        dit, vae = DiT(dit_config), VAE(vae_config)
        text = _text_encoder(text_config, text_folder)
    if dit_config.text_dim != text.config.text_config.hidden_size:
        raise CheckpointError(
            f"{where}: the transformer takes text features of {dit_config.text_dim} channels, the text encoder"
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


def _check_layers(dit: DiTConfig, vae: VAEConfig, text: dict[str, Any], files: dict[str, Source]) -> None:
    """Raises CheckpointError for more layers than the files can have tensors for: building those takes minutes."""
    layers = {
        "dit": ("num_layers", dit.num_layers),
        "vae": ("num_res_blocks times the levels of dim_mult", vae.num_res_blocks * len(vae.dim_mult)),
        "text": (
            "num_hidden_layers and depth",
            text["text_config"].get("num_hidden_layers", 0) + text["vision_config"].get("depth", 0),
        ),
    }
    for key, (name, count) in layers.items():
        source = files[key][0]
        if count * LEAST_TENSORS > len(source.shapes()):
            raise CheckpointError(
                f"{source.where}: holds {len(source.shapes())} tensors, too few for the {count} layers that the"
                f" configuration asks for ({name})"
            )


def _text_encoder(config: dict[str, Any], folder: Path) -> TextEncoder:
    """The network of a checked configuration. What transformers still refuses in it is told with the file's name."""
    try:
        return TextEncoder(config)
    except MemoryError:
        raise
    except Exception as error:
        name = printable_path(folder / "config.json")
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
