"""nano's three networks: the classes of the full model with configs small enough to ship.

Sizes are chosen so that everything fits 12 MB in bf16. The VAE's stored size is three times its
useful one, because the published layout keeps 3-D kernels of which a picture needs one slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.qwen import TextEncoder
from joyedit.models.vae import VAE

TEXT_DIM = 128
PATCH, MERGE = 16, 2
TOKEN_SIDE = 16
"""Pixels that one of the DiT's tokens stands for, across and down: the VAE's 8 times its patch of 2."""
DEFAULTS = {"basesize": 256, "steps": 12, "guidance_scale": 2.0}
"""What the checkpoint recommends: becomes its joyedit.json."""

PROCESSOR: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "merge_size": MERGE,
    "patch_size": PATCH,
    "processor_class": "Qwen3VLProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": 1048576, "shortest_edge": 1024},
    "temporal_patch_size": 2,
}


def vae_config(mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> VAEConfig:
    """nano's VAE; `mean` and `std` of the latents are measured after its training."""
    return VAEConfig(
        base_dim=12,
        decoder_base_dim=16,
        dim_mult=(1, 2, 3, 3),
        num_res_blocks=1,
        latents_mean=tuple(mean or [0.0] * 16),
        latents_std=tuple(std or [1.0] * 16),
    )


def dit_config() -> DiTConfig:
    return DiTConfig(
        hidden_size=192,
        num_heads=6,
        num_layers=6,
        text_dim=TEXT_DIM,
        mlp_ratio=1.5,
        rope_dims=(4, 14, 14),
    )


def text_config(vocabulary: int, special: dict[str, int]) -> dict[str, Any]:
    """`special` gives image_token_id, video_token_id, vision_start_token_id and vision_end_token_id."""
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": True,
        **special,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "hidden_size": TEXT_DIM,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": vocabulary,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5000000,
            "rope_scaling": {
                "rope_type": "default",
                "mrope_interleaved": True,
                "mrope_section": [6, 5, 5],
            },
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "hidden_size": 64,
            "intermediate_size": 128,
            "depth": 2,
            "num_heads": 2,
            "in_channels": 3,
            "out_hidden_size": TEXT_DIM,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
    }


def build(tokenizer: Any, seed: int) -> tuple[VAE, DiT, TextEncoder]:
    """The three networks with fresh weights, the same for the same seed."""
    torch.manual_seed(seed)
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    special = {key: int(tokenizer.convert_tokens_to_ids(token)) for key, token in names.items()}
    vae = VAE(vae_config())
    dit = DiT(dit_config())
    encoder = TextEncoder(text_config(len(tokenizer), special))
    for block in dit.double_blocks:  # a block starts as the identity: its gates are closed
        for part in ("img_mod", "txt_mod"):
            torch.nn.init.normal_(getattr(block, part).modulate_table, std=0.02)
    # Nothing reads the encoder's final norm, so nothing trains it. In the full model what comes out of it is
    # ten times smaller than the features; so it is here, where their mean square comes to 1 by itself.
    torch.nn.init.constant_(encoder.model.language_model.norm.weight, 0.1)
    torch.nn.init.zeros_(dit.condition_embedder.time_proj.weight)
    torch.nn.init.zeros_(dit.condition_embedder.time_proj.bias)
    torch.nn.init.zeros_(dit.proj_out.weight)
    torch.nn.init.zeros_(dit.proj_out.bias)
    return vae, dit, encoder


def load_exported(folder: Path, vae: VAE, dit: DiT, encoder: TextEncoder) -> None:
    """Fill the networks from a checkpoint that was exported from such networks."""
    from joyedit.job.run_config import RunConfig
    from joyedit.runtime.joyimage.loading import load_backend

    saved = load_backend(RunConfig(output=Path("."), model=str(folder), device="cpu", dtype="fp32"))
    vae.load_state_dict(saved.vae.state_dict())
    vae.cfg = saved.vae.cfg
    dit.load_state_dict(saved.dit.state_dict())
    encoder.load_state_dict(saved.conditioner._encoder.state_dict())


def save_processor(folder: Path) -> None:
    """The settings of Qwen's image processor, as `processor/preprocessor_config.json`."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")


def seen_size(height: int, width: int) -> tuple[int, int]:
    """The size at which the encoder sees a picture: sides rounded to whole merged patches."""
    side = PATCH * MERGE
    return round(height / side) * side, round(width / side) * side


def vision_patches(pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Patches as Qwen's image processor makes them, for a batch of pictures of one size.

    `pixels` (B, 3, H, W) in [-1, 1] -> (B * rows * columns * 4, 3 * 2 * 16 * 16) and the merged grid.
    """
    size = seen_size(*pixels.shape[2:])
    if size != tuple(pixels.shape[2:]):
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(-1, 1)
    rows, columns = size[0] // (PATCH * MERGE), size[1] // (PATCH * MERGE)
    x = pixels.unflatten(3, (columns, MERGE, PATCH)).unflatten(2, (rows, MERGE, PATCH))
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (B, rows, columns, m, m, 3, p, p)
    x = x.unsqueeze(6).expand(*x.shape[:6], 2, PATCH, PATCH)  # the still frame, twice
    return x.reshape(-1, 3 * 2 * PATCH * PATCH), (rows, columns)
