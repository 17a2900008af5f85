"""Which network a file of tensors holds, told by the names in it. No torch in here.

Every network has a few names that no other network has. A prefix in front of all names, as training code and ComfyUI
write it, does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

Holds = Literal["dit", "encoder", "vae", "text", "vision"]
"""`encoder` is a whole Qwen3-VL. llama.cpp keeps its language model (`text`) and its vision tower (`vision`) apart."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "first_stage_model.", "transformer.", "module.", "vae.")
"""In front of all names of a DiT or a VAE in files that hold one network of several."""
ENCODER_PREFIX = re.compile(r"^(?:module\.)?(?:(?:text_encoders|cond_stage_model)\.[^.]+\.(?:transformer\.)?)?")
"""In front of the names of a text encoder in such files."""

_MARKS: Mapping[Holds, tuple[tuple[str, ...], ...]] = {
    "dit": (
        ("double_blocks.0.attn.img_attn_qkv.weight", "condition_embedder.time_embedder.linear_1.weight"),
        ("double_blocks.0.img_attn_qkv.weight", "condition_embedder.time_embedder.linear_1.weight"),
    ),
    "vae": (
        ("encoder.downsamples.0.residual.0.gamma", "decoder.conv1.weight", "conv2.weight"),
        ("encoder.down_blocks.0.norm1.gamma", "decoder.conv_in.weight", "post_quant_conv.weight"),
    ),
    "encoder": (("visual.deepstack_merger_list.0.norm.weight", "layers.0.self_attn.q_norm.weight"),),
    "text": (("token_embd.weight", "blk.0.attn_q_norm.weight"),),
    "vision": (("v.patch_embd.weight", "v.post_ln.weight", "mm.0.weight"),),
}
"""A file holds a network if every name of one of these groups ends one of its names."""


def held_by(names: Collection[str]) -> Holds | None:
    """What the file with these names holds; None if it is nothing that joyedit needs."""
    short = [name for name in names if ".0." in name or name.count(".") < 6]
    for holds, groups in _MARKS.items():
        for marks in groups:
            if all(any(name == mark or name.endswith(f".{mark}") for name in short) for mark in marks):
                return holds
    return None


def without_prefix(name: str) -> str:
    """A name of a DiT or a VAE without what is written in front of all names."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
