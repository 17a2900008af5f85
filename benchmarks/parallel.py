"""One picture over several GPUs: what a step and a whole edit take, and how far the results are from one GPU's.

    python benchmarks/parallel.py --worlds 2 --json parallel.json
    python benchmarks/parallel.py --tiny --worlds 2 3 4 --json parallel.json     # on a CPU

It starts one process a GPU. Each builds the same random weights once; then all layouts take turns in the same
processes, through the same calls as a run makes, and the medians of the rounds count. Every result is printed as it
comes. A whole edit is everything from nothing known to pixels on the host.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from joyedit.job.run_config import RunConfig  # noqa: E402
from joyedit.models.attention import Spans, TextLengths  # noqa: E402
from joyedit.models.schedule import sigmas  # noqa: E402
from joyedit.models.shared_sequences import SharedSequences, share  # noqa: E402
from joyedit.runtime.bench.batch import BenchConfig, batch_of, with_steps  # noqa: E402
from joyedit.runtime.joyimage.backend import JoyImageBackend  # noqa: E402
from joyedit.runtime.joyimage.denoise import ALONE, Alone, denoise  # noqa: E402
from joyedit.runtime.joyimage.encoded import Encoded  # noqa: E402
from joyedit.runtime.joyimage.loading import random_backend  # noqa: E402
from joyedit.runtime.parallel.follow import follow  # noqa: E402
from joyedit.runtime.parallel.layout import Layout  # noqa: E402
from joyedit.runtime.parallel.lead import lead  # noqa: E402
from joyedit.runtime.parallel.place import Place  # noqa: E402
from joyedit.runtime.parallel.ranks import GroupRanks  # noqa: E402
from joyedit.runtime.tuning.timing import synchronize  # noqa: E402

FEW = 4
"""Steps that are timed together."""
EXCHANGES = 20
"""Blocks of which the exchanges are timed together."""


def main() -> None:
    args = parse()
    most = max(args.worlds)
    begin = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        others = [context.Process(target=work, args=(rank, args, Path(scratch), begin)) for rank in range(1, most)]
        for process in others:
            process.start()
        try:
            work(0, args, Path(scratch), begin)
        finally:
            for process in others:
                process.join(30)
                process.kill()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--worlds", type=int, nargs="+", default=[2], help="numbers of GPUs")
    parser.add_argument("--basesize", type=int, choices=(256, 512, 768, 1024))
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of a whole edit; 40 for full, else 4")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--limit", type=float, default=450, help="seconds; no further round begins when they would pass"
    )
    parser.add_argument("--attention", default="auto")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.device = "tiny", "cpu"
    args.basesize = args.basesize or (1024 if args.size == "full" else 256)
    args.steps = args.steps or (40 if args.size == "full" else 4)
    return args


def layouts_of(worlds: list[int]) -> list[Layout]:
    """One rank first; then for each world branches, tokens, and both."""
    found = [Layout()]
    for world in worlds:
        found += [Layout(guidance=2)] if world == 2 else []
        found += [Layout(sequence=world)] if world > 1 else []
        found += [Layout(guidance=2, sequence=world // 2)] if world > 2 and world % 2 == 0 else []
    return found


def work(rank: int, args: argparse.Namespace, scratch: Path, begin: float) -> None:
    """What each process does: build, then one layout after the other, in which it leads, follows or waits."""
    if args.device == "cpu":
        torch.set_num_threads(1)
    elif args.device == "cuda":
        torch.cuda.set_device(rank)
    config = RunConfig(output=Path(), device=args.device, attention=args.attention, compile="off", offload="none")
    start = time.monotonic()
    backend = random_backend(args.size, config)
    backend.close = lambda: None  # type: ignore[method-assign]  # it serves in all layouts
    bench = Bench(args, backend, begin) if rank == 0 else None
    if bench is not None:
        info = backend.info
        bench.say(
            f"{info.device}, torch {torch.__version__}, {info.dtype}, attention {info.attention}, fused {info.fused},"
            f" built in {time.monotonic() - start:.1f} s"
        )
    layouts = layouts_of(args.worlds)
    number = 0
    for turn in range(args.rounds):
        slowest = 0.0
        for layout in layouts:
            number += 1
            folder = scratch / str(number)
            folder.mkdir(exist_ok=True)
            before = time.monotonic()
            if rank < layout.world:
                one_turn(Place(rank=rank, layout=layout, folder=folder), backend, bench, turn, args.basesize)
            slowest += time.monotonic() - before
        # Rank 0 decides for all, by a file, whether there is time for another round.
        verdict = scratch / f"again-{turn}"
        if bench is not None:
            written = verdict.with_suffix(".part")
            written.write_text("1" if time.monotonic() - begin + slowest < args.limit else "", encoding="utf-8")
            written.rename(verdict)
        while not verdict.exists():
            time.sleep(0.05)
        if not verdict.read_text(encoding="utf-8"):
            break
    if bench is not None:
        bench.table()


def one_turn(place: Place, backend: JoyImageBackend, bench: Bench | None, turn: int, basesize: int) -> None:
    """One layout once, and where there are several ranks, their exchanges alone in the first turn."""
    config = RunConfig(output=Path())
    backend.ranks = ALONE
    if place.layout.world == 1:
        assert bench is not None
        bench.measure(place.layout, backend)
        if turn == 0:
            bench.branch_by_branch()
        return
    if bench is None:
        follow(config, place, lambda _: backend)
    else:
        group = lead(config, place, lambda _: backend)
        bench.measure(place.layout, group)
        group.close()
    if turn == 0:
        exchanges(place, backend, bench, basesize)
    backend.ranks = ALONE


class Bench:
    """Rank 0's measurements. The first ones, with one rank, are what all others are compared with."""

    def __init__(self, args: argparse.Namespace, backend: JoyImageBackend, begin: float) -> None:
        self._args = args
        self._backend = backend
        self._begin = begin
        self._rows: dict[str, dict[str, Any]] = {}
        self._expected: dict[str, Any] = {}
        whole = batch_of(
            BenchConfig(size=args.size, basesize=args.basesize, steps=args.steps, references=args.references)
        )
        self._whole, self._few, self._one_step = (with_steps(whole, steps) for steps in (args.steps, FEW, 1))

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin:6.1f} s] {text}", flush=True)

    def measure(self, layout: Layout, backend: Any) -> None:
        row = self._rows.setdefault(str(layout), {"ranks": layout.world, "step": [], "edit": [], "stages": []})
        exchanges = [] if layout.world == 1 else backend.ranks.exchanges()
        one, few = backend.encode(self._one_step), backend.encode(self._few)
        first = backend.denoise(one, no_progress)  # warms up
        noise = self._encoded(one).conditioning.noise
        self._compare(row, "velocity of one step", first - noise)
        sent = sum(exchange.sent for exchange in exchanges)
        for _ in range(2):
            row["step"].append(self._seconds(partial(backend.denoise, few, no_progress)) / FEW)
        row["sent a step"] = (sum(exchange.sent for exchange in exchanges) - sent) / (2 * FEW)
        self._compare(row, f"latents after {FEW} steps", backend.denoise(few, no_progress))
        self.say(
            f"{layout}: step {row['step'][-2]:.4f}, {row['step'][-1]:.4f} s, {row['sent a step'] / 1e6:.2f} MB sent"
        )
        backend.free_memory()  # nothing is known of the pictures
        self._edit(row, backend)
        self.say(f"{layout}: edit {row['edit'][-1]:.3f} s {row['stages'][-1]}")
        if self._args.json:
            self._args.json.write_text(json.dumps(self._rows, indent=1) + "\n", encoding="utf-8")

    def _edit(self, row: dict[str, Any], backend: Any) -> None:
        """A whole edit; a stage ends when rank 0's device has done it."""
        self._synchronize()
        marks = [time.perf_counter()]
        encoded = backend.encode(self._whole)
        self._synchronize()
        marks.append(time.perf_counter())
        latents = backend.denoise(encoded, no_progress)
        self._synchronize()
        marks.append(time.perf_counter())
        (picture,) = backend.decode(latents)
        marks.append(time.perf_counter())
        stages = [round(after - before, 4) for before, after in itertools.pairwise(marks)]
        row["edit"].append(marks[-1] - marks[0])
        row["stages"].append(dict(zip(("encode", "denoise", "decode"), stages, strict=True)))
        self._compare(row, "latents of a whole edit", latents)
        self._compare_pictures(row, picture)

    def branch_by_branch(self) -> None:
        """Whether one device gives a branch the same velocity alone as beside the other branch."""
        given = self._backend.encode(self._one_step).conditioning
        together = velocities(self._backend, given, ALONE)
        count = len(together)
        for branch in range(count):
            alone = velocities(self._backend, given, Single(branch))
            self.say(f"one device, branch {branch} alone against beside the other: {apart(alone, together[branch])}")

    def _compare(self, row: dict[str, Any], name: str, found: Tensor) -> None:
        expected = self._expected.setdefault(name, found.float().cpu())
        row[name] = apart(found.cpu(), expected)

    def _compare_pictures(self, row: dict[str, Any], picture: Image.Image) -> None:
        levels = np.asarray(picture).astype(int)
        difference = np.abs(levels - self._expected.setdefault("picture", levels))
        row["picture"] = {"largest": int(difference.max()), "mean": float(difference.mean())}

    def _encoded(self, encoded: Any) -> Encoded:
        return encoded if isinstance(encoded, Encoded) else encoded.own

    def _seconds(self, call: Callable[[], object]) -> float:
        self._synchronize()
        start = time.perf_counter()
        call()
        self._synchronize()
        return time.perf_counter() - start

    def _synchronize(self) -> None:
        synchronize(self._backend.device)

    def exchanged(self, layout: Layout, seconds: dict[str, float]) -> None:
        self._rows[str(layout)]["exchange alone, a step"] = seconds
        self.say(f"{layout}: exchanges of a step alone {seconds}")

    def table(self) -> None:
        base = self._rows[str(Layout())]
        step, edit = (statistics.median(base[name]) for name in ("step", "edit"))
        print(f"\n{'layout':<26} {'ranks':>5} {'step s':>8} {'times':>6} {'edit s':>8} {'times':>6} {'MB a step':>10}"
              f" {'velocity apart':>15} {'picture apart':>14}")  # fmt: skip
        for name, row in self._rows.items():
            own_step, own_edit = statistics.median(row["step"]), statistics.median(row["edit"])
            velocity, picture = row["velocity of one step"], row["picture"]
            told = "identical" if velocity["identical"] else f"{velocity['relative']:.2e}"
            levels = f"{picture['mean']:.3f}, {picture['largest']}" if picture["largest"] else "identical"
            print(f"{name:<26} {row['ranks']:>5} {own_step:>8.4f} {step / own_step:>6.3f} {own_edit:>8.3f}"
                  f" {edit / own_edit:>6.3f} {row['sent a step'] / 1e6:>10.2f} {told:>15} {levels:>14}")  # fmt: skip
        print(json.dumps(self._rows), flush=True)


class Single(Alone):
    """One branch of a batch alone; the others are taken to be as it is."""

    def __init__(self, branch: int) -> None:
        self._branch = branch

    def own(self, branches: int) -> range:
        return range(self._branch, self._branch + 1)

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        return velocity.expand(branches, *velocity.shape[1:])


class Heard(Alone):
    """Keeps the velocities that pass through another one."""

    def __init__(self, inner: Alone) -> None:
        self._inner = inner
        self.found: Tensor | None = None

    def own(self, branches: int) -> range:
        return self._inner.own(branches)

    def all_branches(self, velocity: Tensor, branches: int) -> Tensor:
        self.found = velocity
        return self._inner.all_branches(velocity, branches)


def velocities(backend: JoyImageBackend, given: Any, ranks: Alone) -> Tensor:
    """The velocities of one step, of each branch that `ranks` computes."""
    heard = Heard(ranks)
    with torch.inference_mode():
        denoise(backend.dit, given, sigmas(1, "original"), ranks=heard)
    assert heard.found is not None
    return heard.found.float()


def apart(found: Tensor, expected: Tensor) -> dict[str, Any]:
    """How far a tensor is from another."""
    found, expected = found.float().reshape(-1), expected.float().reshape(-1)
    difference = found - expected
    return {
        "identical": bool(torch.equal(found, expected)),
        "largest": float(difference.abs().max()),
        "relative": float(difference.norm() / expected.norm()),
    }


def exchanges(place: Place, backend: JoyImageBackend, bench: Bench | None, basesize: int) -> None:
    """The exchanges of a step without anything between them, in all ranks of a layout."""
    folder = place.folder / "exchanges"
    folder.mkdir(exist_ok=True)
    ranks = GroupRanks(replace(place, folder=folder), backend.device)
    height, width = backend.memory.latent_size((basesize, basesize))
    cfg = backend.dit.cfg
    tokens = (height // cfg.patch[0]) * (width // cfg.patch[1])
    device, dtype = backend.device, backend.dit.dtype
    seconds: dict[str, float] = {}
    if ranks.guidance is not None:
        velocity = torch.zeros(len(ranks.own(2)), 16, height, width, device=device, dtype=dtype)
        seconds["guidance"] = per_call(partial(ranks.all_branches, velocity, 2), device)
    if ranks.sequence is not None:
        lengths = [tokens // 4 + 30, tokens // 4 + 20][: len(ranks.own(2))]
        shared = SharedSequences(ranks.sequence, [tokens, tokens], TextLengths.of(lengths))
        image = len(share(tokens, ranks.sequence.rank, ranks.sequence.size))
        rows = [2 * image + length for length in shared.text.lengths]
        qkv = torch.zeros(sum(rows), 3, cfg.num_heads, cfg.head_dim, device=device, dtype=dtype)
        spans = Spans(tuple(rows), tuple(rows))
        attend = shared.attention(nothing_attended)
        query, key, value = qkv.unbind(1)
        block = per_call(partial(attend, query, key, value, spans), device)
        seconds["sequence"] = block * cfg.num_layers
    ranks.close()
    if bench is not None:
        bench.exchanged(place.layout, seconds)


def nothing_attended(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> list[Tensor]:
    return [query.contiguous()]


def per_call(call: Callable[[], object], device: torch.device) -> float:
    for _ in range(3):
        call()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(EXCHANGES):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / EXCHANGES


def no_progress(done: int, total: int) -> None:
    """Hears of each step, and says nothing."""


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
