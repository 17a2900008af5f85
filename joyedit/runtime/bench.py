"""What `joyedit bench` measures: each stage on random weights, in seconds and as a share of the device's peak.

Every stage is warmed up by one pass that is told apart, then timed over several rounds with the
device synchronised; the median counts.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from joyedit.job.buckets import choose_bucket
from joyedit.job.spec import Batch, EditItem, Origin, RunConfig, Sampling, SizedItem
from joyedit.models import flops
from joyedit.runtime.backend import BatchInput
from joyedit.runtime.ceiling import matmul_tflops, timed
from joyedit.runtime.device import DTYPES
from joyedit.runtime.joyimage import JoyImageBackend, random_backend
from joyedit.weights.random import SizeName

INSTRUCTIONS = (
    "Turn the sky into a red evening.",
    "Remove the car.",
    "Make the house blue and add a small tree behind it.",
    "Change the background to a snowy mountain at night.",
)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure. `batch_size` items of one picture each; `references` a item; `steps` of the whole edit."""

    size: SizeName
    basesize: int
    references: int = 1
    batch_size: int = 1
    steps: int = 8
    rounds: int = 3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: median seconds, the first (warm-up) pass, and operations by formula where they count."""

    name: str
    seconds: float
    spread: float
    warm_up: float
    tflop: float | None = None

    @property
    def tflops(self) -> float | None:
        """TFLOP a second."""
        return None if self.tflop is None else self.tflop / self.seconds


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """All of it; `rows` for a person, `to_dict` for a program."""

    config: BenchConfig
    device: str
    dtype: str
    attention: str
    compiled: bool
    target: tuple[int, int]
    text_tokens: list[int]
    parameters: dict[str, int]
    load_seconds: float
    matmul_tflops: float
    stages: list[Stage] = field(default_factory=list)
    peak_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        for stage, raw in zip(self.stages, plain["stages"], strict=True):
            raw["tflops"] = stage.tflops
            raw["share_of_matmul"] = None if stage.tflops is None else stage.tflops / self.matmul_tflops
        step = next(s for s in self.stages if s.name == "denoise step")
        whole = next(s for s in self.stages if s.name.startswith("edit"))
        plain["seconds_a_step"] = step.seconds
        plain["seconds_an_image"] = whole.seconds / self.config.batch_size
        plain["torch"] = torch.__version__
        return plain

    def rows(self) -> list[tuple[str, str]]:
        rows = [
            ("device", f"{self.device}, {self.dtype}, attention {self.attention}"
             + (", compiled" if self.compiled else "")),
            ("model", f"random {self.config.size}: " + ", ".join(self._sizes())),
            ("target", f"{self.target[0]}x{self.target[1]}, {self.config.references} references,"
             f" batch {self.config.batch_size}, text tokens {'+'.join(map(str, self.text_tokens))}"),
            ("matmul ceiling", f"{self.matmul_tflops:.3g} TFLOP/s"),
        ]  # fmt: skip
        for stage in self.stages:
            told = f"{stage.seconds:.4g} s (spread {stage.spread:.1%}, first {stage.warm_up:.4g} s)"
            if stage.tflops is not None:
                told += f", {stage.tflops:.3g} TFLOP/s, {stage.tflops / self.matmul_tflops:.0%} of the ceiling"
            rows.append((stage.name, told))
        if self.peak_memory is not None:
            rows.append(("peak memory", f"{self.peak_memory / 2**30:.2f} GiB"))
        return rows

    def _sizes(self) -> list[str]:
        told = ((name, f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M") for name, n in self.parameters.items())
        return [f"{name} {count}" for name, count in told]


def bench(config: BenchConfig, run: RunConfig) -> BenchReport:
    """Build the networks and measure. `run` gives device, dtype, attention and compile."""
    backend = random_backend(config.size, run)
    batch = batch_of(config)
    tokens = TextTokens.of(backend, batch)
    found: list[Stage] = []

    def stage(name: str, call: Callable[[], Any], operations: int | None = None) -> Any:
        seconds, warm_up, result = timed(call, backend.synchronize, config.rounds)
        median = statistics.median(seconds)
        found.append(
            Stage(
                name=name,
                seconds=median,
                spread=(max(seconds) - min(seconds)) / median,
                warm_up=warm_up,
                tflop=None if operations is None else operations / 1e12,
            )
        )
        return result

    def cold(instructions: int) -> Any:
        """Conditioning with nothing in the cache, of one picture and several instructions for it."""
        backend.cache.clear()
        return backend.encode(batch_of(config, [INSTRUCTIONS[i % 4] for i in range(instructions)]))

    target = batch.batch.items[0].target
    with torch.inference_mode():
        stage("encode, 1 instruction", lambda: cold(1), tokens.encode(backend, config, 1, target))
        stage("encode, 4 instructions", lambda: cold(4), tokens.encode(backend, config, 4, target))
        backend.cache.clear()
        encoded = backend.encode(batch)
        one = type(encoded)(conditioning=encoded.conditioning, steps=1)
        latents = stage(
            "denoise step",
            lambda: backend.denoise(one, lambda done, total: None),
            tokens.step(backend, config, target),
        )
        decode = flops.vae_decode(backend.vae.cfg, *target) * config.batch_size
        stage("decode", lambda: backend.decode(latents), decode)

        def edit() -> None:
            backend.cache.clear()
            whole = type(encoded)(conditioning=backend.encode(batch).conditioning, steps=config.steps)
            backend.decode(backend.denoise(whole, lambda done, total: None))

        stage(f"edit, {config.steps} steps", edit)
    return BenchReport(
        config=config,
        device=backend.info.device,
        dtype=backend.info.dtype,
        attention=backend.info.attention,
        compiled=run.compile,
        target=target,
        text_tokens=tokens.branches,
        parameters={
            "DiT": _parameters(backend.dit),
            "text encoder": _parameters(backend.text_encoder),
            "VAE": _parameters(backend.vae),
        },
        load_seconds=backend.info.load_seconds,
        matmul_tflops=matmul_tflops(backend.device, DTYPES[backend.info.dtype]),
        stages=found,
        peak_memory=backend.peak_memory(),
    )


def batch_of(config: BenchConfig, instructions: Sequence[str] | None = None) -> BatchInput:
    """Items of random square pictures; with `instructions`, one item for each, all of one picture."""
    bucket = choose_bucket((config.basesize, config.basesize), config.basesize)
    texts = instructions or [INSTRUCTIONS[i % len(INSTRUCTIONS)] for i in range(config.batch_size)]
    shared = _pictures(config, bucket) if instructions else None
    items = [
        SizedItem(
            item=EditItem(
                id=str(number),
                images=tuple(Path(f"{number}-{slot}") for slot in range(config.references)),
                instruction=text,
                sampling=Sampling(steps=config.steps, seed=number),
                basesize=config.basesize,
                size=None,
                output=f"{number}.png",
                origin=Origin(file="bench"),
            ),
            target=bucket,
            references=(bucket,) * config.references,
        )
        for number, text in enumerate(texts)
    ]
    pictures = tuple(shared or _pictures(config, bucket) for _ in texts)
    return BatchInput(batch=Batch(index=0, items=tuple(items)), pictures=pictures)


def _pictures(config: BenchConfig, bucket: tuple[int, int]) -> tuple[Image.Image, ...]:
    height, width = bucket
    noise = [Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)) for _ in range(config.references)]
    return tuple(noise)


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """Tokens of a batch's prompts, as the FLOP formulas need them."""

    opening: int
    rests: list[int]
    negative: int
    dropped: int

    @classmethod
    def of(cls, backend: JoyImageBackend, batch: BatchInput) -> TextTokens:
        builder = backend.conditioner.builder
        side = 32  # pixels of a merged patch
        patches = [(p.height // side) * (p.width // side) for p in batch.pictures[0]]
        return cls(
            opening=len(builder.opening(patches)),
            rests=[len(builder.rest(s.item.instruction, bool(patches))) for s in batch.batch.items],
            negative=len(builder.rest("", bool(patches))),
            dropped=builder.dropped,
        )

    @property
    def branches(self) -> list[int]:
        """Text tokens that the DiT sees in each branch."""
        positive = [self.opening + rest - self.dropped for rest in self.rests]
        return positive + [self.opening + self.negative - self.dropped] * len(self.rests)

    def encode(self, backend: JoyImageBackend, config: BenchConfig, count: int, target: tuple[int, int]) -> int:
        text, vision = backend.text_encoder.config.text_config, backend.text_encoder.config.vision_config
        rows, columns = target[0] // 16, target[1] // 16
        total = flops.text_encoder(text, self.opening)
        total += sum(flops.text_encoder(text, self.rests[0], self.opening) for _ in range(count))
        total += flops.text_encoder(text, self.negative, self.opening)
        once = flops.vision_tower(vision, rows, columns) + flops.vae_encode(backend.vae.cfg, *target)
        return total + config.references * once

    def step(self, backend: JoyImageBackend, config: BenchConfig, target: tuple[int, int]) -> int:
        side = backend.vae.cfg.spatial_factor
        ph, pw = backend.dit.cfg.patch
        tokens = (target[0] // side // ph) * (target[1] // side // pw)
        return flops.dit_step(backend.dit.cfg, tokens, config.references * tokens, self.branches)


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
