"""Whole runs on random weights: what an image costs by the run's length, how long the device idles, peak memory.

    python benchmarks/runs.py --size full --basesize 256 --steps 4 --items 8 64 512 --json runs.json
    python benchmarks/runs.py --size tiny --steps 2 --items 4 16      # on a CPU

Pictures, manifest, pipeline, writing and journal are those of `joyedit run`; only the weights are made up.
Each picture has four instructions. The model is built once; a short run before the first one warms it up.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from joyedit.job.results.report import Report
from joyedit.job.run_config import RandomSize
from joyedit.options import RunOptions
from joyedit.request import build_request
from joyedit.runtime.bench.batch import INSTRUCTIONS
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.pipeline.clock import DEVICE_STAGES
from joyedit.runtime.run import run


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        flags = RunOptions(
            source=(), model="nano", steps=args.steps, guidance_scale=4.0, basesize=args.basesize,
            batch_size=args.batch_size, device=args.device, offload=args.offload, overwrite=True,
        )  # fmt: skip
        draw(folder, args.basesize, -(-max(args.items) // 4))
        backend = build(args.size, folder, flags)
        print(f"{backend.info.device}, {backend.info.dtype}, attention {backend.info.attention},"
              f" {'fused' if backend.info.fused else 'plain'} kernels, offload {args.offload};"
              f" base size {args.basesize}, {args.steps} steps", flush=True)  # fmt: skip
        edit(backend, folder, flags, min(4, *args.items), "warm-up")
        found = []
        for count in args.items:
            reset_peak(backend)
            found.append(figures(edit(backend, folder, flags, count, str(count))))
    for row in found:
        print(*(f"{key} {value}" for key, value in row.items()), sep=", ")
    if args.json:
        about = {"device": backend.info.device, "torch": torch.__version__, "arguments": vars(args) | {"json": ""}}
        args.json.write_text(json.dumps(about | {"runs": found}, indent=1, default=str) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    parser.add_argument("--basesize", type=int, choices=(256, 512, 768, 1024), default=256)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--items", type=int, nargs="+", default=[8, 64], help="lengths of the runs")
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--offload", choices=("none", "encoder"), default="none")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--scratch", type=Path, help="where pictures are written; by default the temporary folder")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


def draw(folder: Path, side: int, count: int) -> None:
    """Pictures of coarse noise."""
    for number in range(count):
        small = Image.frombytes("RGB", (side // 8, side // 8), os.urandom(3 * (side // 8) ** 2))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png", compress_level=1)


def manifest(folder: Path, items: int) -> Path:
    path = folder / f"{items}.jsonl"
    lines = (
        json.dumps({"id": f"{n}", "image": f"{n // 4}.png", "instruction": INSTRUCTIONS[n % 4], "seed": n})
        for n in range(items)
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def build(size: RandomSize, folder: Path, flags: RunOptions) -> JoyImageBackend:
    config = build_request(replace(flags, source=(str(manifest(folder, 4)),))).config
    backend = random_backend(size, config)
    backend.info = replace(backend.info, identity="random weights")
    return backend


def reset_peak(backend: JoyImageBackend) -> None:
    """Building, warming up and earlier runs do not count."""
    backend.cache.clear()
    if backend.device.type == "cuda":
        torch.cuda.empty_cache()
    backend.reset_peaks()


def edit(backend: JoyImageBackend, folder: Path, flags: RunOptions, items: int, name: str) -> Report:
    """One run. The backend stays open for the next one."""
    request = build_request(replace(flags, source=(str(manifest(folder, items)),), output=folder / f"out-{name}"))
    backend.close = lambda: None  # type: ignore[method-assign]
    outcome = run(request.source, request.config, load_backend=lambda _: backend)
    if outcome.exit_code:
        raise SystemExit(f"a run of {items} items ended with {outcome.exit_code}: {outcome.error}")
    return outcome.report


def figures(report: Report) -> dict[str, Any]:
    """Of one run: seconds an image after loading, in all, by stage and without the first batch; idle share, memory."""
    steady = report.steady or {}
    return {
        "items": report.ok,
        "batches": report.batches,
        "seconds": round(report.seconds, 2),
        "seconds an image": None if not report.images_per_second else round(1 / report.images_per_second, 4),
        # The encoder shares the device with the batch before, so they may add up to more than the whole.
        "stages": {key: round(report.stages[key] / report.ok, 4) for key in DEVICE_STAGES},
        "steady": {key: round(value, 4) if isinstance(value, float) else value for key, value in steady.items()},
        "idle": None if report.device_idle is None else f"{report.device_idle.share:.2%}",
        "waited": {key: round(value, 2) for key, value in report.waited.items()},
        "peak GB": None if (peak := report.peak_memory["device"]) is None else round(peak / 1e9, 1),
        "predicted GB": None if report.predicted_peak is None else round(report.predicted_peak / 1e9, 1),
    }


if __name__ == "__main__":
    main()
