"""What nano's networks are trained on: the two losses, the times, the average of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from joyedit.models.schedule import shift_sigma
from joyedit.models.vae import VAE

KL_WEIGHT = 1e-5
LATENT_NOISE = 0.15
EDGE_WEIGHT = 0.5
CHANGE_WEIGHT = 5.0


def reconstruction_loss(vae: VAE, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The autoencoder's loss on `pixels` (B, 3, H, W) in [-1, 1], and its mean squared error.

    Absolute error, the same of the differences between neighbours (smeared edges cost twice), and
    a little KL so that the latents stay in one scale. The decoder sees noisy latents, by up to
    LATENT_NOISE of each channel's deviation, so that a small error of the DiT stays a small error.
    """
    mean, logvar = (part.float() for part in vae.moments(pixels))
    logvar = logvar.clamp(-20, 4)
    level = LATENT_NOISE * torch.rand(len(mean), 1, 1, 1, device=mean.device)
    spread = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    deviation = ((logvar.exp()) + (level * spread).square()).sqrt()
    latent = mean + torch.randn_like(mean) * deviation
    out = vae.decoder(vae.post_quant_conv(latent.to(vae.dtype))).float()
    error = out - pixels
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    squared = error.detach().clamp(-2, 2).square().mean()
    return error.abs().mean() + EDGE_WEIGHT * edges + KL_WEIGHT * kl, squared


def training_times(count: int, device: torch.device) -> Tensor:
    """Noise levels (count,) in (0, 1): logit-normal, shifted towards noise as in sampling."""
    return shift_sigma(torch.sigmoid(torch.randn(count, device=device)))


def change_weight(source: Tensor, target: Tensor) -> Tensor:
    """Weights (B, 1, h, w) of mean 1 a picture: the smaller of what an edit changes and what it leaves counts more.

    That is the object of most edits, and for a new background the objects in front of it.
    `source`, `target`: normalised latents (B, C, h, w).
    """
    changed = ((source - target).abs().amax(dim=1, keepdim=True) > 0.5).float()
    mostly = (changed.mean(dim=(1, 2, 3), keepdim=True) > 0.5).float()
    weight = 1 + CHANGE_WEIGHT * (changed - mostly).abs()
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)


class Average:
    """An exponential average of several networks' weights, in fp32."""

    def __init__(self, networks: Iterable[nn.Module], decay: float) -> None:
        self._live: list[Tensor] = [p for network in networks for p in network.parameters()]
        self.values = [p.detach().clone() for p in self._live]
        # Tensors beside the weights, so that an update can be part of a recorded step.
        self._decay = torch.tensor(decay, device=self.values[0].device)
        self._count = torch.zeros((), device=self.values[0].device)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the live weights. The first updates count for more, so that the start is soon forgotten."""
        self._count += 1
        weight = torch.maximum(9 / (10 + self._count), 1 - self._decay)
        change = torch._foreach_sub(self._live, self.values)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(self.values, change)

    @property
    def updates(self) -> int:
        return int(self._count)

    @updates.setter
    def updates(self, count: int) -> None:
        self._count.fill_(count)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the live weights; call it twice to come back."""
        for average, live in zip(self.values, self._live, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)
