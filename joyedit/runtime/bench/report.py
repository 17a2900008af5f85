"""The figures of `joyedit bench` on one device: for a person, and for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from joyedit.runtime.bench.batch import BenchConfig
from joyedit.runtime.bench.gain import Gain


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
