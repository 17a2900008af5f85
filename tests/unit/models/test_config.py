"""Published configs are read; what these networks cannot express is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from joyedit.models.config import ConfigError, DiTConfig, VAEConfig

DIT: dict[str, Any] = {
    "hidden_size": 64, "num_attention_heads": 2, "num_layers": 1, "text_dim": 8, "rope_dim_list": [4, 14, 14],
    "theta": 10000, "patch_size": [1, 2, 2],
}  # fmt: skip


def test_the_published_configs_are_our_defaults(test_data: Path) -> None:
    folder = test_data / "configs"
    assert DiTConfig.from_dict(json.loads((folder / "transformer.json").read_text())) == DiTConfig()
    assert VAEConfig.from_dict(json.loads((folder / "vae.json").read_text())) == VAEConfig()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rope_type": "mrope"}, "rope_type 'mrope' is not supported, only 'rope'"),
        ({"patch_size": [2, 2, 2]}, "its first number must be 1"),
        ({"num_attention_heads": 3}, "hidden_size 64 is not a multiple of 3 heads"),
        ({"rope_dim_list": [4, 14, 12]}, "must be even numbers that add up to 32"),
        ({"rope_dim_list": [4, 13, 15]}, "must be even numbers that add up to 32"),
    ],
)
def test_a_transformer_of_another_kind_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("[", r"\[")):
        DiTConfig.from_dict({**DIT, **change})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"is_residual": True}, "is_residual=true is not supported"),
        ({"patch_size": 2}, "patch_size=2 is not supported"),
        ({"dim_mult": [1, 2]}, "one entry fewer than dim_mult"),
        ({"latents_mean": [0.0]}, "need 16 numbers each"),
        ({"latents_std": [0.0] * 16}, "the deviations positive"),
    ],
)
def test_a_vae_of_another_kind_is_refused(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        VAEConfig.from_dict(raw)
