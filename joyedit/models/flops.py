"""How many floating-point operations the networks take, by formula; a product and a sum count as two.

Only matrix products, convolutions and attention are counted, as everywhere in the field: what is
left (norms, activations, rotations) moves bytes rather than multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from joyedit.models.config import DiTConfig, VAEConfig


def dit_step(cfg: DiTConfig, target: int, references: int, text_lengths: Sequence[int]) -> int:
    """One forward of the DiT for several branches, in the form in which it is run.

    `target`, `references`: image tokens of a branch; `text_lengths`: text tokens of each branch.
    Leaves out what is done once a run: embedding the text and the times. The last block does for the
    target alone what nothing else reads.
    """
    m, inner = cfg.hidden_size, cfg.mlp_dim
    patch = cfg.patch[0] * cfg.patch[1]
    a_token = 2 * m * (3 * m + m + 2 * inner)  # QKV, projection, MLP
    total = 0
    for text in text_lengths:
        img = target + references
        sequence = img + text
        full = sequence * a_token + 4 * sequence * sequence * m
        keys_values = (references + text) * 2 * m * 2 * m
        last = target * a_token + keys_values + 4 * target * sequence * m
        ends = 2 * m * patch * (img * cfg.in_channels + target * cfg.out_channels)
        total += (cfg.num_layers - 1) * full + last + ends
    return total


def dit_products(cfg: DiTConfig, target: int, references: int, text_lengths: Sequence[int]) -> int:
    """The part of `dit_step` that the linear layers of the blocks do: those that may be of 8 bits."""
    m = cfg.hidden_size
    a_token = 2 * m * (3 * m + m + 2 * cfg.mlp_dim)
    total = 0
    for text in text_lengths:
        keys_values = (references + text) * 2 * m * 2 * m
        total += ((cfg.num_layers - 1) * (target + references + text) + target) * a_token + keys_values
    return total


def text_encoder(text: Any, tokens: int, before: int = 0) -> int:
    """Decoder layers of Qwen3-VL over `tokens` new tokens behind `before` known ones (causal).

    `text` is the text part of its configuration.
    """
    hidden = text.hidden_size
    head = getattr(text, "head_dim", None) or hidden // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    a_token = 2 * (hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * text.intermediate_size)
    met = tokens * before + tokens * (tokens + 1) // 2
    return int(text.num_hidden_layers * (tokens * a_token + 4 * met * queries))


def vision_tower(vision: Any, rows: int, columns: int) -> int:
    """Qwen3-VL's vision tower on one picture of rows x columns patches. `vision` is its configuration."""
    patches, hidden = rows * columns, vision.hidden_size
    embed = 2 * patches * hidden * vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    block = 2 * patches * (4 * hidden * hidden + 2 * hidden * vision.intermediate_size)
    block += 4 * patches * patches * hidden
    merged = hidden * vision.spatial_merge_size**2
    merger = 2 * (patches // vision.spatial_merge_size**2) * merged * (merged + vision.out_hidden_size)
    return int(embed + vision.depth * block + merger * (1 + len(vision.deepstack_visual_indexes)))


def _residual(dim_in: int, dim_out: int, pixels: int) -> int:
    shortcut = dim_in * dim_out if dim_in != dim_out else 0
    return 2 * pixels * (9 * dim_in * dim_out + 9 * dim_out * dim_out + shortcut)


def _mid(dim: int, pixels: int) -> int:
    return 2 * _residual(dim, dim, pixels) + 2 * pixels * 4 * dim * dim + 4 * pixels * pixels * dim


def vae_encode(cfg: VAEConfig, height: int, width: int) -> int:
    """The VAE's encoder on one picture of height x width pixels."""
    pixels, z = height * width, cfg.z_dim
    widths = [cfg.base_dim * m for m in (1, *cfg.dim_mult)]
    total = 2 * pixels * 9 * cfg.in_channels * widths[0]
    for level, dim_out in enumerate(widths[1:]):
        dims = [widths[level]] + [dim_out] * (cfg.num_res_blocks - 1)
        total += sum(_residual(dim, dim_out, pixels) for dim in dims)
        if level < len(cfg.dim_mult) - 1:
            pixels //= 4
            total += 2 * pixels * 9 * dim_out * dim_out
    return total + _mid(widths[-1], pixels) + 2 * pixels * (9 * widths[-1] * 2 * z + 4 * z * z)


def vae_decode(cfg: VAEConfig, height: int, width: int) -> int:
    """The VAE's decoder for one picture of height x width pixels."""
    z, levels = cfg.z_dim, len(cfg.dim_mult)
    pixels = height * width // cfg.spatial_factor**2
    widths = [cfg.decoder_base_dim * m for m in (cfg.dim_mult[-1], *reversed(cfg.dim_mult))]
    total = 2 * pixels * (z * z + 9 * z * widths[0]) + _mid(widths[0], pixels)
    for level, dim_out in enumerate(widths[1:]):
        first = widths[level] if level == 0 else widths[level] // 2
        dims = [first] + [dim_out] * cfg.num_res_blocks
        total += sum(_residual(dim, dim_out, pixels) for dim in dims)
        if level < levels - 1:
            pixels *= 4
            total += 2 * pixels * 9 * dim_out * (dim_out // 2)
    return total + 2 * pixels * 9 * widths[-1] * cfg.out_channels
