"""Rename tables of the text encoder. Our network has the names of transformers' Qwen3-VL; others lead to them here.

The releases of transformers, ComfyUI and other tools write the same names with other beginnings: `model.visual.` or
`visual.`, `model.language_model.`, `language_model.model.` or `model.`. llama.cpp has names of its own, for the
language model and for the vision tower, and counts the deepstack mergers by the layer that they follow. It leaves the
rows of all matrices of this model where they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from joyedit.weights.names import DROP, Rename
from joyedit.weights.roles import ENCODER_PREFIX

TEXT, VISION = "model.language_model.", "model.visual."


def encoder_from_transformers(name: str) -> str | None:
    """The language-model head is never run, so never read."""
    name = ENCODER_PREFIX.sub("", name)
    if name.removeprefix("language_model.").removeprefix("model.") == "lm_head.weight":
        return DROP
    for start, ours in (
        (VISION, VISION),
        ("visual.", VISION),
        ("model." + TEXT, TEXT),
        (TEXT, TEXT),
        ("language_model.model.", TEXT),
        ("language_model.", TEXT),
        ("model.", TEXT),
    ):
        if name.startswith(start):
            return ours + name[len(start) :]
    return None


_BLOCK = re.compile(r"^(v\.)?blk\.(\d+)\.(.+)\.(weight|bias)$")
_DEEPSTACK = re.compile(r"^v\.deepstack\.(\d+)\.(norm|fc1|fc2)\.(weight|bias)$")
_TEXT_PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_VISION_PARTS = {
    "attn_qkv": "attn.qkv", "attn_out": "attn.proj", "ln1": "norm1", "ln2": "norm2",
    "ffn_up": "mlp.linear_fc1", "ffn_down": "mlp.linear_fc2",
}  # fmt: skip
_WHOLE = {
    "token_embd.weight": TEXT + "embed_tokens.weight",
    "output_norm.weight": TEXT + "norm.weight",
    "output.weight": DROP,
    "v.patch_embd.weight": VISION + "patch_embed.proj.weight",
    "v.patch_embd.bias": VISION + "patch_embed.proj.bias",
    "v.position_embd.weight": VISION + "pos_embed.weight",
    "v.post_ln.weight": VISION + "merger.norm.weight",
    "v.post_ln.bias": VISION + "merger.norm.bias",
    "mm.0.weight": VISION + "merger.linear_fc1.weight",
    "mm.0.bias": VISION + "merger.linear_fc1.bias",
    "mm.2.weight": VISION + "merger.linear_fc2.weight",
    "mm.2.bias": VISION + "merger.linear_fc2.bias",
}
_MERGER_PARTS = {"norm": "norm", "fc1": "linear_fc1", "fc2": "linear_fc2"}


def is_llama_cpp(names: Iterable[str]) -> bool:
    """Whether these are llama.cpp's names."""
    return "token_embd.weight" in names


def deepstack_layers(names: Iterable[str]) -> list[int]:
    """The layers of the vision tower that llama.cpp's names give a deepstack merger, in order."""
    return sorted({int(found[1]) for name in names if (found := _DEEPSTACK.match(name)) is not None})


def encoder_from_llama_cpp(names: Iterable[str]) -> Rename:
    """For files with these names."""
    layers = deepstack_layers(names)

    def rename(name: str) -> str | None:
        if name in _WHOLE:
            return _WHOLE[name]
        if (found := _DEEPSTACK.match(name)) is not None:
            place = layers.index(int(found[1]))
            return f"{VISION}deepstack_merger_list.{place}.{_MERGER_PARTS[found[2]]}.{found[3]}"
        if (found := _BLOCK.match(name)) is None:
            return None
        vision, number, part, leaf = found.groups()
        parts, place_of = (_VISION_PARTS, f"{VISION}blocks.") if vision else (_TEXT_PARTS, f"{TEXT}layers.")
        return f"{place_of}{number}.{parts[part]}.{leaf}" if part in parts else None

    return rename


def encoder_from_any(names: Iterable[str]) -> Rename:
    """For a text encoder with these names."""
    known = list(names)
    return encoder_from_llama_cpp(known) if is_llama_cpp(known) else encoder_from_transformers
