"""What `joyedit bench` measures: each stage on random weights, in seconds and as a share of the device's peak.

Every stage has one pass to warm up, which is shown by itself. Then it is timed over several rounds with the
device synchronised, and the median counts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from joyedit.job.buckets import choose_bucket
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Origin, Sampling, SizedItem, SpeedName
from joyedit.job.speed.bundles import forced_speed
from joyedit.job.speed.settings import EXACT, BlockSteps, Speed
from joyedit.models import flops
from joyedit.runtime.bench_gain import Gain
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.joyimage.pixels import pixels_of
from joyedit.runtime.protocol import ReadyBatch
from joyedit.runtime.tuning.device import DTYPES
from joyedit.runtime.tuning.matmul_peak import matmul_tflops, sustained_matmul_tflops
from joyedit.runtime.tuning.timing import timed
from joyedit.weights.random import SizeName

T = TypeVar("T")

INSTRUCTIONS = (
    "Turn the sky into a red evening.",
    "Remove the car.",
    "Make the house blue and add a small tree behind it.",
    "Change the background to a snowy mountain at night.",
)


STEPS = 4
"""Denoising steps that are timed together."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure. `batch_size` items of `references` pictures each; `steps` of the whole edit.

    A stage is timed `rounds` times, the whole edit `edits` times; with a `speed`, as often with that too, in turns.
    """

    size: SizeName
    basesize: int
    references: int = 1
    batch_size: int = 1
    steps: int = 8
    rounds: int = 3
    edits: int = 1
    speed: SpeedName = "exact"

    @property
    def edit_stage(self) -> str:
        """What the stage of the whole edit is called."""
        return f"edit, {self.steps} steps"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: median seconds, the warm-up pass where there was one, and operations by formula."""

    name: str
    seconds: float
    spread: float
    warm_up: float | None
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
    precision: str
    attention: str
    attention_rates: dict[str, float]
    attention_faults: dict[str, str]
    placement: str
    fused: bool
    compiled: bool
    compile_seconds: float
    notes: list[str]
    target: tuple[int, int]
    text_tokens: list[int]
    parameters: dict[str, int]
    load_seconds: float
    matmul_tflops: float
    matmul_sustained: float
    finite: bool
    stages: list[Stage] = field(default_factory=list)
    peak_memory: int | None = None
    gain: Gain | None = None

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        for stage, raw in zip(self.stages, plain["stages"], strict=True):
            raw["tflops"] = stage.tflops
            raw["share_of_matmul"] = None if stage.tflops is None else stage.tflops / self.matmul_tflops
        step = next(s for s in self.stages if s.name == "denoise step")
        whole = next(s for s in self.stages if s.name == self.config.edit_stage)
        plain["seconds_a_step"] = step.seconds
        plain["seconds_an_image"] = whole.seconds / self.config.batch_size
        plain["torch"] = torch.__version__
        plain["gain"] = None if self.gain is None else self.gain.to_dict()
        return plain

    def rows(self) -> list[tuple[str, str]]:
        fused = "fused kernels" if self.fused else "plain kernels"
        compiled = f"compiled in {self.compile_seconds:.3g} s" if self.compiled else "not compiled"
        rows = [
            ("device", f"{self.device}, {self.dtype}, {self.precision} products, attention {self.attention}, {fused},"
             f" {compiled}"),
            ("model", f"random {self.config.size}: " + ", ".join(self._sizes())),
            ("target", f"{self.target[0]}x{self.target[1]}, {self.config.references} references,"
             f" batch {self.config.batch_size}, text tokens {'+'.join(map(str, self.text_tokens))}"),
            ("weights", self.placement),
            ("load", f"{self.load_seconds - self.compile_seconds:.3g} s without torch.compile"),
            ("matmul ceiling", f"{self.matmul_tflops:.3g} TFLOP/s, sustained {self.matmul_sustained:.3g}"),
        ]  # fmt: skip
        rows += [("attention " + name, f"{rate:.3g} TFLOP/s") for name, rate in self.attention_rates.items()]
        rows += [("attention " + name, fault) for name, fault in self.attention_faults.items()]
        rows += [("note", note) for note in self.notes]
        for stage in self.stages:
            first = "" if stage.warm_up is None else f", first {stage.warm_up:.4g} s"
            message = f"{stage.seconds:.4g} s (spread {stage.spread:.1%}{first})"
            if stage.tflops is not None:
                message += f", {stage.tflops:.3g} TFLOP/s, {stage.tflops / self.matmul_tflops:.0%} of the ceiling"
            rows.append((stage.name, message))
        rows += [] if self.gain is None else [self.gain.row()]
        rows.append(("latents", "finite" if self.finite else "NOT FINITE"))
        if self.peak_memory is not None:
            rows.append(("peak memory", f"{self.peak_memory / 2**30:.2f} GiB"))
        return rows

    def _sizes(self) -> list[str]:
        sizes = ((name, f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M") for name, n in self.parameters.items())
        return [f"{name} {count}" for name, count in sizes]


def bench(config: BenchConfig, run: RunConfig) -> BenchReport:
    """Build the networks and measure. `run` gives device, dtype, attention, fused and compile."""
    backend = random_backend(config.size, run)
    dtype = DTYPES[backend.info.dtype]
    ceiling, sustained = (f(backend.device, dtype) for f in (matmul_tflops, sustained_matmul_tflops))
    bench = _Bench(backend, config)
    with torch.inference_mode():
        bench.conditioning()
        bench.networks()
        bench.whole_edits()
    info = backend.info
    return BenchReport(
        config=config,
        device=info.device,
        dtype=info.dtype,
        precision=info.precision,
        attention=info.attention,
        attention_rates=dict(backend.attention.rates),
        attention_faults=dict(backend.attention.faults),
        placement=info.placement,
        fused=info.fused,
        compiled=info.compiled,
        compile_seconds=info.compile_seconds,
        notes=list(info.notes),
        target=bench.batch.target,
        text_tokens=bench.tokens.branches,
        parameters={
            "DiT": _parameters(backend.dit),
            "text encoder": _parameters(backend.text_encoder),
            "VAE": _parameters(backend.vae),
        },
        load_seconds=info.load_seconds,
        matmul_tflops=ceiling,
        matmul_sustained=sustained,
        finite=bench.finite,
        stages=bench.stages,
        peak_memory=backend.peak_memory(),
        gain=bench.gain,
    )


class _Bench:
    """The measurements of one backend, in the order in which the stages follow each other."""

    def __init__(self, backend: JoyImageBackend, config: BenchConfig) -> None:
        self.batch = batch_of(config)
        self.tokens = TextTokens.of(backend, self.batch)
        self.stages: list[Stage] = []
        self.finite = True
        self.gain: Gain | None = None
        self._backend = backend
        self._config = config

    def conditioning(self) -> None:
        """Text features of one and of four instructions for the same pictures."""
        pictures = self.batch.items[0].pictures
        for count in (1, 4):
            texts = [*(INSTRUCTIONS[i % 4] for i in range(count)), ""]
            name = f"conditioning, {count} instruction" + "s" * (count > 1)
            call = partial(_condition, self._backend, pictures, texts)
            self._stage(name, call, self.tokens.encode(self._backend, self._config, count))

    def networks(self) -> None:
        """VAE encoder, denoising step, VAE decoder, and decoding with the copy to the host."""
        backend, config, target = self._backend, self._config, self.batch.target
        pictures = self.batch.items[0].pictures
        if pictures:
            pixels = pixels_of(pictures[0], backend.device)
            self._stage("VAE encode", lambda: backend.vae.encode(pixels), flops.vae_encode(backend.vae.cfg, *target))
        encoded = backend.encode(self.batch)
        few = replace(encoded, steps=min(STEPS, config.steps))
        step = self.tokens.step(backend, config, target)
        latents = self._stage("denoise step", lambda: backend.denoise(few, _no_progress), step, few.steps)
        decode = flops.vae_decode(backend.vae.cfg, *target)
        self._stage("VAE decode", lambda: backend.vae.decode(latents[:1]), decode)
        self._stage("decode to pictures", lambda: backend.decode(latents), decode * config.batch_size)

    def whole_edits(self) -> None:
        """Encoding, all steps and decoding, from nothing known. There is no warm-up: every stage had its own, and a
        level of speed a few steps.
        """
        backend, config = self._backend, self._config
        level = forced_speed(config.speed, backend.schedule)
        if not level.is_exact:
            backend.speed = level
            backend.denoise(replace(backend.encode(self.batch), steps=min(STEPS, config.steps)), _no_progress)
        whole, fast, computed = [], [], 1.0
        for _ in range(config.edits):
            whole.append(self._whole_edit(EXACT)[0])
            if not level.is_exact:
                seconds, computed = self._whole_edit(level)
                fast.append(seconds)
        vae, target = backend.vae.cfg, self.batch.target
        once = config.references * flops.vae_encode(vae, *target) + flops.vae_decode(vae, *target)
        an_item = self.tokens.encode(backend, config, 1) + once
        total = an_item * config.batch_size + self.tokens.step(backend, config, target) * config.steps
        self._add(config.edit_stage, whole, None, total)
        if fast:
            self._add(f"{config.edit_stage}, --speed {config.speed}", fast, None)
            faster = statistics.median(whole) / statistics.median(fast)
            self.gain = Gain(level=config.speed, steps=config.steps, faster=faster, computed=computed)

    def _whole_edit(self, speed: Speed) -> tuple[float, float]:
        """Seconds of one, and the share of the DiT's blocks that ran."""
        backend = self._backend
        backend.speed = speed
        backend.cache.clear()
        backend.synchronize()
        start = time.perf_counter()
        encoded = replace(backend.encode(self.batch), steps=self._config.steps, work=[])
        edited = backend.denoise(encoded, _no_progress)
        self.finite = self.finite and bool(edited.isfinite().all())
        backend.decode(edited)
        backend.synchronize()
        seconds = time.perf_counter() - start
        work = BlockSteps.total(backend.block_steps(encoded))
        return seconds, work.computed / work.all if work.all else 1.0

    def _stage(self, name: str, call: Callable[[], T], operations: int, passes: int = 1) -> T:
        """`call` goes through the stage `passes` times; the figures are those of one pass."""
        seconds, warm_up, result = timed(call, self._backend.synchronize, self._config.rounds)
        self._add(name, [s / passes for s in seconds], warm_up / passes, operations)
        return result

    def _add(
        self, name: str, seconds: Sequence[float], warm_up: float | None, operations: int | None = None
    ) -> None:  # fmt: skip
        median = statistics.median(seconds)
        spread = (max(seconds) - min(seconds)) / median
        tflop = None if operations is None else operations / 1e12
        stage = Stage(name=name, seconds=median, spread=spread, warm_up=warm_up, tflop=tflop)
        self.stages.append(stage)


def _condition(backend: JoyImageBackend, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[Tensor]:
    """Features of several texts for the same pictures, nothing of them known before."""
    conditioner = backend.conditioner
    prefix = conditioner.read_prefix([conditioner.see(picture) for picture in pictures])
    features = conditioner.read_suffixes(prefix, texts, bool(pictures))
    backend.release_encoder()
    return features


def _no_progress(done: int, total: int) -> None:
    """Hears of each step, and says nothing."""


def batch_of(config: BenchConfig, instructions: Sequence[str] | None = None) -> ReadyBatch:
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
    return ReadyBatch.of(items, [shared or _pictures(config, bucket) for _ in texts])


def _pictures(config: BenchConfig, bucket: tuple[int, int]) -> tuple[Image.Image, ...]:
    height, width = bucket
    noise = [Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)) for _ in range(config.references)]
    return tuple(noise)


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


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
