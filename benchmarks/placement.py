"""The published size in little memory: the same edit with everything resident and within several budgets, in one run.

    python benchmarks/placement.py --json placement.json
    python benchmarks/placement.py --size tiny --device cpu --budgets 1MB --json placement.json

Weights are random, the same for every budget. The table gives for each budget the peak of the device's memory, as
torch allocated and as it reserved it, the seconds of a step against the resident one, the seconds of whole edits, and
whether the latents are those of the resident run, bit by bit. Torch refuses more than the budget by its own limit for
a process.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from joyedit.job.results.report import host_peak_memory
from joyedit.job.run_config import RunConfig
from joyedit.quantities import memory_bytes
from joyedit.runtime.bench.batch import BenchConfig, batch_of
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.encoded import Encoded
from joyedit.runtime.joyimage.loading import random_backend
from joyedit.runtime.protocol import ReadyBatch

BUDGETS = ("24GB", "16GB", "12GB", "8GB", "6GB")
STEPS = 4
"""Steps that are timed together."""


def main() -> None:
    args = parse()
    basesize = 1024 if args.size == "full" else 256
    few = batch_of(BenchConfig(size=args.size, basesize=basesize, steps=STEPS))
    rows: list[dict[str, Any]] = []
    expected: list[torch.Tensor] = []
    for place, name in enumerate(["resident", *args.budgets, "resident"]):
        row = measure(args, name, few, expected, whole=args.steps if place <= len(args.budgets) else 0)
        forget(args)
        rows.append(row)
        print(json.dumps(row), flush=True)
        args.json.write_text(json.dumps(rows, indent=1))
    base = statistics.median([row["step"] for row in rows if row["budget"] == "resident"])
    print(
        f"\n{'budget':>9} {'allocated':>10} {'reserved':>10} {'step s':>8} {'ratio':>7} {'edit s':>8} {'host':>8}  same"
    )
    for row in rows:
        text = f"{row['budget']:>9} {row['allocated'] / 1e9:>7.2f} GB {row['reserved'] / 1e9:>7.2f} GB"
        text += f" {row['step']:>8.4f} {row['step'] / base:>7.4f} {row.get('edit', 0):>8.2f}"
        print(f"{text} {row.get('seconds an item', 0):>8.3f} {row['host'] / 1e9:>5.1f} GB  {row['same']}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budgets", nargs="*", default=BUDGETS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of a whole edit; 0 leaves it out")
    parser.add_argument("--items", type=int, default=0, help="edits of a few steps, one after the other; 0: none")
    parser.add_argument("--attention", default="auto")
    return parser.parse_args()


def measure(
    args: argparse.Namespace, budget: str, few: ReadyBatch, expected: list[torch.Tensor], whole: int
) -> dict[str, Any]:
    """One backend, built, measured and closed."""
    config = RunConfig(
        output=Path(),
        device=args.device,
        attention=args.attention,
        compile="off",
        offload="none" if budget == "resident" else "auto",
        memory=None if budget == "resident" else memory_bytes(budget),
    )
    start = time.perf_counter()
    backend = random_backend(args.size, config)
    row: dict[str, Any] = {
        "budget": budget,
        "placement": backend.info.placement,
        "resident blocks": backend.placement.resident_blocks,
        "build": time.perf_counter() - start,
        "attention": backend.info.attention,
        "fused": backend.info.fused,
        "notes": backend.info.notes,
    }
    backend.reset_peaks()
    encoded = backend.encode(few)
    latents = backend.denoise(encoded, no_progress)  # warms up, and is compared
    backend.decode(latents)
    backend.synchronize()
    if not expected:
        expected.append(latents.cpu())
    row["same"] = bool(torch.equal(latents.cpu(), expected[0]))
    steps = [seconds(backend, lambda: backend.denoise(encoded, no_progress)) / STEPS for _ in range(args.rounds)]
    row |= {"step": statistics.median(steps), "steps": steps}
    row["encode"] = seconds(backend, lambda: encode_anew(backend, few))
    if whole:
        row["edit"] = seconds(backend, lambda: edit(backend, few, whole))
    if args.items:
        row["items"] = args.items
        row["seconds an item"] = seconds(backend, lambda: edits(backend, args)) / args.items
    row["predicted"] = backend.placement.predicted_peak
    row["host"] = backend.placement.host
    row["host peak"] = host_peak_memory()
    if backend.device.type == "cuda":
        row["allocated"] = torch.cuda.max_memory_allocated()
        row["reserved"] = torch.cuda.max_memory_reserved()
    else:
        row["allocated"] = row["reserved"] = 0
    backend.close()
    return row


def forget(args: argparse.Namespace) -> None:
    """Give all memory of the last backend back."""
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def encode_anew(backend: JoyImageBackend, batch: ReadyBatch) -> Encoded:
    backend.cache.clear()
    return backend.encode(batch)


def edit(backend: JoyImageBackend, batch: ReadyBatch, steps: int) -> None:
    """A whole edit, from nothing known to pixels."""
    backend.decode(backend.denoise(replace(encode_anew(backend, batch), steps=steps), no_progress))


def edits(backend: JoyImageBackend, args: argparse.Namespace) -> None:
    """Several edits of a few steps, encoded as a run does, one picture a batch."""
    backend.cache.clear()
    basesize = 1024 if args.size == "full" else 256
    config = BenchConfig(size=args.size, basesize=basesize, steps=STEPS)
    batches = []
    for number in range(args.items):
        batch = batch_of(config)
        item = replace(batch.items[0].sized.item, id=str(number))
        ready = replace(batch.items[0], sized=replace(batch.items[0].sized, item=item))
        batches.append(replace(batch, items=(ready,)))
    for start in range(0, args.items, backend.encode_ahead):
        window = batches[start : start + backend.encode_ahead]
        backend.prepare(window)
        for encoded in [backend.encode(batch) for batch in window]:
            backend.decode(backend.denoise(encoded, no_progress))


def seconds(backend: JoyImageBackend, call: Callable[[], object]) -> float:
    backend.synchronize()
    start = time.perf_counter()
    call()
    backend.synchronize()
    return time.perf_counter() - start


def no_progress(done: int, total: int) -> None:
    """Hears of each step, and says nothing."""


if __name__ == "__main__":
    main()
