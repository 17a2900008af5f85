"""The three networks with random weights, built on the device: what `joyedit bench` measures.

`full` is the published size; `small` has its proportions (encoder, DiT and VAE in about the ratio of
operations of a 1024-pixel edit, at base size 256) at a size for CPUs; `tiny` runs in a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from joyedit.job.run_config import RandomSize
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised_rows import MOST, quantised_weight
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE

Placer = Callable[[str, Tensor], None]
"""Takes a weight by its name in the network."""
Placers = Mapping[str, Placer]


def configs(size: RandomSize) -> tuple[DiTConfig, VAEConfig, dict[str, Any]]:
    """Configurations of DiT, VAE and text encoder (as the dictionary of its config.json)."""
    if size == "full":
        text = _text(
            hidden=4096,
            inner=12288,
            layers=36,
            heads=32,
            kv_heads=8,
            head_dim=128,
            sections=[24, 20, 20],
            vocabulary=151936,
        )
        vision = _vision(hidden=1152, inner=4304, depth=27, heads=16, out=4096, deepstack=[8, 16, 24], positions=2304)
        return DiTConfig(), VAEConfig(), _qwen(text, vision)
    if size == "small":
        dit = DiTConfig(hidden_size=256, num_heads=4, num_layers=16, text_dim=256, rope_dims=(8, 28, 28))
        text = _text(
            hidden=256, inner=768, layers=8, heads=4, kv_heads=2, head_dim=64, sections=[12, 10, 10], vocabulary=1024
        )
        return (
            dit,
            _vae(8, blocks=2),
            _qwen(text, _vision(hidden=96, inner=256, depth=5, heads=3, out=256, deepstack=[1, 2], positions=256)),
        )
    dit = DiTConfig(hidden_size=64, num_heads=2, num_layers=2, text_dim=64, rope_dims=(4, 14, 14))
    text = _text(hidden=64, inner=128, layers=2, heads=2, kv_heads=1, head_dim=32, sections=[6, 5, 5], vocabulary=1024)
    return (
        dit,
        _vae(4, blocks=1),
        _qwen(text, _vision(hidden=32, inner=64, depth=1, heads=1, out=64, deepstack=[0], positions=64)),
    )


def without_weights(size: RandomSize, token_ids: Mapping[str, int]) -> tuple[DiT, VAE, TextEncoder]:
    """Networks of a size on the meta device. `token_ids` as in `build`."""
    dit_config, vae_config, text_config = configs(size)
    with torch.device("meta"):
        return DiT(dit_config), VAE(vae_config), TextEncoder({**text_config, **token_ids})


def build(
    size: RandomSize,
    device: torch.device,
    dtype_of: Callable[[str, str], torch.dtype],
    token_ids: Mapping[str, int],
    seed: int = 0,
    place: Callable[[DiT, TextEncoder, VAE], Placers] = lambda dit, encoder, vae: {},
) -> tuple[DiT, VAE, TextEncoder]:
    """Networks of a size on the device, the same weights for the same seed, device and dtype.

    `place` gets the networks without weights. It gives for some of them, by their names, who takes their weights
    instead, one by one.

    `dtype_of(network, parameter)` gives each parameter's dtype; networks are called as in checkpoints.
    `token_ids` are those of the pictures' tokens (image_token_id, ...) in the tokenizer to be used.
    """
    dit, vae, text = without_weights(size, token_ids)
    placers = place(dit, text, vae)
    generator = torch.Generator(device).manual_seed(seed)
    for name, network in (("transformer", dit), ("vae", vae), ("text encoder", text)):
        _fill(network, device, generator, partial(dtype_of, name), placers.get(name))
    text.rebuild_rotary(device)
    return dit, vae, text


def _fill(
    network: nn.Module,
    device: torch.device,
    generator: torch.Generator,
    dtype_of: Callable[[str], torch.dtype],
    place: Placer | None,
) -> None:
    """Values of a size that keeps signals alive through all layers: gains near 1, the rest by fan-in."""
    state = {}
    for name, meta in list(network.named_parameters()):
        if name.endswith(".weight_scale"):
            continue  # it came with its weight
        kept = dtype_of(name)
        # Values are drawn before they are quantised: a network of 8 bits has the weights of the exact one.
        drawn = dtype_of(name.removesuffix("weight") + "bias") if kept in MOST else kept
        tensor = torch.empty(meta.shape, dtype=drawn, device=device)
        fan_in = meta[0].numel() if meta.ndim > 1 else 1
        gain = "norm" in name and name.endswith(("weight", "gamma"))
        if gain:
            tensor.normal_(1.0, 0.1, generator=generator)
        elif meta.ndim == 1:
            tensor.normal_(0.0, 0.02, generator=generator)
        else:
            tensor.normal_(0.0, 0.2 if name.endswith("modulate_table") else fan_in**-0.5, generator=generator)
        made = {name: tensor}
        if kept in MOST:
            made[name], made[f"{name}_scale"] = quantised_weight(tensor, kept)
        for one, value in made.items():
            if place is None:
                state[one] = value
            else:
                place(one, value)
    if place is None:
        network.load_state_dict(state, strict=True, assign=True)
    network.requires_grad_(False).eval()


def _vae(base: int, blocks: int) -> VAEConfig:
    return VAEConfig(base_dim=base, decoder_base_dim=base, num_res_blocks=blocks)


def _text(
    *,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    sections: list[int],
    vocabulary: int,
) -> dict[str, Any]:
    return {
        "model_type": "qwen3_vl_text",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000000,
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": sections},
        "vocab_size": vocabulary,
    }


def _vision(
    *, hidden: int, inner: int, depth: int, heads: int, out: int, deepstack: list[int], positions: int
) -> dict[str, Any]:
    return {
        "model_type": "qwen3_vl",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "depth": depth,
        "num_heads": heads,
        "in_channels": 3,
        "out_hidden_size": out,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "deepstack_visual_indexes": deepstack,
        "num_position_embeddings": positions,
    }


def _qwen(text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision}
