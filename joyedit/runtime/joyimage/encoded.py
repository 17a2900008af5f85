"""A batch between the encoder and the denoising loop, and what its passes take by formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joyedit.job.spec import Lora
from joyedit.job.speed.settings import BlockSteps
from joyedit.models import flops
from joyedit.models.config import VAEConfig
from joyedit.models.dit import DiT
from joyedit.runtime.joyimage.branches import Conditioning
from joyedit.runtime.joyimage.denoise import PartSpec, Ranks
from joyedit.runtime.joyimage.parts import EncodedParts
from joyedit.runtime.protocol import DeviceStage


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A batch behind the encoder: what goes into the denoising loop, and its number of steps.

    `operations` are the floating-point operations of the encoding, by formula. `loras` are those of all its items.
    `work` gets what ran of each item's steps, where some of it is left out. Where ranks of a group still have to
    exchange `parts`, whose `specs` are given, `conditioning` has stand-ins.
    """

    conditioning: Conditioning
    steps: int
    operations: int = 0
    loras: tuple[Lora, ...] = ()
    work: list[BlockSteps] = field(default_factory=list, compare=False)
    parts: EncodedParts | None = None
    specs: tuple[PartSpec, ...] = ()

    def whole(self, ranks: Ranks) -> Conditioning:
        """The conditioning with all that other ranks have encoded. All ranks call it together."""
        if self.parts is None:
            return self.conditioning
        return self.parts.conditioning(ranks.everywhere(self.parts.own, self.specs))


@dataclass(frozen=True, kw_only=True)
class EncodedShare:
    """What one rank has encoded of a batch. `whole`: all of it, where there are no other ranks. The other fields are
    those of `Encoded`.
    """

    parts: EncodedParts
    whole: Conditioning | None
    steps: int
    operations: int
    loras: tuple[Lora, ...]

    def alone(self) -> Encoded:
        """The batch, where there are no other ranks."""
        assert self.whole is not None
        return Encoded(conditioning=self.whole, steps=self.steps, operations=self.operations, loras=self.loras)

    def encoded(self, specs: Mapping[int, PartSpec], operations: int) -> Encoded:
        """The batch, when it is known what all ranks have encoded: `specs` of all parts by number, and operations."""
        known = tuple(specs[number] for number in range(self.parts.count))
        return Encoded(
            conditioning=self.parts.conditioning([spec.stand_in() for spec in known]),
            steps=self.steps,
            operations=operations,
            loras=self.loras,
            parts=self.parts,
            specs=known,
        )


def operations_of(encoded: Encoded, dit: DiT, vae: VAEConfig) -> Mapping[DeviceStage, int]:
    """Floating-point operations by stage. What came from the cache took none; of steps that left something out count
    those block-steps that ran.
    """
    given = encoded.conditioning
    texts = [len(features) for features in given.branch_features]
    target, *references = (dit.grid(latent) for latent in (given.noise, *given.references))
    tokens = [rows * columns for rows, columns in (target, *references)]
    ran = BlockSteps.total(encoded.work)
    share = ran.share_of_tokens * ran.computed / ran.all if ran.all else 1  # branches differ by few text tokens only
    height, width = (side * vae.spatial_factor for side in given.noise.shape[-2:])
    return {
        "encode": encoded.operations,
        "denoise": int(share * encoded.steps * flops.dit_step(dit.cfg, tokens[0], sum(tokens[1:]), texts)),
        "decode": len(given.noise) * flops.vae_decode(vae, height, width),
    }
