"""The text encoder's forward pass for training: the same parameters and sums as `TextEncoder`, in one batch.

Every prompt here shows one picture of one size at one place, so positions are the same for all of them and
are worked out once. Nothing in it waits for the device, so that a GPU can record it.

Legend: B prompts, L tokens a prompt, P merged picture patches, D hidden channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.qwen import TextEncoder
from joyedit.models.qwen_prompts import MergedGrid, rope_positions

Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What depends on a picture's size alone.

    `grid`: merged rows and columns. `places`: (4P, N) weights of the learnt positions for each patch.
    `vision`, `text`: cosine and sine, (4P, Dh) and (L, Dh).
    """

    grid: MergedGrid
    places: Tensor
    vision: Rotation
    text: Rotation


def tables(encoder: TextEncoder, grid: MergedGrid, before: int, length: int) -> Tables:
    """Tables for prompts of `length` tokens whose picture follows the first `before` tokens."""
    text, seen = encoder.config.text_config, encoder.config.vision_config
    device, merge = encoder.device, seen.spatial_merge_size
    rows, columns = grid[0] * merge, grid[1] * merge
    side = round(seen.num_position_embeddings**0.5)
    learnt = torch.eye(side * side).unflatten(1, (side, side))[None]  # one map for each learnt position
    places = F.interpolate(learnt, (rows, columns), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    quarter = seen.hidden_size // seen.num_heads // 4
    frequencies = 10000.0 ** (-torch.arange(quarter) / quarter)
    angles = torch.cat([row[..., None] * frequencies, column[..., None] * frequencies], dim=-1)

    ids = [0] * before + [encoder.image_token] * (grid[0] * grid[1])
    positions = rope_positions([*ids, *[0] * (length - len(ids))], [grid], encoder.image_token)
    return Tables(
        grid=grid,
        places=_merged(places, merge).to(device),
        vision=_rotation(_merged(angles, merge), device),
        text=_rotation(_interleaved(positions, text), device),
    )


def features(encoder: TextEncoder, ids: Tensor, patches: Tensor, before: int, size: Tables) -> Tensor:
    """(B, L, D), before the final norm, padding on the right included.

    `ids`: (B, L). `patches`: (B * 4P, 3 * 2 * 16 * 16), one picture a prompt.
    """
    language = encoder.model.language_model
    pictures, levels = see(encoder, patches.unflatten(0, (len(ids), -1)), size)
    config = encoder.config.text_config
    heads = (-1, config.head_dim)
    groups = config.num_attention_heads // config.num_key_value_heads
    x: Tensor = _placed(language.embed_tokens(ids), before, pictures, keep=0.0)
    for number, layer in enumerate(language.layers):
        attention, normed = layer.self_attn, layer.input_layernorm(x)
        q = _rotated(attention.q_norm(attention.q_proj(normed).unflatten(-1, heads)).transpose(1, 2), size.text)
        k = _rotated(attention.k_norm(attention.k_proj(normed).unflatten(-1, heads)).transpose(1, 2), size.text)
        v = attention.v_proj(normed).unflatten(-1, heads).transpose(1, 2)
        k, v = (part.to(v.dtype).repeat_interleave(groups, dim=1) for part in (k, v))
        out = F.scaled_dot_product_attention(q.to(v.dtype), k, v, is_causal=True)
        x = x + attention.o_proj(out.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        if number < len(levels):
            x = _placed(x, before, levels[number], keep=1.0)
    return x


def see(encoder: TextEncoder, patches: Tensor, size: Tables) -> tuple[Tensor, list[Tensor]]:
    """The vision tower: (B, 4P, 1536) patches -> (B, P, D) embeddings and as many a deepstack level."""
    visual: Any = encoder.model.visual
    count = len(patches)
    embed = visual.patch_embed.proj  # a 3-D convolution whose kernel is the patch: one matrix product
    x = F.linear(patches, embed.weight.flatten(1), embed.bias) + size.places @ visual.pos_embed.weight
    levels = []
    for number, block in enumerate(visual.blocks):
        qkv = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, block.attn.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        q, k = (_rotated(part, size.vision).to(v.dtype) for part in (q, k))
        x = x + block.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        if number in visual.deepstack_visual_indexes:
            merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(number)]
            levels.append(merger(x.flatten(0, 1)).unflatten(0, (count, -1)))
    merged: Tensor = visual.merger(x.flatten(0, 1)).unflatten(0, (count, -1))
    return merged, levels


def _placed(x: Tensor, before: int, pictures: Tensor, keep: float) -> Tensor:
    """x (B, L, D), its tokens from `before` on times `keep` plus `pictures` (B, P, D)."""
    end = before + pictures.shape[1]
    middle = x[:, before:end] * keep + pictures.to(x.dtype) if keep else pictures.to(x.dtype)
    return torch.cat([x[:, :before], middle, x[:, end:]], dim=1)


def _merged(grid: Tensor, merge: int) -> Tensor:
    """(rows, columns, C) -> (rows * columns, C) with the patches that will be merged side by side."""
    x: Tensor = grid.unflatten(1, (-1, merge)).unflatten(0, (-1, merge))  # (r, m, c, m, C)
    out: Tensor = x.transpose(1, 2).flatten(0, 3)
    return out


def _rotation(angles: Tensor, device: torch.device) -> Rotation:
    doubled = torch.cat([angles, angles], dim=-1).float()
    return doubled.cos().to(device), doubled.sin().to(device)


def _rotated(x: Tensor, by: Rotation) -> Tensor:
    """x (..., L, Dh), whose pairs are a channel of the first half and its counterpart in the second."""
    first, second = x.float().chunk(2, dim=-1)
    out: Tensor = x.float() * by[0] + torch.cat([-second, first], dim=-1) * by[1]
    return out


def _interleaved(positions: Tensor, text: Any) -> Tensor:
    """Angles (L, Dh / 2) from positions (3, L): time, with height and width in every third channel."""
    half = text.head_dim // 2
    parameters = text.rope_parameters
    frequencies = float(parameters["rope_theta"]) ** (-torch.arange(half) / half)
    every = positions[..., None] * frequencies  # (3, L, Dh / 2)
    angles: Tensor = every[0].clone()
    for axis, count in ((1, parameters["mrope_section"][1]), (2, parameters["mrope_section"][2])):
        angles[:, axis : 3 * count : 3] = every[axis, :, axis : 3 * count : 3]
    return angles
