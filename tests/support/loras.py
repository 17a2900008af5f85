"""Small random LoRAs under the names that several trainers write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from joyedit.job.spec import Lora
from joyedit.weights.lora_facts import lora_facts

LAYERS = ("double_blocks.0.attn.img_attn_qkv", "double_blocks.1.attn.txt_attn_proj", "double_blocks.2.img_mlp.net.2")
Shapes = Mapping[str, tuple[int, int]]

STYLES: dict[str, Callable[[str], tuple[str, str]]] = {
    "diffsynth": lambda layer: (
        f"{layer.replace('.attn.', '.')}.lora_A.default.weight",
        f"{layer.replace('.attn.', '.')}.lora_B.default.weight",
    ),
    "peft": lambda layer: (f"base_model.model.{layer}.lora_A.weight", f"base_model.model.{layer}.lora_B.weight"),
    "diffusers": lambda layer: (f"transformer.{layer}.lora_A.weight", f"transformer.{layer}.lora_B.weight"),
    "diffusers, old": lambda layer: (f"transformer.{layer}.lora.down.weight", f"transformer.{layer}.lora.up.weight"),
    "comfyui": lambda layer: (
        f"diffusion_model.{layer}.lora_down.weight",
        f"diffusion_model.{layer}.lora_up.weight",
    ),
    "kohya": lambda layer: (
        f"lora_unet_{layer.replace('.', '_')}.lora_down.weight",
        f"lora_unet_{layer.replace('.', '_')}.lora_up.weight",
    ),
    "kohya, authors": lambda layer: (
        f"lora_unet_{layer.replace('.attn.', '.').replace('.', '_')}.lora_down.weight",
        f"lora_unet_{layer.replace('.attn.', '.').replace('.', '_')}.lora_up.weight",
    ),
}
"""How each trainer names the two matrices of a layer."""


def matrices(shapes: Shapes, layers: tuple[str, ...] = LAYERS, rank: int = 4, seed: int = 7) -> dict[str, Any]:
    """For each layer its (down, up), fp32, so large that the LoRA shows in a picture."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for layer in layers:
        outputs, inputs = shapes[layer]
        down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        made[layer] = down, torch.randn(outputs, rank, generator=generator) * 0.5
    return made


def named(found: Mapping[str, tuple[Tensor, Tensor]], style: str = "diffsynth") -> dict[str, Tensor]:
    """The tensors of a file."""
    tensors = {}
    for layer, (down, up) in found.items():
        first, second = STYLES[style](layer)
        tensors |= {first: down.contiguous(), second: up.contiguous()}
    return tensors


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def lora_of(path: Path, scale: float = 1.0) -> Lora:
    """The LoRA of an item, as a run has it."""
    facts = lora_facts(path)
    return Lora(file=facts.weights, scale=scale, sha256=facts.sha256, sigmas=facts.sigmas)
