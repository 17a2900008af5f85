"""What `joyedit bench` measures on one device: each stage on random weights, in seconds and as a share of its peak.

Every stage has one pass to warm up, which is shown by itself. Then it is timed over several rounds with the
device synchronised, and the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from joyedit.job.run_config import RunConfig
from joyedit.job.speed.bundles import forced_speed
from joyedit.job.speed.settings import EXACT, BlockSteps, Speed
from joyedit.models import flops
from joyedit.runtime.bench.batch import INSTRUCTIONS, BenchConfig, batch_of
from joyedit.runtime.bench.gain import Gain
from joyedit.runtime.bench.report import BenchReport, Stage
from joyedit.runtime.bench.text_tokens import TextTokens
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.joyimage.pixels import pixels_of
from joyedit.runtime.tuning.device import DTYPES
from joyedit.runtime.tuning.matmul_peak import matmul_tflops, sustained_matmul_tflops
from joyedit.runtime.tuning.timing import timed

T = TypeVar("T")


STEPS = 4
"""Denoising steps that are timed together."""


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


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
