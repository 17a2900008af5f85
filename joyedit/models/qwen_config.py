"""The published `config.json` of a text encoder, and the settings of its image processor, checked.

Only the keys that shape the network are taken over, each with a kind and limits; transformers sees no other. Some would
make it allocate (`num_labels` is a table of that many names) or look for code. No torch and no transformers in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joyedit.models.config_values import MOST_LAYERS, WIDEST, ConfigError, Values, shown

MOST_TOKENS = 10_000_000
_MOST_PIXELS = 1 << 40

_TEXT: Mapping[str, int] = {
    "vocab_size": MOST_TOKENS, "hidden_size": WIDEST, "intermediate_size": 16 * WIDEST,
    "num_hidden_layers": MOST_LAYERS, "num_attention_heads": 1024, "num_key_value_heads": 1024, "head_dim": 4096,
    "max_position_embeddings": 1 << 40,
}  # fmt: skip
_VISION: Mapping[str, int] = {
    "depth": MOST_LAYERS, "hidden_size": WIDEST, "intermediate_size": 16 * WIDEST, "num_heads": 1024,
    "patch_size": 256, "spatial_merge_size": 16, "temporal_patch_size": 16, "out_hidden_size": WIDEST,
    "num_position_embeddings": 1 << 20,
}  # fmt: skip
"""Whole numbers and their upper limits; the lower one is 1."""

_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def checked_text_encoder(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes a Qwen3-VL, from its `config.json`. Raises ConfigError for another model and for absurd values."""
    values = Values(raw)
    if values.text("model_type", "") != "qwen3_vl":
        raise ConfigError(f"text encoder of type {shown(raw.get('model_type'))}, expected 'qwen3_vl'")
    text = _text(values.table("text_config"))
    vision = _vision(values.table("vision_config"))
    tokens = {key: values.whole(key, 0, text.get("vocab_size", MOST_TOKENS) - 1) for key in _TOKENS if key in values}
    if vision.get("out_hidden_size") != text.get("hidden_size"):
        raise ConfigError(
            f"vision_config.out_hidden_size {vision.get('out_hidden_size')} differs from"
            f" text_config.hidden_size {text.get('hidden_size')}"
        )
    return {"model_type": "qwen3_vl", **tokens, "text_config": text, "vision_config": vision}


def _text(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {key: values.whole(key, 1, most) for key, most in _TEXT.items() if key in values}
    heads, groups = found.get("num_attention_heads", 32), found.get("num_key_value_heads", 32)
    if heads % groups:
        raise ConfigError(f"text_config.num_attention_heads {heads} is not a multiple of {groups} key and value heads")
    if "head_dim" not in found and found.get("hidden_size", 4096) % heads:
        raise ConfigError(f"text_config.hidden_size {found['hidden_size']} is not a multiple of {heads} heads")
    if found.get("head_dim", 2) % 2:
        raise ConfigError(f"text_config.head_dim {found['head_dim']} is odd")
    if "rms_norm_eps" in values:
        found["rms_norm_eps"] = values.number("rms_norm_eps", 0, 1)
    if "attention_bias" in values:
        found["attention_bias"] = values.truth("attention_bias")
    if "hidden_act" in values:
        found["hidden_act"] = values.text("hidden_act", most=40)
    if "rope_theta" in values:
        found["rope_theta"] = values.number("rope_theta", 1, 1e12)
    for key in ("rope_scaling", "rope_parameters"):
        if key in values:
            found[key] = _rope(values.table(key))
    return found


def _rope(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, kinds in (("rope_type", ("default",)), ("type", ("default", "mrope"))):
        if key in values and (kind := values.text(key)) not in kinds:
            raise ConfigError(f"text encoder with {key} {shown(kind)} is not supported")
    if "rope_type" in values:
        found["rope_type"] = "default"
    if "rope_theta" in values:
        found["rope_theta"] = values.number("rope_theta", 1, 1e12)
    if "mrope_interleaved" in values:
        found["mrope_interleaved"] = values.truth("mrope_interleaved")
    if "mrope_section" in values:
        found["mrope_section"] = list(values.wholes("mrope_section", 0, 4096, count=3))
    return found


def _vision(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {key: values.whole(key, 1, most) for key, most in _VISION.items() if key in values}
    found["in_channels"] = values.whole("in_channels", 3, 3, 3)
    hidden, heads = found.get("hidden_size", 1152), found.get("num_heads", 16)
    if hidden % heads or hidden // heads % 4:
        raise ConfigError(f"vision_config.hidden_size {hidden} does not give {heads} heads of a multiple of 4 channels")
    if "hidden_act" in values:
        found["hidden_act"] = values.text("hidden_act", most=40)
    if "deepstack_visual_indexes" in values:
        levels = values.wholes("deepstack_visual_indexes", 0, found.get("depth", 27) - 1)
        if len(set(levels)) < len(levels):
            raise ConfigError("vision_config.deepstack_visual_indexes names a layer twice")
        found["deepstack_visual_indexes"] = list(levels)
    return found


def checked_image_processor(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Qwen's image processor, from `preprocessor_config.json`. Raises ConfigError."""
    values = Values(raw)
    found: dict[str, Any] = {
        "patch_size": values.whole("patch_size", 1, 256, 16),
        "temporal_patch_size": values.whole("temporal_patch_size", 1, 16, 2),
        "merge_size": values.whole("merge_size", 1, 16, 2),
    }
    for key in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if key in values:
            found[key] = values.truth(key)
    if "resample" in values:
        found["resample"] = values.whole("resample", 0, 5)
    if "rescale_factor" in values:
        found["rescale_factor"] = values.number("rescale_factor", 1e-6, 1e6)
    if "image_mean" in values:
        found["image_mean"] = list(values.numbers("image_mean", -1e6, 1e6, count=3))
    if "image_std" in values:
        found["image_std"] = list(values.numbers("image_std", 1e-6, 1e6, count=3))
    return found | _limits(values)


def _limits(values: Values) -> dict[str, int]:
    """`min_pixels` and `max_pixels`, which both releases of transformers obey, as they do not all obey `size`.

    4.57 ignores `size` and has limits of its own, which would shrink a picture of 1024 x 1024.
    """
    size = values.table("size", {})
    found = {}
    for name, other in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if name in values:
            found[name] = values.whole(name, 1, _MOST_PIXELS)
        elif other in size:
            found[name] = size.whole(other, 1, _MOST_PIXELS)
    if found.get("min_pixels", 1) > found.get("max_pixels", _MOST_PIXELS):
        raise ConfigError(f"min_pixels {found['min_pixels']} is larger than max_pixels {found['max_pixels']}")
    return found
