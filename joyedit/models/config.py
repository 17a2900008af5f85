"""Configurations of the three networks, read from the published `config.json` files.

Only keys that shape a network are read. A value that would need another network than ours (a
residual Wan 2.2 VAE, a rotated text stream) is refused here, before a weight is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joyedit.models.config_values import MOST_LAYERS, WIDEST, ConfigError, Values, shown

__all__ = ["ConfigError", "DiTConfig", "VAEConfig"]

WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


PIXEL_STEP = 16
"""Sides of pictures are multiples of this: what one token of the DiT covers must divide it."""
MOST_LATENT_CHANNELS = 256
_MOST_STATISTIC = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Shape of the diffusion transformer. Defaults are the published 16 B model's."""

    hidden_size: int = 4096
    num_heads: int = 32
    num_layers: int = 40
    text_dim: int = 4096
    mlp_ratio: float = 4.0
    in_channels: int = 16
    out_channels: int = 16
    patch: tuple[int, int] = (2, 2)
    rope_dims: tuple[int, int, int] = (16, 56, 56)
    theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} is not a multiple of {self.num_heads} heads")
        if self.mlp_dim < 1:
            raise ConfigError(f"mlp_width_ratio {self.mlp_ratio} of {self.hidden_size} channels leaves none")
        if sum(self.rope_dims) != self.head_dim or any(d % 2 for d in self.rope_dims):
            raise ConfigError(
                f"rope_dim_list {list(self.rope_dims)} must be even numbers that add up to {self.head_dim}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_dim(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DiTConfig:
        """Read a published `transformer/config.json`. Raises ConfigError."""
        values = Values(raw)
        rope_type = values.text("rope_type", "rope")
        if rope_type != "rope":
            raise ConfigError(f"rope_type {shown(rope_type)} is not supported, only 'rope'")
        patch = values.wholes("patch_size", 1, PIXEL_STEP, (1, 2, 2), count=3)
        if patch[0] != 1:
            raise ConfigError(f"patch_size {list(patch)} is not supported: its first number must be 1")
        in_channels = values.whole("in_channels", 1, MOST_LATENT_CHANNELS, 16)
        return cls(
            hidden_size=values.whole("hidden_size", 1, WIDEST),
            num_heads=values.whole("num_attention_heads", 1, 1024),
            num_layers=values.whole("num_layers", 1, MOST_LAYERS),
            text_dim=values.whole("text_dim", 1, WIDEST),
            mlp_ratio=values.number("mlp_width_ratio", 0.01, 64, 4.0),
            in_channels=in_channels,
            out_channels=values.whole("out_channels", in_channels, in_channels, in_channels),
            patch=(patch[1], patch[2]),
            rope_dims=values.wholes("rope_dim_list", 0, WIDEST, count=3),  # type: ignore[arg-type]
            theta=values.number("theta", 1, 1e12),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VAEConfig:
    """Shape of the Wan VAE. Defaults are Wan 2.1's, which the published model uses.

    `latents_mean` and `latents_std` (one number a channel) normalise the latents for the DiT.
    """

    base_dim: int = 96
    decoder_base_dim: int = 96
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_dim: int = 16
    in_channels: int = 3
    out_channels: int = 3
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latents_mean: tuple[float, ...] = WAN_MEAN
    latents_std: tuple[float, ...] = WAN_STD

    def __post_init__(self) -> None:
        if not self.dim_mult:
            raise ConfigError("dim_mult must have at least one entry")
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ConfigError("temperal_downsample needs one entry fewer than dim_mult")
        if len(self.latents_mean) != self.z_dim or len(self.latents_std) != self.z_dim:
            raise ConfigError(f"latents_mean and latents_std need {self.z_dim} numbers each")
        widest = max(self.base_dim, self.decoder_base_dim) * max(self.dim_mult)
        if widest > WIDEST:
            raise ConfigError(f"base_dim times dim_mult gives layers of {widest} channels, {WIDEST} are allowed")

    @property
    def spatial_factor(self) -> int:
        """Pixels a side that one latent pixel stands for."""
        return int(2 ** (len(self.dim_mult) - 1))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> VAEConfig:
        """Read a published `vae/config.json`. Raises ConfigError."""
        for key in ("is_residual", "patch_size", "attn_scales"):
            if raw.get(key):
                raise ConfigError(f"VAE option {key}={shown(raw[key])} is not supported (a Wan 2.1 VAE has none)")
        values = Values(raw)
        base = values.whole("base_dim", 1, WIDEST, 96)
        z_dim = values.whole("z_dim", 1, MOST_LATENT_CHANNELS, 16)
        mean, std = (
            values.numbers(key, -_MOST_STATISTIC, _MOST_STATISTIC, default)
            for key, default in (("latents_mean", WAN_MEAN), ("latents_std", WAN_STD))
        )
        if any(deviation <= 0 for deviation in std):
            raise ConfigError("latents_mean and latents_std must be finite, the deviations positive")
        return cls(
            base_dim=base,
            decoder_base_dim=values.whole("decoder_base_dim", 1, WIDEST, base),
            dim_mult=values.wholes("dim_mult", 1, 64, (1, 2, 4, 4)),
            num_res_blocks=values.whole("num_res_blocks", 1, 64, 2),
            z_dim=z_dim,
            in_channels=values.whole("in_channels", 3, 3, 3),
            out_channels=values.whole("out_channels", 3, 3, 3),
            temporal_downsample=values.truths("temperal_downsample", (False, True, True)),
            latents_mean=mean,
            latents_std=std,
        )
