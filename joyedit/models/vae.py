"""The Wan VAE as the 2-D network that it is for one frame.

A causal 3-D convolution on one frame only ever meets its last temporal slice (the others see the
zero padding), and the temporal resampling is skipped. So every convolution here is 2-D, and the
loader keeps that one slice of each 3-D weight (`weights/names.py`).

Legend: B batch, C channels, Z latent channels (16), H and W pixels, h and w latent pixels.
Parameter names are those of the published diffusers checkpoint.
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from joyedit.models.config import VAEConfig

NORM_FLOOR = 1e-12
"""A pixel's channels are never divided by less."""

FLASH_CHANNELS = 256
"""Channels of a head that flash attention takes at most."""


def side_by_side(x: Tensor) -> bool:
    """Whether the channels of each pixel of (B, C, H, W) lie next to each other in memory."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def unbiased(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution without its bias, which whoever reads the result adds."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding)


class ChannelNorm(nn.Module):
    """RMS norm over the channels of (B, C, H, W), with a learnt gain a channel; fp32 inside.

    Where the channels lie next to each other in memory, one kernel does it all.
    """

    kernels: ModuleType | None = None
    """`triton_kernels`, where they take on what follows; None runs it as written."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if side_by_side(x):
            rows = F.rms_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.gamma.flatten(), NORM_FLOOR**2)
            return rows.permute(0, 3, 1, 2)
        wide = x.float()
        # A sum of squares, as torch's vector norm takes many times as long across channels that lie apart.
        inverse = wide.square().sum(1, keepdim=True).clamp_min(NORM_FLOOR**2).rsqrt()  # one number a pixel
        return torch.mul(wide, inverse).mul_(self.gamma * self.scale).type_as(x)

    def silu(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """SiLU of the norm of `x + bias`, a bias a channel."""
        if self.kernels is not None and side_by_side(x):
            out: Tensor = self.kernels.norm_silu(x, self.gamma.flatten(), NORM_FLOOR**2, bias)
            return out
        # In place: at full size a picture's activations are gigabytes.
        return F.silu(self(x if bias is None else x + bias.view(1, -1, 1, 1)), inplace=True)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, around a shortcut."""

    kernels: ModuleType | None = None
    """`triton_kernels`, where they add biases and residuals; None runs the block as written."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim_in)
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm2 = ChannelNorm(dim_out)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv_shortcut(x)
        if self.kernels is not None and side_by_side(x):
            x = unbiased(self.conv1, self.norm1.silu(x))
            x = unbiased(self.conv2, self.norm2.silu(x, self.conv1.bias))
            out: Tensor = self.kernels.biased_sum(x, self.conv2.bias, residual)
            return out
        x = self.conv1(self.norm1.silu(x))
        x = self.conv2(self.norm2.silu(x))
        return x + residual


class AttentionBlock(nn.Module):
    """Single-head self-attention over all pixels of (B, C, H, W)."""

    kernels: ModuleType | None = None
    """`triton_kernels`, where they serve a head too wide for flash attention; None leaves it to torch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Contiguous, as the fused kernel of the CPU asks for.
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # (B, H * W, 3C)
        q, k, v = (part.unsqueeze(1) for part in qkv.chunk(3, dim=-1))
        wide = q.shape[3] > FLASH_CHANNELS
        if self.kernels is not None and wide and q.shape[2] <= self.kernels.WIDEST:
            out = self.kernels.wide_attention(q[:, 0], k[:, 0], v[:, 0])  # (B, H * W, C)
        else:
            out = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        update: Tensor = self.proj(out.transpose(1, 2).unflatten(2, x.shape[2:]))
        return x + update


class Downsample(nn.Module):
    """Halve the sides: pad right and bottom by one, 3x3 convolution of stride 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resample(x)
        return out


class Upsample(nn.Module):
    """Double the sides by repeating pixels, then halve the channels with a 3x3 convolution."""

    kernels: ModuleType | None = None
    """`triton_kernels`, where they repeat the pixels; None lets torch do it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(dim, dim // 2, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        repeat, conv = self.resample
        if self.kernels is not None and side_by_side(x):
            repeat = self.kernels.double
        out: Tensor = conv(repeat(x))
        return out


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([AttentionBlock(dim)])
        self.resnets = nn.ModuleList([ResidualBlock(dim, dim), ResidualBlock(dim, dim)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class Encoder(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> (B, 2Z, h, w): mean and log-variance before `quant_conv`."""

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        widths = [cfg.base_dim * m for m in (1, *cfg.dim_mult)]
        self.conv_in = nn.Conv2d(cfg.in_channels, widths[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for level, dim_out in enumerate(widths[1:]):
            dim = widths[level]
            for _ in range(cfg.num_res_blocks):
                blocks.append(ResidualBlock(dim, dim_out))
                dim = dim_out
            if level < len(cfg.dim_mult) - 1:
                blocks.append(Downsample(dim_out))
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = MidBlock(widths[-1])
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * cfg.z_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.norm_out.silu(self.mid_block(x)))
        return out


class UpBlock(nn.Module):
    """The residual blocks of one level, and the doubling to the next."""

    def __init__(self, dim_in: int, dim_out: int, blocks: int, up: bool) -> None:
        super().__init__()
        dims = [dim_in] + [dim_out] * blocks
        self.resnets = nn.ModuleList(ResidualBlock(a, dim_out) for a in dims)
        self.upsamplers = nn.ModuleList([Upsample(dim_out)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.resnets, *self.upsamplers):
            x = block(x)
        return x


class Decoder(nn.Module):
    """(B, Z, h, w) after `post_quant_conv` -> (B, 3, H, W), not yet clamped."""

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        widths = [cfg.decoder_base_dim * m for m in (cfg.dim_mult[-1], *reversed(cfg.dim_mult))]
        self.conv_in = nn.Conv2d(cfg.z_dim, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0])
        blocks: list[nn.Module] = []
        for level, dim_out in enumerate(widths[1:]):
            dim_in = widths[level] if level == 0 else widths[level] // 2
            blocks.append(UpBlock(dim_in, dim_out, cfg.num_res_blocks, up=level < len(cfg.dim_mult) - 1))
        self.up_blocks = nn.ModuleList(blocks)
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], cfg.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.norm_out.silu(x))
        return out


class VAE(nn.Module):
    """`AutoencoderKLWan` for single pictures. Latents are normalised by the config's mean and deviation."""

    def __init__(self, cfg: VAEConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.quant_conv = nn.Conv2d(2 * cfg.z_dim, 2 * cfg.z_dim, 1)
        self.post_quant_conv = nn.Conv2d(cfg.z_dim, cfg.z_dim, 1)
        self.decoder = Decoder(cfg)

    @property
    def dtype(self) -> torch.dtype:
        return self.quant_conv.weight.dtype

    def fuse(self) -> None:
        """Run Triton kernels between the convolutions. Raises ImportError where Triton is missing.

        For CUDA only. There they serve inference, most of them on weights with channels last; anything else runs as
        written.
        """
        from joyedit.models import triton_kernels

        self._set_kernels(triton_kernels)

    def plain(self) -> None:
        """Run everything as it is written."""
        self._set_kernels(None)

    def _set_kernels(self, kernels: ModuleType | None) -> None:
        for module in self.modules():
            if isinstance(module, (ChannelNorm, ResidualBlock, AttentionBlock, Upsample)):
                module.kernels = kernels

    def _statistic(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, each (B, Z, h, w), of `pixels` (B, 3, H, W) in [-1, 1]."""
        mean, logvar = self.quant_conv(self.encoder(pixels.to(self.dtype))).chunk(2, dim=1)
        return mean, logvar

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalised posterior mean, fp32 (B, Z, h, w), of `pixels` (B, 3, H, W) in [-1, 1]."""
        mean = self.moments(pixels)[0].float()
        return (mean - self._statistic(self.cfg.latents_mean, mean)) / self._statistic(self.cfg.latents_std, mean)

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), fp32 in [-1, 1], of normalised latents (B, Z, h, w)."""
        latent = latent.float()
        raw = latent * self._statistic(self.cfg.latents_std, latent) + self._statistic(self.cfg.latents_mean, latent)
        pixels: Tensor = self.decoder(self.post_quant_conv(raw.to(self.dtype)))
        return pixels.float().clamp(-1, 1)
