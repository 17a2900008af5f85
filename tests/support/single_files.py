"""The weights of a tiny checkpoint as single files: the names that ComfyUI, llama.cpp and city96's tools give them.

The names are written out here, and not taken from joyedit's rename tables. A tiny text encoder has what no shape tells
as the published one has it: 16 heads in the vision tower, deepstack mergers behind the layers 8, 16 and 24, a base of
5,000,000 for its rotary frequencies.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from support.checkpoints import TEXT_DIM, TOKENS, randomise, wan_name, write_diffusers

State = dict[str, torch.Tensor]
DIT, ENCODER, VAE = "transformer", "text_encoder", "vae"


def untold_text_encoder(vocabulary: int, token_ids: dict[str, int]) -> Any:
    """A tiny text encoder whose configuration can be read off its shapes and the published numbers."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "hidden_size": TEXT_DIM, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 32,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": vocabulary,
            "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5000000, "mrope_interleaved": True,
                "mrope_section": [6, 5, 5],
            },
        },
        vision_config={
            "hidden_size": 64, "intermediate_size": 32, "depth": 27, "num_heads": 16, "out_hidden_size": TEXT_DIM,
            "deepstack_visual_indexes": [8, 16, 24], "num_position_embeddings": 64, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
        },
        **token_ids,
    )  # fmt: skip
    model = Qwen3VLForConditionalGeneration(config)
    randomise(model, 3)
    return model.eval()


def write_plain(folder: Path) -> Path:
    """A checkpoint in the diffusers layout with that text encoder: what the others are held against."""
    from transformers import AutoTokenizer

    write_diffusers(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in TOKENS.items()}
    shutil.rmtree(folder / ENCODER)
    untold_text_encoder(len(tokenizer), ids).save_pretrained(folder / ENCODER, max_shard_size="300KB")
    return folder


def state_of(plain: Path, network: str) -> State:
    """All tensors of one network of `plain`, by the names in its files."""
    found: State = {}
    for path in sorted((plain / network).glob("*.safetensors")):
        found |= load_file(path)
    return found


def save(path: Path, state: Mapping[str, torch.Tensor], **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata or {"format": "pt"})
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def comfy_encoder(state: State) -> State:
    """ComfyUI's own beginnings of the names: `visual.` and `model.`."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        renamed[name] = tensor
    return renamed


def wan_vae(state: State) -> State:
    return {wan_name(name): tensor for name, tensor in state.items()}


def write_tokenizer_beside(folder: Path, plain: Path) -> None:
    """The tokenizer's files in the folder itself, without settings of an image processor."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (plain / "tokenizer").iterdir():
        shutil.copy(path, folder / path.name)


def write_comfy(folder: Path, plain: Path, root: str = ".") -> Path:
    """ComfyUI's files in its folders below `root`, with the names that they are published under."""
    base = folder / root
    dit, encoder = state_of(plain, DIT), state_of(plain, ENCODER)
    save(base / "diffusion_models" / "joyai_image_edit_bf16.safetensors", dit)
    save(base / "text_encoders" / "qwen3vl_8b_joyimage_edit_bf16.safetensors", encoder)
    save(base / "vae" / "wan_2.1_vae.safetensors", wan_vae(state_of(plain, VAE)))
    write_tokenizer_beside(folder, plain)
    return folder


LLAMA_TEXT = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf_text(path: Path, encoder: State, config: Mapping[str, Any], kind: str = "F32") -> Path:
    """The language model as llama.cpp names it, with the header that its converter writes."""
    text = config["text_config"]
    rope = text.get("rope_parameters") or {**text["rope_scaling"], "rope_theta": text["rope_theta"]}
    writer = _writer(path, "qwen3vl")
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_sections([*rope["mrope_section"], 0])
    writer.add_num_deepstack_layers(len(config["vision_config"]["deepstack_visual_indexes"]))
    writer.add_token_list([f"word {number}" for number in range(50)])
    for name, tensor in encoder.items():
        if "language_model" not in name and name != "lm_head.weight":
            continue
        _add(writer, llama_text_name(name), tensor, kind)
    return close(writer, path)


def llama_text_name(name: str) -> str:
    whole = {
        "model.language_model.embed_tokens.weight": "token_embd.weight",
        "model.language_model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    found = re.fullmatch(r"model\.language_model\.layers\.(\d+)\.(.+)\.weight", name)
    assert found is not None, name
    return f"blk.{found[1]}.{LLAMA_TEXT[found[2]]}.weight"


LLAMA_VISION = {
    "attn.qkv": "attn_qkv", "attn.proj": "attn_out", "norm1": "ln1", "norm2": "ln2",
    "mlp.linear_fc1": "ffn_up", "mlp.linear_fc2": "ffn_down",
}  # fmt: skip
LLAMA_MERGERS = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}
LLAMA_MERGER = {"norm": "v.post_ln", "linear_fc1": "mm.0", "linear_fc2": "mm.2"}


def write_gguf_vision(path: Path, encoder: State, config: Mapping[str, Any], kind: str = "F32") -> Path:
    """The vision tower as the mmproj file of llama.cpp."""
    vision = config["vision_config"]
    levels = vision["deepstack_visual_indexes"]
    writer = _writer(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_vision_head_count(vision["num_heads"])
    writer.add_vision_block_count(vision["depth"])
    writer.add_vision_is_deepstack_layers([layer in levels for layer in range(vision["depth"])])
    for name, tensor in encoder.items():
        if not name.startswith("model.visual."):
            continue
        name = name.removeprefix("model.visual.")
        if name == "patch_embed.proj.weight":
            _add(writer, "v.patch_embd.weight", tensor[:, :, 0], kind)
            _add(writer, "v.patch_embd.weight.1", tensor[:, :, 1], kind)
        else:
            _add(writer, llama_vision_name(name, levels), tensor, kind)
    return close(writer, path)


def llama_vision_name(name: str, levels: list[int]) -> str:
    whole = {"patch_embed.proj.bias": "v.patch_embd.bias", "pos_embed.weight": "v.position_embd.weight"}
    if name in whole:
        return whole[name]
    stem, _, leaf = name.rpartition(".")
    kind, _, rest = stem.partition(".")
    if kind == "merger":
        return f"{LLAMA_MERGER[rest]}.{leaf}"
    number, _, part = rest.partition(".")
    if kind == "deepstack_merger_list":
        return f"v.deepstack.{levels[int(number)]}.{LLAMA_MERGERS[part]}.{leaf}"
    assert kind == "blocks", name
    return f"v.blk.{number}.{LLAMA_VISION[part]}.{leaf}"


def write_gguf_dit(path: Path, dit: State, kind: str = "F32", *, reshaped: bool = False) -> Path:
    """The DiT under its own names. Matrices are quantised where their rows are whole blocks.

    `reshaped`: what has other rows is written with rows of 32, its shape in the header, as city96's tools do it.
    """
    import gguf

    writer = _writer(path, "joyimage")
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    for name, tensor in dit.items():
        is_matrix = tensor.ndim > 1
        if reshaped and is_matrix and tensor.shape[-1] % block and tensor.numel() % block == 0:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(side) for side in tensor.shape])
            tensor = tensor.reshape(-1, block)
        _add(writer, name, tensor, kind if is_matrix and tensor.shape[-1] % block == 0 else "F32")
    return close(writer, path)


def _writer(path: Path, architecture: str) -> Any:
    import gguf

    path.parent.mkdir(parents=True, exist_ok=True)
    return gguf.GGUFWriter(path, architecture)


def _add(writer: Any, name: str, tensor: torch.Tensor, kind: str) -> None:
    import gguf

    which = gguf.GGMLQuantizationType[kind]
    if tensor.ndim < 2:
        which = gguf.GGMLQuantizationType.F32
    writer.add_tensor(name, gguf.quants.quantize(tensor.float().contiguous().numpy(), which), raw_dtype=which)


def close(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def config_of(plain: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((plain / ENCODER / "config.json").read_text())
    return found
