"""Networks -> a checkpoint in the diffusers layout: the inverse of loading, for models trained here.

A single-picture VAE has no temporal slices. Those that the layout wants are written as zeros (the
last slice is ours), and so is the temporal resampling, which never runs on one frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.schedule import SHIFT, TRAIN_TIMESTEPS
from joyedit.models.vae import VAE

STEM = "diffusion_pytorch_model.safetensors"


def export_diffusers(
    folder: Path,
    dit: DiT,
    vae: VAE,
    text_encoder: TextEncoder,
    *,
    dtype: torch.dtype = torch.bfloat16,
    defaults: dict[str, Any] | None = None,
) -> None:
    """Write `folder` in the diffusers layout, but for tokenizer/ and processor/, which are files already.

    `defaults` becomes joyedit.json: the settings that the checkpoint recommends.
    """
    _write(folder / "transformer", STEM, dit_tensors(dit), dit_json(dit.cfg), dtype)
    _write(folder / "vae", STEM, vae_tensors(vae), vae_json(vae.cfg), dtype)
    text_json = json.loads(text_encoder.config.to_json_string(use_diff=False))
    text_json |= {"architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": True}
    _write(folder / "text_encoder", "model.safetensors", dict(text_encoder.state_dict()), text_json, dtype)
    scheduler = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": TRAIN_TIMESTEPS,
        "shift": SHIFT,
        "use_dynamic_shifting": False,
    }
    _json(folder / "scheduler" / "scheduler_config.json", scheduler)
    _json(folder / "model_index.json", _MODEL_INDEX)
    if defaults:
        _json(folder / "joyedit.json", defaults)


_MODEL_INDEX = {
    "_class_name": "JoyImageEditPipeline",
    "processor": ["transformers", "Qwen3VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "JoyImageEditTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def dit_json(cfg: DiTConfig) -> dict[str, Any]:
    return {
        "_class_name": "JoyImageEditTransformer3DModel",
        "hidden_size": cfg.hidden_size,
        "in_channels": cfg.in_channels,
        "mlp_width_ratio": cfg.mlp_ratio,
        "num_attention_heads": cfg.num_heads,
        "num_layers": cfg.num_layers,
        "out_channels": cfg.out_channels,
        "patch_size": [1, *cfg.patch],
        "rope_dim_list": list(cfg.rope_dims),
        "rope_type": "rope",
        "text_dim": cfg.text_dim,
        "theta": int(cfg.theta),
    }


def vae_json(cfg: VAEConfig) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKLWan",
        "attn_scales": [],
        "base_dim": cfg.base_dim,
        "decoder_base_dim": cfg.decoder_base_dim,
        "dim_mult": list(cfg.dim_mult),
        "dropout": 0.0,
        "in_channels": cfg.in_channels,
        "is_residual": False,
        "latents_mean": list(cfg.latents_mean),
        "latents_std": list(cfg.latents_std),
        "num_res_blocks": cfg.num_res_blocks,
        "out_channels": cfg.out_channels,
        "scale_factor_spatial": cfg.spatial_factor,
        "scale_factor_temporal": 4,
        "temperal_downsample": list(cfg.temporal_downsample),
        "z_dim": cfg.z_dim,
    }


def dit_tensors(dit: DiT) -> dict[str, Tensor]:
    """State dict in the layout's shapes: the patch embedding as a Conv3d."""
    state = dict(dit.state_dict())
    weight = state["img_in.weight"]
    state["img_in.weight"] = weight.view(weight.shape[0], dit.cfg.in_channels, 1, *dit.cfg.patch)
    return state


def vae_tensors(vae: VAE) -> dict[str, Tensor]:
    """State dict in the layout's shapes: 3-D convolutions whose last temporal slice is ours."""
    state: dict[str, Tensor] = {}
    for name, tensor in vae.state_dict().items():
        resampling = ".resample." in name
        if "attentions" in name or resampling:
            state[name] = tensor  # 2-D in the published layout too
        elif name.endswith("gamma"):
            state[name] = tensor[:, None]
        elif tensor.ndim == 4:
            frames = tensor.shape[-1]  # kernels are cubes: 3x3x3 or 1x1x1
            cube = tensor.new_zeros(*tensor.shape[:2], frames, *tensor.shape[2:])
            cube[:, :, -1] = tensor
            state[name] = cube
        else:
            state[name] = tensor
    cfg = vae.cfg
    positions = range(len(cfg.temporal_downsample))
    for level in (i for i in positions if cfg.temporal_downsample[i]):
        block = level * (cfg.num_res_blocks + 1) + cfg.num_res_blocks
        dim = cfg.base_dim * cfg.dim_mult[level]
        state |= _time_conv(f"encoder.down_blocks.{block}", dim, dim)
    upsample = tuple(reversed(cfg.temporal_downsample))
    widths = [cfg.decoder_base_dim * m for m in reversed(cfg.dim_mult)]
    for level in (i for i in positions if upsample[i]):
        state |= _time_conv(f"decoder.up_blocks.{level}.upsamplers.0", widths[level], 2 * widths[level])
    return state


def _time_conv(place: str, dim_in: int, dim_out: int) -> dict[str, Tensor]:
    return {
        f"{place}.time_conv.weight": torch.zeros(dim_out, dim_in, 3, 1, 1),
        f"{place}.time_conv.bias": torch.zeros(dim_out),
    }


def _write(folder: Path, name: str, state: dict[str, Tensor], config: dict[str, Any], dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    save_file(tensors, folder / name, metadata={"format": "pt"})
    _json(folder / "config.json", config)


def _json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
