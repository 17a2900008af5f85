"""How many tokens the prompts of a batch have, and the operations that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from joyedit.models import flops
from joyedit.runtime.bench.batch import BenchConfig
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.protocol import ReadyBatch


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """Tokens of a batch's prompts, as the FLOP formulas need them."""

    grids: list[tuple[int, int]]
    prefix: int
    shared: int
    suffixes: list[int]
    negative: int
    dropped: int

    @classmethod
    def of(cls, backend: JoyImageBackend, batch: ReadyBatch) -> TextTokens:
        builder = backend.conditioner.builder
        side = 32  # pixels of a merged patch
        grids = [(p.height // side, p.width // side) for p in batch.items[0].pictures]
        patches = [rows * columns for rows, columns in grids]
        prefix = len(builder.prefix(patches))
        return cls(
            grids=grids,
            prefix=prefix,
            shared=builder.shared(prefix),
            suffixes=[len(builder.suffix(ready.item.instruction, bool(patches))) for ready in batch.items],
            negative=len(builder.suffix("", bool(patches))),
            dropped=builder.dropped,
        )

    @property
    def branches(self) -> list[int]:
        """Text tokens that the DiT sees in each branch."""
        positive = [self.prefix + suffix - self.dropped for suffix in self.suffixes]
        return positive + [self.prefix + self.negative - self.dropped] * len(self.suffixes)

    def encode(self, backend: JoyImageBackend, config: BenchConfig, count: int) -> int:
        """Operations of conditioning `count` instructions and the negative prompt for the same pictures."""
        text, vision = backend.text_encoder.config.text_config, backend.text_encoder.config.vision_config
        total = flops.text_encoder(text, self.prefix - self.shared, self.shared)
        total += sum(flops.text_encoder(text, self.suffixes[0], self.prefix) for _ in range(count))
        total += flops.text_encoder(text, self.negative, self.prefix)
        return total + sum(flops.vision_tower(vision, 2 * rows, 2 * columns) for rows, columns in self.grids)

    def step(self, backend: JoyImageBackend, config: BenchConfig, target: tuple[int, int]) -> int:
        side = backend.vae.cfg.spatial_factor
        ph, pw = backend.dit.cfg.patch
        tokens = (target[0] // side // ph) * (target[1] // side // pw)
        return flops.dit_step(backend.dit.cfg, tokens, config.references * tokens, self.branches)
