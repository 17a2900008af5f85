"""The denoising loop of one batch: both guidance branches in one forward, Euler steps in fp32.

Legend: B items, C latent channels, h and w latent pixels, T text tokens of all branches together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.models.dit import DiT
from joyedit.models.schedule import TRAIN_TIMESTEPS, euler_step, guide
from joyedit.models.transfer import to_device


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

    def tensors(self) -> list[Tensor]:
        """All of them, each once or more."""
        features = (*self.positive, *self.negative)
        return [self.noise, *self.references, *(f for f in features if f is not None)]


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
    branch_item = [*range(len(given.positive)), *guided]
    features = [*given.positive, *(f for f in given.negative if f is not None)]
    # A GPU takes all branches at once. A CPU is faster one by one, within its caches.
    together = [[i] for i in range(len(features))] if device.type == "cpu" else [list(range(len(features)))]
    forwards = [
        _Forward.of(dit, given, [branch_item[i] for i in part], [features[i] for i in part]) for part in together
    ]
    index = to_device(torch.tensor(guided, dtype=torch.long), device)
    scale = to_device(torch.tensor(given.scales), device)[index].view(-1, 1, 1, 1)
    latent = given.noise.float()
    steps = len(sigmas) - 1
    mods = dit.modulations(to_device(sigmas[:-1] * TRAIN_TIMESTEPS, device))  # (steps, L, 2, 6, M)
    for step in range(steps):
        velocity = torch.cat([forward(dit, latent, mods[step : step + 1]) for forward in forwards])
        cond, uncond = velocity[: len(latent)], velocity[len(latent) :]
        if guided:
            cond = cond.index_copy(0, index, guide(cond[index], uncond, scale))
        latent = euler_step(latent, cond, sigmas[step], sigmas[step + 1])
        on_step(step + 1, steps)
    return latent


@dataclass(frozen=True, kw_only=True)
class _Forward:
    """Branches that go through the DiT in one call, with all of it that no step changes."""

    items: Tensor
    references: tuple[Tensor, ...]
    txt: Tensor
    text: TextLengths

    @classmethod
    def of(cls, dit: DiT, given: Conditioning, items: list[int], features: list[Tensor]) -> _Forward:
        index = to_device(torch.tensor(items), given.noise.device)
        return cls(
            items=index,
            references=tuple(reference[index] for reference in given.references),
            txt=dit.embed_text(torch.cat(features)),
            text=TextLengths.of([len(f) for f in features]),
        )

    def __call__(self, dit: DiT, latent: Tensor, mods: Tensor) -> Tensor:
        """Velocities of these branches' targets, fp32."""
        return dit.predict([latent[self.items], *self.references], mods, self.txt, self.text).float()
