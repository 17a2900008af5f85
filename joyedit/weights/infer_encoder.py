"""The text encoder's configuration, read off the shapes of its tensors, for files that bring none.

Shapes do not tell the heads of the vision tower, the layers of its deepstack mergers, and the rotary settings. The
header of a GGUF file does; elsewhere the published numbers of Qwen3-VL are taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from joyedit.models.config_values import ConfigError, Values
from joyedit.weights.encoder_names import TEXT, VISION
from joyedit.weights.infer import Shapes

VISION_HEADS = 16
DEEPSTACK = {24: (5, 11, 17), 27: (8, 16, 24)}
"""Depth of the vision tower -> the layers that have a deepstack merger: of the models with 2 and 4, and 8 and 32
billion."""
SECTIONS = (24, 20, 20)
"""How many pairs of channels of a head turn with time, height and width, where a head has 128."""
THETA = 5_000_000
EPSILON = 1e-6
POSITIONS = 262_144


def encoder_config_of_shapes(
    shapes: Shapes, values: Mapping[str, Any], layers: Sequence[int], tokens: Mapping[str, int]
) -> dict[str, Any]:
    """A `config.json` from the shapes by our names. `values` are those of a GGUF header, `layers` the ones with a
    deepstack merger if the names tell them, `tokens` the ids of the pictures' tokens (`image_token_id`).

    Raises LookupError, ArithmeticError or ValueError (ConfigError) for tensors of another network.
    """
    said = Values(values)
    text, vision = _text(shapes, said), _vision(shapes, said, layers)
    return {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision, **tokens}


def _text(shapes: Shapes, said: Values) -> dict[str, Any]:
    words, width = shapes[f"{TEXT}embed_tokens.weight"]
    first = f"{TEXT}layers.0."
    head = shapes[f"{first}self_attn.q_norm.weight"][0]
    key = "qwen3vl.rope.dimension_sections"
    sections = [int(one) for one in said.wholes(key, 0, 4096)][:3] if key in said else _sections(head)
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": shapes[f"{first}mlp.gate_proj.weight"][0],
        "num_hidden_layers": _count(shapes, f"{TEXT}layers."),
        "num_attention_heads": shapes[f"{first}self_attn.q_proj.weight"][0] // head,
        "num_key_value_heads": shapes[f"{first}self_attn.k_proj.weight"][0] // head,
        "head_dim": head,
        "hidden_act": "silu",
        "max_position_embeddings": said.whole("qwen3vl.context_length", 1, 1 << 40, POSITIONS),
        "rms_norm_eps": _short(said.number("qwen3vl.attention.layer_norm_rms_epsilon", 0, 1, EPSILON)),
        "rope_theta": _short(said.number("qwen3vl.rope.freq_base", 1, 1e12, THETA)),
        "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": sections},
    }


def _vision(shapes: Shapes, said: Values, layers: Sequence[int]) -> dict[str, Any]:
    width, channels, frames, side, other_side = shapes[f"{VISION}patch_embed.proj.weight"]
    if side != other_side:
        raise ConfigError(f"patches of {side} x {other_side} pixels are not supported")
    depth = _count(shapes, f"{VISION}blocks.")
    mergers = _count(shapes, f"{VISION}deepstack_merger_list.")
    levels = list(layers) or list(DEEPSTACK.get(depth, ()))
    if len(levels) != mergers:
        raise ConfigError(
            f"the layers of its {mergers} deepstack mergers are not known for a vision tower of {depth} layers;"
            " give a folder with the text encoder's config.json"
        )
    return {
        "depth": depth,
        "hidden_size": width,
        "intermediate_size": shapes[f"{VISION}blocks.0.mlp.linear_fc1.weight"][0],
        "num_heads": said.whole("clip.vision.attention.head_count", 1, 1024, VISION_HEADS),
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": channels,
        "patch_size": side,
        "temporal_patch_size": frames,
        "spatial_merge_size": math.isqrt(shapes[f"{VISION}merger.linear_fc1.weight"][1] // width),
        "out_hidden_size": shapes[f"{VISION}merger.linear_fc2.weight"][0],
        "num_position_embeddings": shapes[f"{VISION}pos_embed.weight"][0],
        "deepstack_visual_indexes": levels,
    }


def _sections(head: int) -> list[int]:
    """The published sections, in proportion to the channels of a head."""
    scaled = [part * head / 128 for part in SECTIONS]
    if any(not part.is_integer() for part in scaled):
        raise ConfigError(
            f"the rotary sections of heads of {head} channels are not known; give a folder with config.json"
        )
    return [int(part) for part in scaled]


def _count(shapes: Shapes, start: str) -> int:
    pattern = re.compile(re.escape(start) + r"([0-9]{1,6})\.")
    return 1 + max((int(found[1]) for name in shapes if (found := pattern.match(name))), default=-1)


def _short(value: float) -> float:
    """A number that a GGUF file has in four bytes, as it was written down: 1e-6 and not 9.999999974752427e-07."""
    return float(f"{value:.7g}")
