"""The denoising loop of one batch: both guidance branches in one forward, Euler steps in fp32.

Legend: B items, C latent channels, h and w latent pixels, T text tokens of all branches together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.models.dit import DiT
from joyedit.models.schedule import TRAIN_TIMESTEPS, euler_step, guide


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a batch is denoised from.

    `noise`: (B, C, h, w) fp32. `references`: one (B, C, h_i, w_i) tensor for each reference slot.
    `positive`: B text features (L_i, D). `negative`: the same, None where guidance is off.
    `scales`: B guidance scales.
    """

    noise: Tensor
    references: tuple[Tensor, ...]
    positive: tuple[Tensor, ...]
    negative: tuple[Tensor | None, ...]
    scales: tuple[float, ...]


def initial_noise(seed: int, channels: int, height: int, width: int) -> Tensor:
    """An item's own noise: (1, C, h, w) fp32, drawn on the CPU so that every device gets the same."""
    generator = torch.Generator("cpu").manual_seed(seed)
    # Drawn in the published shape, with its frame axis; a generator's numbers depend on nothing else.
    return torch.randn((1, channels, 1, height, width), generator=generator)[:, :, 0]


def denoise(
    dit: DiT,
    given: Conditioning,
    sigmas: Tensor,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Latents (B, C, h, w), fp32 and normalised, after all steps of `sigmas` (steps + 1,).

    Every item takes one branch, and a second one where guidance is on; a branch is one sample for
    the DiT, so texts of different lengths never meet.
    """
    device = given.noise.device
    guided = [i for i, features in enumerate(given.negative) if features is not None]
    branch_item = torch.tensor([*range(len(given.positive)), *guided], device=device)
    features = [*given.positive, *(f for f in given.negative if f is not None)]
    text = TextLengths.of([len(f) for f in features])
    txt = dit.embed_text(torch.cat(features))
    references = [reference[branch_item] for reference in given.references]
    index = torch.tensor(guided, device=device, dtype=torch.long)
    scale = torch.tensor(given.scales, device=device)[index].view(-1, 1, 1, 1)
    latent = given.noise.float()
    steps = len(sigmas) - 1
    levels: Sequence[float] = sigmas.tolist()
    for step in range(steps):
        timestep = torch.full((1,), levels[step] * TRAIN_TIMESTEPS, device=device)
        velocity = dit([latent[branch_item], *references], timestep, txt, text).float()
        cond, uncond = velocity[: len(latent)], velocity[len(latent) :]
        if guided:
            cond = cond.index_copy(0, index, guide(cond[index], uncond, scale))
        latent = euler_step(latent, cond, sigmas[step], sigmas[step + 1])
        on_step(step + 1, steps)
    return latent
