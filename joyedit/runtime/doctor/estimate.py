"""How long an edit will take: operations by formula over the device's matmul rate, and bytes over the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from joyedit.job.spec import PrecisionName
from joyedit.models import flops
from joyedit.models.config import DiTConfig, VAEConfig
from joyedit.runtime.joyimage.memory import TEXT_TOKENS
from joyedit.runtime.placement.plan import Placement

ENCODE_SHARE, STEP_SHARE, DECODE_SHARE = 0.33, 0.82, 0.43
"""The part of the matmul rate that each stage reaches: as measured on an H100, with fused kernels, at full size.
Without them, and on other devices, it may be less."""
PRODUCTS_GAIN = {"exact": 1.0, "fp8": 451 / 240, "int8": 1.0}
"""How much faster the products of the DiT's blocks are in each precision: fp8 as measured on an H200. Nobody has
measured int8."""
MERGED = 32
"""Pixels of a side that become one token of the text encoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One edit with one reference: operations of encoding, of a step and of decoding, and how many steps.

    `products` are those of a step that may be of 8 bits.
    """

    encode: int
    step: int
    products: int
    decode: int
    steps: int

    @classmethod
    def of(cls, dit: DiTConfig, encoder: Any, vae: VAEConfig, *, basesize: int, steps: int, guided: bool) -> Work:
        """`encoder` is the text encoder's configuration; an instruction counts as so many tokens as the memory model
        takes for one."""
        merged = basesize // MERGED
        picture, branches = merged * merged, 1 + guided
        tokens = (basesize // vae.spatial_factor) ** 2 // (dit.patch[0] * dit.patch[1])
        text, vision = encoder.text_config, encoder.vision_config
        encode = flops.vision_tower(vision, 2 * merged, 2 * merged) + flops.vae_encode(vae, basesize, basesize)
        encode += flops.text_encoder(text, picture)
        encode += branches * flops.text_encoder(text, TEXT_TOKENS, picture)
        texts = [picture + TEXT_TOKENS] * branches
        return cls(
            encode=encode,
            step=flops.dit_step(dit, tokens, tokens, texts),
            products=flops.dit_products(dit, tokens, tokens, texts),
            decode=flops.vae_decode(vae, basesize, basesize),
            steps=steps,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Seconds of each stage of one edit by itself, and whether a step waits for what passes over the bus."""

    encode: float
    step: float
    decode: float
    steps: int
    waits_for_bus: bool

    @property
    def seconds(self) -> float:
        """The whole edit."""
        return self.encode + self.steps * self.step + self.decode


def estimate(
    work: Work, tflops: float, placement: Placement, bus_rate: float | None, precision: PrecisionName = "exact"
) -> Estimate:
    """`tflops`: TFLOP/s of a large product. A step takes no less than the bus needs for what passes in it.

    `bus_rate`: bytes a second, None where nothing passes or nobody knows.
    """
    rate = tflops * 1e12
    bus_step = placement.bytes_a_step / bus_rate if bus_rate else 0.0
    bus_encode = placement.bytes_an_encoding / bus_rate if bus_rate else 0.0
    saved = work.products * (1 - 1 / PRODUCTS_GAIN[precision])
    compute = (work.step - saved) / (STEP_SHARE * rate)
    return Estimate(
        encode=max(work.encode / (ENCODE_SHARE * rate), bus_encode),
        step=max(compute, bus_step),
        decode=work.decode / (DECODE_SHARE * rate),
        steps=work.steps,
        waits_for_bus=bus_step > compute,
    )
