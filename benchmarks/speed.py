"""`--speed` at full size: what steps that leave something out gain, and whether they keep their promises on a device.

    python benchmarks/speed.py --json speed.json
    python benchmarks/speed.py --precisions exact fp8 --regions 0.7 0.2 --no-promises --json speed.json
    python benchmarks/speed.py --size tiny --device cpu --steps 12 --json speed.json

Weights are random, so how much a step changes means nothing, nor what of a picture is like its reference. The gain is
measured with a forced pattern: as many steps are computed as with nano, evenly spread; --computed says another share.
Everything that decides runs all the same. --regions are shares of the target's tokens that run behind the steps that
compute everything. In one process the exact edit and all others take turns, and medians count; a whole edit is
everything from nothing known to pixels on the host. How much is lost, only a trained model tells.

Then three promises, each on the device's own kernels: a threshold of zero makes the exact latents, bit by bit; with a
threshold that parts the items of a batch, each item's latents are those that it has alone, bit by bit; and the peak of
the memory is no more than the memory model expects.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from joyedit.job.run_config import RunConfig
from joyedit.job.spec import PrecisionName, SpeedName
from joyedit.job.speed.bundles import BUNDLES, forced_speed
from joyedit.job.speed.regions import AUTO_LEVEL as REGIONS
from joyedit.job.speed.regions import Regions
from joyedit.job.speed.settings import EXACT, BlockSteps, Speed, StepReuse
from joyedit.runtime.bench.batch import BenchConfig, batch_of
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.protocol import ReadyBatch

CHECK_STEPS = 10
"""Steps of the checks: enough for some to be reused."""
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to make the edit. `backend` has its precision."""

    name: str
    backend: JoyImageBackend
    speed: Speed


def main() -> None:
    args = parse()
    start = time.perf_counter()
    backends = {precision: backend_of(args, precision) for precision in args.precisions}
    backend = next(iter(backends.values()))
    found: dict[str, Any] = {
        "device": backend.info.device,
        "torch": torch.__version__,
        "dtype": backend.info.dtype,
        "attention": backend.info.attention,
        "fused": backend.info.fused,
        "placement": backend.info.placement,
        "build": time.perf_counter() - start,
        "basesize": args.basesize,
        "batch_size": args.batch_size,
        "steps": args.steps,
    }
    say(found)
    found["edits"] = gains(args, backends)
    save(args, found)
    for row in found["edits"]:
        print(
            f"{row['way']:>24}: {row['edit']:8.3f} s an edit, {row['faster']:.2f} times faster,"
            f" {row['computed']:.1%} of the DiT's work computed, denoising {row['denoise']:.3f} s"
            f" ({row['denoise_faster']:.2f} times), peak {row['peak'] / 1e9:.2f} GB"
        )
    if not args.no_promises:
        found["promises"] = promises(args, backend)
        say(found["promises"])
        save(args, found)


def backend_of(args: argparse.Namespace, precision: PrecisionName) -> JoyImageBackend:
    """The networks of one precision. `max` and regions: the plan and the memory model count what is kept."""
    config = RunConfig(
        output=Path(),
        device=args.device,
        attention=args.attention,
        compile="off",
        offload=args.offload,
        precision=precision,
        speed="max",
        regions="auto" if args.regions else None,
    )
    return random_backend(args.size, config)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="write all figures to this file")
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    faster = [level for level in BUNDLES if level != "exact"]
    parser.add_argument("--levels", nargs="*", choices=faster, default=faster)
    parser.add_argument("--computed", type=float, help="share of the steps that may be reused to compute; else nano's")
    parser.add_argument("--precisions", nargs="+", choices=get_args(PrecisionName), default=["exact"])
    parser.add_argument("--regions", nargs="*", type=float, default=[], help="shares of the target's tokens that run")
    parser.add_argument("--basesize", type=int, choices=(256, 512, 768, 1024))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--offload", choices=("none", "blocks"), default="none")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--no-promises", action="store_true", help="measure gains only")
    args = parser.parse_args()
    args.basesize = args.basesize or (1024 if args.size == "full" else 256)
    return args


def say(found: dict[str, Any]) -> None:
    print(json.dumps(found, indent=1), flush=True)


def save(args: argparse.Namespace, found: dict[str, Any]) -> None:
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# --- gains


def gains(args: argparse.Namespace, backends: dict[PrecisionName, JoyImageBackend]) -> list[dict[str, Any]]:
    """Whole edits of all ways in turns, a first round with few steps. `faster` is against the first way."""
    batch = batch_of(config_of(args))
    ways = [way for precision, backend in backends.items() for way in ways_of(args, precision, backend)]
    times: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
    for turn in range(args.rounds + 1):
        for way in ways:
            one = edit(way, batch, args.steps if turn else min(CHECK_STEPS, args.steps))
            if turn:
                times[way.name].append(one)
                print(f"round {turn}, {way.name}: {one['edit']:.3f} s, denoising {one['denoise']:.3f} s", flush=True)
    medians = {way.name: {key: median(times[way.name], key) for key in ("edit", "denoise")} for way in ways}
    exact = medians[ways[0].name]
    return [
        {
            "way": name,
            **medians[name],
            "faster": exact["edit"] / medians[name]["edit"],
            "denoise_faster": exact["denoise"] / medians[name]["denoise"],
            "computed": found[-1]["computed"],
            "peak": max(one["peak"] for one in found),
            "predicted": max(one["predicted"] for one in found),
            "all": [one["edit"] for one in found],
        }
        for name, found in times.items()
    ]


def ways_of(args: argparse.Namespace, precision: PrecisionName, backend: JoyImageBackend) -> list[Way]:
    """Everything computed, each level, each share of regions, and the last level with the last share."""
    levels = {level: speed_of_level(level, args) for level in args.levels}
    shares = {f"regions {share:g}": Regions(level=REGIONS, forced=share) for share in args.regions}
    speeds = {"all": EXACT, **levels, **{name: Speed(regions=regions) for name, regions in shares.items()}}
    if levels and shares:
        speed, regions = list(levels)[-1], list(shares)[-1]
        speeds[f"{speed}, {regions}"] = replace(levels[speed], regions=shares[regions])
    return [Way(name=f"{precision}, {name}", backend=backend, speed=speed) for name, speed in speeds.items()]


def config_of(args: argparse.Namespace, items: int = 0) -> BenchConfig:
    return BenchConfig(size=args.size, basesize=args.basesize, batch_size=items or args.batch_size, steps=args.steps)


def speed_of_level(level: SpeedName, args: argparse.Namespace) -> Speed:
    speed = forced_speed(level, "diffusers")
    if args.computed is None or speed.reuse is None:
        return speed
    return replace(speed, reuse=replace(speed.reuse, forced=args.computed))


def edit(way: Way, batch: ReadyBatch, steps: int) -> dict[str, Any]:
    """One whole edit."""
    backend = way.backend
    backend.speed = way.speed
    backend.cache.clear()
    backend.reset_peaks()
    backend.synchronize()
    start = time.perf_counter()
    encoded = replace(backend.encode(batch), steps=steps, work=[])
    backend.synchronize()
    encoded_at = time.perf_counter()
    latents = backend.denoise(encoded, no_progress)
    backend.synchronize()
    denoised_at = time.perf_counter()
    backend.decode(latents)
    backend.synchronize()
    work = BlockSteps.total(backend.block_steps(encoded))
    return {
        "edit": time.perf_counter() - start,
        "denoise": denoised_at - encoded_at,
        "computed": work.computed / work.all * work.share_of_tokens if work.all else 1.0,
        "peak": backend.peak_memory() or 0,
        "predicted": backend.predicted_peak() or 0,
    }


def median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def no_progress(done: int, total: int) -> None:
    """Hears of each step, and says nothing."""


# --- promises


def promises(args: argparse.Namespace, backend: JoyImageBackend) -> dict[str, Any]:
    """What holds bit by bit on this device. Batches of two items that differ in picture, text and seed."""
    batch = batch_of(config_of(args, items=2))
    singles = [replace(batch, items=(item,)) for item in batch.items]
    exact, _ = latents_of(backend, batch, EXACT)
    never, _ = latents_of(backend, batch, Speed(reuse=StepReuse(threshold=0.0)))
    found: dict[str, Any] = {"threshold 0 is exact": torch.equal(exact, never)}
    found["threshold 0 differs by"] = float((exact - never).abs().max())
    alone = [latents_of(backend, one, EXACT)[0] for one in singles]
    found["exact: alone is in company"] = all(torch.equal(exact[n : n + 1], one) for n, one in enumerate(alone))
    for threshold in THRESHOLDS:
        speed = Speed(reuse=StepReuse(threshold=threshold, order=1))
        together, work = latents_of(backend, batch, speed)
        if len({one.computed for one in work}) > 1 or (threshold == THRESHOLDS[-1] and any(o.reused for o in work)):
            break
    apart = [latents_of(backend, one, speed) for one in singles]
    found["threshold of the check"] = threshold
    found["items decide otherwise"] = len({one.computed for one in work}) > 1
    found["reuse: alone is in company"] = all(
        torch.equal(together[n : n + 1], one) and tuple(own) == (work[n],) for n, (one, own) in enumerate(apart)
    )
    return found


def latents_of(backend: JoyImageBackend, batch: ReadyBatch, speed: Speed) -> tuple[Tensor, list[BlockSteps]]:
    backend.speed = speed
    encoded = replace(backend.encode(batch), steps=CHECK_STEPS, work=[])
    latents = backend.denoise(encoded, no_progress)
    backend.synchronize()
    return latents.cpu(), list(encoded.work)


if __name__ == "__main__":
    main()
