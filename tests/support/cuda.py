"""A small DiT on a CUDA device."""

from __future__ import annotations

from typing import Any

import torch

from joyedit.models.attention import BACKENDS
from joyedit.models.config import DiTConfig
from joyedit.models.dit import DiT
from joyedit.models.quantised_blocks import QUANTISED, quantise_blocks
from joyedit.runtime.tuning.attention_choice import choose_attention

CFG = DiTConfig(hidden_size=512, num_heads=4, num_layers=3, text_dim=64, rope_dims=(16, 56, 56))


def cuda() -> torch.device:
    """The current device."""
    return torch.device("cuda", torch.cuda.current_device())


def quantised_dit(precision: Any, attention: str = "auto") -> DiT:
    """A DiT of `CFG` in bf16, with random weights. Its blocks have layers of this precision."""
    generator = torch.Generator().manual_seed(0)
    dit = DiT(CFG).eval().requires_grad_(False)
    for parameter in dit.parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        torch.nn.init.normal_(parameter, std=spread, generator=generator)
    moved = dit.to(cuda(), torch.bfloat16)
    moved.condition_embedder.time_embedder.float()
    moved.attend = BACKENDS[choose_attention(attention, cuda(), torch.bfloat16, CFG.num_heads, CFG.head_dim).name]
    if precision != "exact":
        quantise_blocks(moved, *QUANTISED[precision])
    return moved
