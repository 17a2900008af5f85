"""The branches of a batch in the denoising loop: each item takes one, and a second one where guidance is on.

A branch is one sample for the DiT, so texts of different lengths never meet. The first branches of a batch are those
with the instruction, one an item; those without it follow.

Legend: B items, C latent channels, h and w latent pixels, T text tokens of all branches together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from joyedit.models.attention import TextLengths
from joyedit.models.dit import BlockPass, DiT
from joyedit.models.region_blocks import KeptKeys
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

    @property
    def guided(self) -> list[int]:
        """Places of the items with guidance."""
        return [place for place, features in enumerate(self.negative) if features is not None]

    @property
    def branch_items(self) -> list[int]:
        """The item of each branch."""
        return [*range(len(self.positive)), *self.guided]

    @property
    def branch_features(self) -> list[Tensor]:
        """The text features of each branch."""
        return [*self.positive, *(f for f in self.negative if f is not None)]


class BranchCounts(NamedTuple):
    """Steps of one branch that were computed and reused. Where regions are on, also how many `tokens` went through a
    block, counted for each block, and how many were `left_out` of blocks that ran.
    """

    computed: int
    reused: int
    tokens: int = 0
    left_out: int = 0


class Predictor(Protocol):
    """Predicts the velocities of a rank's own branches, step after step."""

    def __call__(self, step: int, latent: Tensor, count: int) -> list[Tensor]:
        """Velocities of the first `count` of the own branches, in order: tensors (branches, C, h, w).

        `step` counts from 0; `latent` (B, C, h, w) fp32 is that of all items.
        """

    def counts(self) -> list[BranchCounts]:
        """Of each own branch, what ran so far."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """Branches that go through the DiT together, with all of it that no step changes.

    `items` (I,) are the batch's items that have some of them, `references` (I, C, h_i, w_i) these items' own. `images`
    says for each branch which of the I is its own: both branches of an item begin with the same image tokens.
    """

    items: Tensor
    images: tuple[int, ...]
    references: tuple[Tensor, ...]
    txt: Tensor
    text: TextLengths
    exchange: Exchange | None

    @classmethod
    def of(cls, dit: DiT, given: Conditioning, branches: Sequence[int], exchange: Exchange | None) -> Forward:
        """`branches`: their numbers within the batch."""
        item_of, features_of = given.branch_items, given.branch_features
        places = [item_of[branch] for branch in branches]
        items = list(dict.fromkeys(places))
        index = to_device(torch.tensor(items), given.noise.device)
        features = [features_of[branch] for branch in branches]
        return cls(
            items=index,
            images=tuple(items.index(place) for place in places),
            references=tuple(reference[index] for reference in given.references),
            txt=torch.cat([dit.embed_text(one) for one in features]),  # each as it is alone
            text=TextLengths.of([len(f) for f in features]),
            exchange=exchange,
        )

    def __call__(self, dit: DiT, latent: Tensor, mods: Tensor) -> Tensor:
        """Velocities of these branches' targets, in the DiT's dtype."""
        given = [latent[self.items], *self.references]
        return dit.predict(given, mods, self.txt, self.text, self.exchange, images=self.images)

    def begin(self, dit: DiT, latent: Tensor, mods: Tensor, keep: KeptKeys | None = None) -> BlockPass:
        """The same up to the first block. `keep` gets the keys and values of a single branch on the way."""
        given = [latent[self.items], *self.references]
        return dit.begin(given, mods, self.txt, self.text, self.exchange, images=self.images, keep=keep)


def at_once(device: torch.device) -> bool:
    """Whether all branches go through the DiT together. A CPU is faster one by one, within its caches."""
    return device.type != "cpu"


class ExactSteps:
    """Computes every step of every branch. `mods`: (steps, L, 2, 6, M), of `DiT.modulations`."""

    def __init__(
        self, dit: DiT, given: Conditioning, own: Sequence[int], mods: Tensor, exchange: Exchange | None
    ) -> None:
        """`own`: numbers of the rank's own branches within the batch."""
        self._dit = dit
        self._given = given
        self._own = list(own)
        self._mods = mods
        self._exchange = exchange
        self._forwards: dict[int, list[Forward]] = {}
        self._counts = [0] * len(self._own)

    def __call__(self, step: int, latent: Tensor, count: int) -> list[Tensor]:
        for place in range(count):
            self._counts[place] += 1
        mods = self._mods[step : step + 1]
        return [forward(self._dit, latent, mods) for forward in self._of(count)]

    def counts(self) -> list[BranchCounts]:
        return [BranchCounts(count, 0) for count in self._counts]

    def _of(self, count: int) -> list[Forward]:
        if count not in self._forwards:
            own = self._own[:count]
            together = ([own] if own else []) if at_once(self._given.noise.device) else [[branch] for branch in own]
            self._forwards[count] = [Forward.of(self._dit, self._given, part, self._exchange) for part in together]
        return self._forwards[count]
