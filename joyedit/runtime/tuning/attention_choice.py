"""Which attention kernel is used: the fastest on this device of those that are right, measured once and remembered.

A kernel is trusted only after a small input on which it agrees with fp32. Rates are measured at the
shapes of a 1024-pixel edit with guidance: two samples of about 9,250 tokens.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from joyedit.errors import DeviceError, first_line
from joyedit.job.spec import AttentionName
from joyedit.models.attention import BACKENDS, VARLEN, Spans, varlen_kernel
from joyedit.runtime.tuning.measurements import Measurements
from joyedit.runtime.tuning.timing import synchronize, timed

FLASH = ("fa4", "fa3", "fa2", "varlen")
"""What `--attention flash` stands for: the first of these that is there."""

LENGTHS = (9252, 9239)
"""Tokens of the two guidance branches of a 1024-pixel edit; no two prompts are of one length."""

CALLS = 7

TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 2e-3}
"""How far a kernel may be from fp32, on values of about 1: a few roundings of its dtype, or of TF32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionChoice:
    """The backend in force. `rates`: TFLOP/s of each that was measured; `faults`: why each other cannot serve."""

    name: str
    rates: Mapping[str, float]
    faults: Mapping[str, str]
    remembered: bool = False

    @property
    def note(self) -> str:
        """For the user: `attention: cudnn 612 TFLOP/s (varlen 371, sdpa 365), measured now`; empty if nothing was."""
        if not self.rates:
            return ""
        others = [f"{name} {rate:.0f}" for name, rate in self.rates.items() if name != self.name]
        message = f"attention: {self.name} {self.rates[self.name]:.0f} TFLOP/s"
        message += f" ({', '.join(others)})" if others else ""
        return message + (", as measured in an earlier run" if self.remembered else ", measured now")


def choose_attention(
    wish: AttentionName, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int
) -> AttentionChoice:
    """The attention backend for these heads. Raises DeviceError for a wish that cannot be met.

    auto: sdpa on the CPU; on CUDA the fastest of those that are right.
    """
    if wish == "auto":
        if device.type != "cuda":
            return AttentionChoice(name="sdpa", rates={}, faults={})
        return _remembered(device, dtype, heads, head_dim)
    if wish == "sdpa":
        return AttentionChoice(name="sdpa", rates={}, faults={})
    faults: dict[str, str] = {}
    for name in FLASH if wish == "flash" else (wish,):
        fault = check(name, device, dtype, heads, head_dim)
        if not fault:
            return AttentionChoice(name=name, rates={}, faults=faults)
        faults[name] = fault
    message = "; ".join(f"{name}: {fault}" if wish == "flash" else fault for name, fault in faults.items())
    raise DeviceError(f"--attention {wish}: {message}; use --attention auto or sdpa")


def check(name: str, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> str:
    """Why this backend cannot serve here; empty if it can, and is right on a small input."""
    if name in VARLEN and (device.type != "cuda" or dtype != torch.bfloat16):
        return "it needs bf16 on a CUDA device"
    spans = (Spans((200, 131), (200, 131)), Spans((64, 64), (200, 131)))
    try:
        if name in VARLEN:
            varlen_kernel(name)
        errors = [_error(name, sample, device, dtype, heads, head_dim) for sample in spans]
    except ImportError as error:
        return f"not installed ({first_line(error)})"
    except Exception as error:  # the packages of these kernels have exceptions of their own; all are told
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"it does not run here ({first_line(error)})"
    # NaN is not smaller than anything.
    wrong = [error for error in errors if not error <= TOLERANCE[dtype]]
    return f"its result differs from fp32 by {wrong[0]:.3g}" if wrong else ""


def _error(name: str, spans: Spans, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> float:
    """Largest difference from attention in fp32, on random values."""
    q, k, v = _random(spans, device, dtype, heads, head_dim)
    errors = []
    samples = (q.split(spans.queries), k.split(spans.keys), v.split(spans.keys))
    outs = BACKENDS[name](q, k, v, spans)
    for out, *sample in zip(outs, *samples, strict=True):
        wide_q, wide_k, wide_v = (x.float().transpose(0, 1) for x in sample)
        scores = (wide_q @ wide_k.transpose(1, 2)) * head_dim**-0.5
        expected = (scores.softmax(-1) @ wide_v).transpose(0, 1)
        errors.append((out.float() - expected).abs().max())
    return float(torch.stack(errors).max())  # a NaN anywhere comes through


def measure(
    names: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    heads: int,
    head_dim: int,
    lengths: tuple[int, ...] = LENGTHS,
) -> AttentionChoice:
    """Check and time these backends; the fastest is chosen. Median of a few calls after a first one."""
    rates: dict[str, float] = {}
    faults: dict[str, str] = {}
    spans = Spans(lengths, lengths)
    operations = sum(4 * length * length * heads * head_dim for length in lengths)
    with torch.inference_mode():
        q, k, v = _random(spans, device, dtype, heads, head_dim)
        for name in names:
            fault = check(name, device, dtype, heads, head_dim)
            if fault:
                faults[name] = fault
                continue
            attend = BACKENDS[name]
            try:
                call = partial(attend, q, k, v, spans)
                seconds = statistics.median(timed(call, partial(synchronize, device), CALLS)[0])
            except Exception as error:  # a kernel may take small inputs alone, or have no room for large ones
                faults[name] = f"it does not run at full length ({first_line(error)})"
                continue
            rates[name] = operations / seconds / 1e12
    if not rates:
        raise DeviceError("no attention kernel works: " + "; ".join(f"{n}: {f}" for n, f in faults.items()))
    ordered = dict(sorted(rates.items(), key=lambda pair: -pair[1]))
    return AttentionChoice(name=next(iter(ordered)), rates=ordered, faults=faults)


def _random(
    spans: Spans, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value; side by side in memory where they are of one length, as a fused product leaves them."""
    generator = torch.Generator(device).manual_seed(0)
    draw = partial(torch.randn, generator=generator, device=device)
    if spans.queries == spans.keys:
        q, k, v = draw(sum(spans.keys), 3, heads, head_dim).to(dtype).unbind(1)
    else:
        rows = (sum(spans.queries), sum(spans.keys), sum(spans.keys))
        q, k, v = (draw(n, heads, head_dim).to(dtype) for n in rows)
    return q, k, v


def candidates(dtype: torch.dtype) -> tuple[str, ...]:
    """What `auto` measures: everything in bf16; the others take no fp32."""
    return tuple(BACKENDS) if dtype == torch.bfloat16 else ("sdpa",)


def _remembered(device: torch.device, dtype: torch.dtype, heads: int, head_dim: int) -> AttentionChoice:
    """The choice of an earlier run with the same device, torch and kernels, else a new measurement, kept."""
    names = candidates(dtype)
    installed = [name for name in names if name not in VARLEN or _is_there(name)]
    key = ", ".join(
        (
            torch.cuda.get_device_name(device),
            f"torch {torch.__version__}",
            f"cudnn {torch.backends.cudnn.version()}",
            str(dtype),
            f"{heads}x{head_dim}",
            "+".join(installed),
        )
    )
    kept = Measurements("attention.json")
    found = _valid(kept.get(key), names)
    if found is not None:
        return found
    choice = measure(names, device, dtype, heads, head_dim)
    kept.put(key, {"rates": dict(choice.rates), "faults": dict(choice.faults)})
    return choice


def _is_there(name: str) -> bool:
    try:
        varlen_kernel(name)
    except ImportError:
        return False
    return True


def _valid(entry: object, names: Sequence[str]) -> AttentionChoice | None:
    """A remembered choice; None if the file holds something else."""
    if not isinstance(entry, dict) or not isinstance(entry.get("rates"), dict):
        return None
    rates = {n: float(r) for n, r in entry["rates"].items() if n in names and isinstance(r, (int, float))}
    if not rates or len(rates) != len(entry["rates"]):
        return None
    faults = entry.get("faults")
    return AttentionChoice(
        name=max(rates, key=rates.__getitem__),
        rates=rates,
        faults=faults if isinstance(faults, dict) else {},
        remembered=True,
    )
