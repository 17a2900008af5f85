"""Configurations of DiT and VAE read off tensor shapes, for files that bring none as data: the authors' and single
files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from joyedit.models.config import ConfigError, DiTConfig, VAEConfig

Shapes = Mapping[str, tuple[int, ...]]


def dit_config_of_shapes(shapes: Shapes, said: Mapping[str, Any] | None = None) -> DiTConfig:
    """The DiT's configuration from the tensors by our names. `said` are values that shapes do not tell, with the keys
    of a published `config.json`.

    Raises LookupError, ArithmeticError or ValueError (ConfigError) for tensors of another network.

    Rotary axes are not in the shapes: their shares of a head are the published 16 : 56 : 56 where nothing else is said.
    """
    hidden = shapes["img_in.weight"][0]
    channels, patch_height, patch_width = _patches(shapes["img_in.weight"])
    head_dim = shapes["double_blocks.0.attn.img_attn_q_norm.weight"][0]
    blocks = {int(m[1]) for name in shapes if (m := re.match(r"double_blocks\.([0-9]+)\.", name))}
    spatial = head_dim * 7 // 16
    return DiTConfig.from_dict(
        {
            "hidden_size": hidden,
            "num_attention_heads": hidden // head_dim,
            "num_layers": max(blocks) + 1,
            "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
            "mlp_width_ratio": shapes["double_blocks.0.img_mlp.net.0.proj.weight"][0] / hidden,
            "in_channels": channels,
            "out_channels": shapes["proj_out.weight"][0] // (patch_height * patch_width),
            "patch_size": [1, patch_height, patch_width],
            "rope_dim_list": [head_dim - 2 * spatial, spatial, spatial],
            "theta": 10000,
            **(said or {}),
        }
    )


def _patches(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a patch, from the shape of the patch embedding. GGUF files may lack its sides of 1,
    or have it as a matrix, which is taken for one of the published patches of 2 x 2."""
    if len(shape) == 2:
        return shape[1] // 4, 2, 2
    return shape[1], shape[-2], shape[-1]


def vae_config_of_shapes(shapes: Shapes) -> VAEConfig:
    """The VAE's configuration from the tensors by our names; latent statistics are the published ones.

    Raises LookupError, ArithmeticError or ValueError (ConfigError) when they are not those of a Wan 2.1 VAE.
    """
    base = shapes["encoder.conv_in.weight"][0]
    widths: list[list[int]] = [[]]
    temporal: list[bool] = []
    number = 0
    while True:
        prefix = f"encoder.down_blocks.{number}"
        if f"{prefix}.resample.1.weight" in shapes:
            temporal.append(f"{prefix}.time_conv.weight" in shapes)
            widths.append([])
        elif f"{prefix}.conv1.weight" in shapes:
            widths[-1].append(shapes[f"{prefix}.conv1.weight"][0])
        else:
            break
        number += 1
    if not all(widths) or len({len(level) for level in widths}) != 1:
        raise ConfigError("the VAE's levels do not have one number of residual blocks")
    multipliers = tuple(level[0] // base for level in widths)
    return VAEConfig.from_dict(
        {
            "base_dim": base,
            "decoder_base_dim": shapes["decoder.norm_out.gamma"][0] // multipliers[0],
            "dim_mult": multipliers,
            "num_res_blocks": len(widths[0]),
            "z_dim": shapes["post_quant_conv.weight"][0],
            "in_channels": shapes["encoder.conv_in.weight"][1],
            "out_channels": shapes["decoder.conv_out.weight"][0],
            "temperal_downsample": temporal,
        }
    )
