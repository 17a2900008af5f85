"""The formulas against torch's own counter, on networks small enough to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from joyedit.models import flops
from joyedit.models.attention import TextLengths
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.models.dit import DiT
from joyedit.models.vae import VAE
from support import editing


def counted(call: Callable[[], Any]) -> int:
    # The counter knows no fused attention on the CPU; its plain form is two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("lengths", [[7], [5, 9, 5]])
def test_a_dit_step(lengths: list[int]) -> None:
    cfg = DiTConfig(hidden_size=64, num_heads=2, num_layers=3, text_dim=16, rope_dims=(4, 14, 14), mlp_ratio=1.5)
    dit = DiT(cfg)
    items = [torch.randn(len(lengths), 16, 8, 12), torch.randn(len(lengths), 16, 6, 4)]
    txt = torch.randn(sum(lengths), 64)
    with torch.no_grad():
        mods = dit.modulations(torch.tensor([500.0]))
    got = counted(lambda: dit.predict(items, mods, txt, TextLengths.of(lengths)))
    assert flops.dit_step(cfg, 24, 6, lengths) == got


@pytest.mark.parametrize("size", [(32, 48), (64, 64)])
def test_the_vae(size: tuple[int, int]) -> None:
    cfg = VAEConfig(base_dim=8, decoder_base_dim=12, dim_mult=(1, 2, 3, 3), num_res_blocks=2)
    vae = VAE(cfg)
    assert flops.vae_encode(cfg, *size) == counted(lambda: vae.moments(torch.randn(1, 3, *size)))
    latent = torch.randn(1, 16, size[0] // 8, size[1] // 8)
    assert flops.vae_decode(cfg, *size) == counted(lambda: vae.decode(latent))


def test_the_text_encoder_and_the_vision_tower(diffusers_checkpoint: Path) -> None:
    encoder = editing.backend(diffusers_checkpoint).text_encoder
    vision = encoder.config.vision_config
    seen = counted(lambda: encoder.see(torch.randn(8 * 12, 3 * 2 * 16 * 16), (4, 6)))
    assert flops.vision_tower(vision, 8, 12) == seen
    text = encoder.config.text_config
    ids = list(range(50))
    whole = counted(lambda: encoder.read_prefix(ids, []))
    # The counter takes the full square for causal attention; the formula counts what is needed of it.
    queries = text.num_attention_heads * text.head_dim
    spare = text.num_hidden_layers * 4 * queries * (50 * 50 - 50 * 51 // 2)
    assert flops.text_encoder(text, 50) == whole - spare


def test_the_published_sizes() -> None:
    """One 1024 x 1024 forward with a reference and 1060 text tokens is told as 205 TFLOP."""
    assert flops.dit_step(DiTConfig(), 4096, 4096, [1060]) == pytest.approx(205e12, rel=0.03)
