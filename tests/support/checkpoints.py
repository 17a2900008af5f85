"""Tiny random checkpoints in the published layouts, made by diffusers' and transformers' own classes.

That the reference's classes write them is the point: names, shapes and configs are theirs, and our
loader has to read them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from nano.tokenizer import build_tokenizer

HEAD_DIM = 32
HIDDEN = 64
TEXT_DIM = 48
VAE_CONFIG: dict[str, Any] = {"base_dim": 8, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1, "z_dim": 16}
PROCESSOR = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "merge_size": 2, "patch_size": 16,
    "temporal_patch_size": 2, "resample": 3, "rescale_factor": 1 / 255,
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor",
}  # fmt: skip


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Weights large enough that every part of a network shows in its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim <= 1 or "gamma" in name:
                base = 1.0 if ("norm" in name and name.endswith(("weight", "gamma"))) else 0.0
                spread = 0.2
            else:
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
                base, spread = 0.0, 1.0 / fan_in**0.5
            if "modulate_table" in name:
                base, spread = 0.0, 0.5
            parameter.copy_(base + spread * torch.randn(parameter.shape, generator=generator))


def tiny_dit(edit_plus: bool = False) -> Any:
    from diffusers import JoyImageEditPlusTransformer3DModel, JoyImageEditTransformer3DModel

    kind = JoyImageEditPlusTransformer3DModel if edit_plus else JoyImageEditTransformer3DModel
    model = kind(
        patch_size=[1, 2, 2], in_channels=16, hidden_size=HIDDEN, num_attention_heads=HIDDEN // HEAD_DIM,
        text_dim=TEXT_DIM, mlp_width_ratio=4.0, num_layers=3, rope_dim_list=[4, 14, 14], theta=10000,
    )  # fmt: skip
    randomise(model, 1)
    return model.eval()


def tiny_vae() -> Any:
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan(**VAE_CONFIG)
    randomise(model, 2)
    return model.eval()


def tiny_text_encoder(vocabulary: int, token_ids: dict[str, int]) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "hidden_size": TEXT_DIM, "intermediate_size": 96, "num_hidden_layers": 4, "head_dim": 24,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocabulary,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5000000, "mrope_interleaved": True,
                "mrope_section": [4, 4, 4],
            },
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "depth": 3, "num_heads": 2, "out_hidden_size": TEXT_DIM,
            "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
        },
        **token_ids,
    )  # fmt: skip
    model = Qwen3VLForConditionalGeneration(config)
    randomise(model, 3)
    return model.eval()


def write_diffusers(folder: Path, edit_plus: bool = False) -> Path:
    """A checkpoint in the diffusers layout, text encoder in several shards."""
    import numpy as np  # noqa: F401 - diffusers wants it loaded before its schedulers
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder / "tokenizer")
    tiny_dit(edit_plus).save_pretrained(folder / "transformer")
    tiny_vae().save_pretrained(folder / "vae")
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in TOKENS.items()}
    tiny_text_encoder(len(tokenizer), ids).save_pretrained(folder / "text_encoder", max_shard_size="100KB")
    FlowMatchEulerDiscreteScheduler(shift=1.5).save_pretrained(folder / "scheduler")
    shutil.copytree(folder / "tokenizer", folder / "processor")
    (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    kind = "JoyImageEditPlusPipeline" if edit_plus else "JoyImageEditPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return folder


TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def write_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from joyedit.runtime.joyimage.conditioning import SYSTEM

    corpus = [f"{SYSTEM}\n", "user\n", "assistant\n", "Turn the sky into a red evening. Remove the car."]
    build_tokenizer(corpus, folder, vocab_size=600)
    return AutoTokenizer.from_pretrained(folder)


def write_original(folder: Path, diffusers_folder: Path, wrapped: bool = True) -> Path:
    """The same weights in the authors' layout.

    The VAE's names come from Wan's flat numbering written out here, not from joyedit's rename table.
    """
    from safetensors.torch import load_file

    (folder / "transformer").mkdir(parents=True)
    (folder / "vae").mkdir()
    dit = load_file(diffusers_folder / "transformer" / "diffusion_pytorch_model.safetensors")
    dit = {name.replace(".attn.", "."): tensor for name, tensor in dit.items()}
    torch.save({"model": dit} if wrapped else dit, folder / "transformer" / "transformer.pth")
    vae = load_file(diffusers_folder / "vae" / "diffusion_pytorch_model.safetensors")
    torch.save({wan_name(name): tensor for name, tensor in vae.items()}, folder / "vae" / "Wan2.1_VAE.pth")
    understanding = folder / "JoyAI-Image-Und"
    shutil.copytree(diffusers_folder / "text_encoder", understanding)
    for file in (diffusers_folder / "processor").iterdir():
        shutil.copy(file, understanding / file.name)
    (folder / "infer_config.py").write_text("raise SystemExit('infer_config.py was executed')\n")
    return folder


def wan_name(name: str, res_blocks: int = 1) -> str:
    """A diffusers VAE name in Wan's numbering."""
    side, _, rest = name.partition(".")
    if side in ("quant_conv", "post_quant_conv"):
        return f"{'conv1' if side == 'quant_conv' else 'conv2'}.{rest}"
    parts = rest.split(".")
    inner = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6",
             "conv_shortcut": "shortcut"}  # fmt: skip
    if parts[0] == "conv_in":
        return f"{side}.conv1.{parts[1]}"
    if parts[0] in ("norm_out", "conv_out"):
        return f"{side}.head.{'0' if parts[0] == 'norm_out' else '2'}.{parts[1]}"
    if parts[0] == "mid_block":
        number = {"resnets0": "0", "attentions0": "1", "resnets1": "2"}[parts[1] + parts[2]]
        place, tail = f"{side}.middle.{number}", parts[3:]
    elif parts[0] == "down_blocks":
        place, tail = f"{side}.downsamples.{parts[1]}", parts[2:]
    else:
        level, kind, index = int(parts[1]), parts[2], int(parts[3])
        offset = index if kind == "resnets" else res_blocks + 1
        place, tail = f"{side}.upsamples.{level * (res_blocks + 2) + offset}", parts[4:]
    return ".".join([place, inner.get(tail[0], tail[0]), *tail[1:]])
