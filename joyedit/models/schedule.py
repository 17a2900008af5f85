"""The flow-matching schedule, in the two variants that are in use for the same weights, and guidance.

Legend: B batch, C latent channels, h and w latent pixels. Noise levels run from 1 (noise) to 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["original", "diffusers"]

TRAIN_TIMESTEPS = 1000
SHIFT = 1.5


def shift_sigma(sigma: Tensor, shift: float = SHIFT) -> Tensor:
    """Move noise levels towards noise: s -> shift * s / (1 + (shift - 1) * s)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigmas(steps: int, schedule: ScheduleName, shift: float = SHIFT) -> Tensor:
    """Noise levels of a run of `steps` Euler steps: fp32, shape (steps + 1,), from 1 down to 0.

    "original" is the authors' spacing: steps + 1 equal parts from 1 to 0, shifted once.
    "diffusers" is FlowMatchEulerDiscreteScheduler's: `steps` equal parts from 1 to the already
    shifted 1/1000, shifted again, then 0.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if schedule == "original":
        return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).float()
    if schedule == "diffusers":
        last = shift_sigma(torch.tensor(1 / TRAIN_TIMESTEPS, dtype=torch.float64), shift)
        levels = shift_sigma(torch.linspace(1, float(last), steps, dtype=torch.float64), shift)
        return torch.cat([levels, torch.zeros(1, dtype=torch.float64)]).float()
    raise ValueError(f"unknown schedule {schedule!r}, known: original, diffusers")


def guide(cond: Tensor, uncond: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance, rescaled to the conditional prediction's length at every latent pixel.

    `cond`, `uncond`: velocities (B, C, h, w); `scale`: (B, 1, 1, 1). Computed in fp32.
    """
    cond, uncond = cond.float(), uncond.float()
    return _rescaled(uncond + scale * (cond - uncond), cond)


def guide_along(cond: Tensor, difference: Tensor, scale: Tensor) -> Tensor:
    """`guide` where the unconditional prediction is not known: `difference` is cond - uncond of an earlier step.

    Shapes as in `guide`. The result has the length of `cond` too. Computed in fp32.
    """
    cond = cond.float()
    return _rescaled(cond + (scale - 1) * difference.float(), cond)


def _rescaled(combined: Tensor, cond: Tensor) -> Tensor:
    """`combined` with the length of `cond` at every latent pixel."""
    length = combined.norm(dim=1, keepdim=True).clamp_min(1e-6)
    guided: Tensor = combined * (cond.norm(dim=1, keepdim=True) / length)
    return guided


def euler_step(latent: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One step of the flow: latent (fp32) moved along the velocity from `sigma` to `sigma_next`."""
    return latent + (sigma_next - sigma) * velocity.float()
