"""The denoising loop of one batch: both guidance branches in one forward, Euler steps in fp32.

Several ranks may do this together: each computes some of the branches, some of the tokens, or both, gets what the
others computed, and makes the same step.

Legend: B items, C latent channels, h and w latent pixels, T text tokens of all branches together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.models.dit import DiT
from joyedit.models.schedule import TRAIN_TIMESTEPS, euler_step, guide
from joyedit.models.shared_sequences import Exchange
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


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part as the ranks that do not have it need to know it: who computes it, its shape and its dtype."""

    rank: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def stand_in(self) -> Tensor:
        """A tensor without values, of its shape and dtype."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


class Ranks(Protocol):
    """Ranks that encode and denoise the same batches together. All of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""

    @property
    def world(self) -> int:
        """How many there are."""

    @property
    def sequence(self) -> Exchange | None:
        """Those with the same branches, which share their tokens; None where this rank has whole sequences."""

    def everywhere(self, own: Mapping[int, Tensor], specs: Sequence[PartSpec]) -> list[Tensor]:
        """The parts of these specs, in order, each from the rank that has it; `own` are this one's, by number."""

    def own(self, branches: int) -> range:
        """Which of a batch's branches this rank computes: none, where there are too few."""

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        """Velocities of the rank's own branches, (own, C, h, w) -> those of all of them in order."""


class Alone:
    """One rank that computes everything."""

    rank, world = 0, 1
    sequence = None

    def everywhere(self, own: Mapping[int, Tensor], specs: Sequence[PartSpec]) -> list[Tensor]:
        """They are there."""
        return [own[number] for number in range(len(specs))]

    def own(self, branches: int) -> range:
        """All of them."""
        return range(branches)

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        """They are there."""
        return velocity


ALONE = Alone()


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
    ranks: Ranks = ALONE,
) -> Tensor:
    """Latents (B, C, h, w), fp32 and normalised, after all steps of `sigmas` (steps + 1,).

    Every item takes one branch, and a second one where guidance is on; a branch is one sample for
    the DiT, so texts of different lengths never meet. With `ranks`, all of them are given the same.
    """
    device = given.noise.device
    guided = [i for i, features in enumerate(given.negative) if features is not None]
    branch_item = [*range(len(given.positive)), *guided]
    features = [*given.positive, *(f for f in given.negative if f is not None)]
    # A GPU takes all branches at once. A CPU is faster one by one, within its caches.
    own = list(ranks.own(len(features)))
    together = [[i] for i in own] if device.type == "cpu" else [own] if own else []
    forwards = [
        _Forward.of(dit, given, [branch_item[i] for i in part], [features[i] for i in part], ranks.sequence)
        for part in together
    ]
    index = to_device(torch.tensor(guided, dtype=torch.long), device)
    scale = to_device(torch.tensor(given.scales), device)[index].view(-1, 1, 1, 1)
    latent = given.noise.float()
    nothing = latent.new_empty((0, *latent.shape[1:]), dtype=dit.dtype)
    steps = len(sigmas) - 1
    mods = dit.modulations(to_device(sigmas[:-1] * TRAIN_TIMESTEPS, device))  # (steps, L, 2, 6, M)
    for step in range(steps):
        found = torch.cat([forward(dit, latent, mods[step : step + 1]) for forward in forwards] or [nothing])
        velocity = ranks.all_branches(found, len(features)).float()
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
    exchange: Exchange | None

    @classmethod
    def of(
        cls, dit: DiT, given: Conditioning, items: list[int], features: list[Tensor], exchange: Exchange | None
    ) -> _Forward:
        index = to_device(torch.tensor(items), given.noise.device)
        return cls(
            items=index,
            references=tuple(reference[index] for reference in given.references),
            txt=torch.cat([dit.embed_text(one) for one in features]),  # each as it is alone
            text=TextLengths.of([len(f) for f in features]),
            exchange=exchange,
        )

    def __call__(self, dit: DiT, latent: Tensor, mods: Tensor) -> Tensor:
        """Velocities of these branches' targets, in the DiT's dtype."""
        return dit.predict([latent[self.items], *self.references], mods, self.txt, self.text, self.exchange)
