"""Measure the small checkpoint: which edits happen on scenes and wordings that training never saw.

    python tools/eval_nano.py --count 40

Everything runs through the product's own path (load, encode, denoise, decode). Whether an edit happened is
told from the output's pixels. The planted faults patch the loaded networks here; the product has none of them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Origin, Sampling, SizedItem
from joyedit.models.dit import DiT
from joyedit.models.rope import TokenGrid, rope_table
from joyedit.runtime.joyimage.backend import JoyImageBackend
from joyedit.runtime.joyimage.encoded import Encoded
from joyedit.runtime.joyimage.loading import load_backend
from joyedit.runtime.joyimage.pixels import pixels_of
from joyedit.runtime.protocol import ReadyBatch
from joyedit.weights.defaults import checkpoint_defaults
from nano import scenes
from nano.edits import EditPair, sample_edit, split_rng
from nano.measure import Measured, measure
from nano.wording import EDITS

QUICK = ("recolour", "background", "remove")
QUICK_FAULTS = ("features after the norm", "velocity negated")
BATCH = 8


@dataclass(frozen=True)
class Outcome:
    """One edit and what was measured on its output."""

    pair: EditPair
    measured: Measured


def main() -> None:
    args = parse()
    started = time.monotonic()
    kinds = QUICK if args.quick else tuple(args.kinds)
    count = min(args.count, 6) if args.quick else args.count
    few = min(count, args.variant_count or math.ceil(count / 2))
    backend = open_model(args.model, "auto")
    steps, guidance = recommended(args.model)
    steps, guidance = args.steps or steps, guidance if args.guidance is None else args.guidance
    pairs = held_out_pairs(kinds, count, args.seed)
    print(f"{args.model}: {steps} steps, guidance {guidance:g}, schedule {backend.schedule}, {backend.info.device},"
          f" {backend.info.dtype}; {count} pairs a kind, {few} in variants")  # fmt: skip

    report: dict[str, Any] = {"steps": steps, "guidance": guidance, "count": count}
    report["reconstruction_psnr"] = statistics.median(reconstruction(backend, held_out_pairs(EDITS, 4, args.seed)))
    print(f"VAE reconstruction: {report['reconstruction_psnr']:.1f} dB in the median")
    outcomes = edit_all(backend, pairs, steps, guidance)
    report["main"] = show("as shipped", outcomes)
    few_pairs = held_out_pairs(kinds, few, args.seed)
    same = [outcomes[number * count + index] for number in range(len(kinds)) for index in range(few)]
    base = report["base"] = show("as shipped, on the pairs of the variants", same)
    variants: dict[str, Any] = {}
    variants["guidance 1"] = show("without guidance", edit_all(backend, few_pairs, steps, 1.0), base)
    if not args.quick:
        other = "original" if backend.schedule == "diffusers" else "diffusers"
        second = open_model(args.model, other)
        name = f"schedule {other}"
        variants[name] = show(name, edit_all(second, few_pairs, steps, guidance), base)
    report["variants"] = variants
    faults = {name: FAULTS[name] for name in (QUICK_FAULTS if args.quick else FAULTS)}
    report["faults"] = {}
    for name, plant in faults.items():
        with plant(backend):
            report["faults"][name] = show(f"fault: {name}", edit_all(backend, few_pairs, steps, guidance), base)
    report["seconds"] = round(time.monotonic() - started)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a checkpoint's folder, or nano")
    parser.add_argument("--count", type=int, default=40, help="pairs of each kind")
    parser.add_argument("--variant-count", type=int, help="pairs of each kind in variants and faults; else half")
    parser.add_argument("--kinds", nargs="+", choices=EDITS, default=EDITS, help="only these kinds of edit")
    parser.add_argument("--steps", type=int, help="instead of what the checkpoint recommends")
    parser.add_argument("--guidance", type=float, help="instead of what the checkpoint recommends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="three kinds, at most six pairs each, two faults")
    return parser.parse_args()


def open_model(model: str, schedule: str) -> JoyImageBackend:
    config = RunConfig(output=Path("."), model=model, schedule=schedule)  # type: ignore[arg-type]
    return load_backend(config)


def recommended(model: str) -> tuple[int, float]:
    """The checkpoint's own steps and guidance."""
    settings = checkpoint_defaults(model)
    return settings.steps or 20, 2.0 if settings.guidance_scale is None else settings.guidance_scale


def held_out_pairs(kinds: Sequence[str], count: int, seed: int) -> list[EditPair]:
    """`count` held-out pairs of each kind, the sizes in turn; the first ones stay the same for any count."""
    pairs = []
    for number, kind in enumerate(EDITS):
        if kind in kinds:
            rng = split_rng("heldout", seed, number)
            for index in range(count):
                pairs.append(sample_edit(rng, kind, "heldout", scenes.SIZES[index % len(scenes.SIZES)]))
    return pairs


def edit_all(backend: JoyImageBackend, pairs: Sequence[EditPair], steps: int, guidance: float) -> list[Outcome]:
    """Edit every pair's source, those of one size together. A pair's seed is its number within its kind."""
    seen: Counter[str] = Counter()
    seeds = []
    for pair in pairs:
        seeds.append(seen[pair.kind])
        seen[pair.kind] += 1
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, pair in enumerate(pairs):
        sizes.setdefault((pair.source.height, pair.source.width), []).append(index)
    outcomes: dict[int, Outcome] = {}
    for size, indices in sizes.items():
        for start in range(0, len(indices), BATCH):
            part = indices[start : start + BATCH]
            outputs = edit_batch(backend, [(seeds[i], pairs[i]) for i in part], size, steps, guidance)
            for index, output in zip(part, outputs, strict=True):
                outcomes[index] = Outcome(pairs[index], measure(pairs[index], output))
    return [outcomes[index] for index in range(len(pairs))]


def edit_batch(
    backend: JoyImageBackend,
    seeded: Sequence[tuple[int, EditPair]],
    size: tuple[int, int],
    steps: int,
    guidance: float,
) -> list[Image.Image]:
    """One batch of pairs of one size through the backend, as `run` sends it."""
    items = []
    for number, (seed, pair) in enumerate(seeded):
        item = EditItem(
            id=str(number),
            images=(Path(f"{number}.png"),),
            instruction=pair.instruction,
            sampling=Sampling(steps=steps, guidance_scale=guidance, seed=seed),
            basesize=256,
            size=None,
            output=f"{number}.png",
            origin=Origin(file="eval"),
        )
        items.append(SizedItem(item=item, target=size, references=(size,)))
    pictures = tuple((pair.source_image,) for _, pair in seeded)
    encoded = backend.encode(ReadyBatch.of(items, pictures))
    return backend.decode(backend.denoise(encoded, lambda done, total: None))


@torch.inference_mode()
def reconstruction(backend: JoyImageBackend, pairs: Sequence[EditPair]) -> list[float]:
    """PSNR in dB of each source after the VAE's encoder and decoder."""
    found = []
    for pair in pairs:
        pixels = pixels_of(pair.source_image, backend.device)
        error = (backend.vae.decode(backend.vae.encode(pixels)) - pixels).square().mean()
        found.append(float(-10 * (error / 4).log10()))
    return found


# --- figures


def share(outcomes: Sequence[Outcome]) -> float:
    """Percentage of edits that happened."""
    return 100 * sum(outcome.measured.happened for outcome in outcomes) / len(outcomes)


def show(title: str, outcomes: Sequence[Outcome], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Print one table, by kind and over all, and give its figures; `base` adds what was lost against it."""
    figures: dict[str, Any] = {}
    print(f"\n{title}\n  {'edit':<12}{'happened':>9}{'unchanged':>12}", flush=True)
    for kind in (*EDITS, "all"):
        part = [o for o in outcomes if kind in ("all", o.pair.kind)]
        if not part:
            continue
        psnr = statistics.median(o.measured.psnr_unchanged for o in part)
        figures[kind] = {"happened": round(share(part), 1), "psnr": round(psnr, 1), "pairs": len(part)}
        line = f"  {kind:<12}{figures[kind]['happened']:>8.1f}%{psnr:>9.1f} dB"
        if base is not None:
            line += f"{figures[kind]['happened'] - base[kind]['happened']:>+8.1f} points"
        print(line, flush=True)
    return figures


# --- planted faults: each patches the loaded networks and takes the patch away again


@contextmanager
def replaced(target: object, name: str, value: Any) -> Iterator[None]:
    """An attribute on the instance for a while."""
    setattr(target, name, value)
    try:
        yield
    finally:
        delattr(target, name)


def features_changed(backend: JoyImageBackend, change: Callable[[Tensor], Tensor]) -> Any:
    """Every text's features, (L, D) each, go through `change` on their way to the DiT."""
    plain = backend.encode

    def encode(batch: ReadyBatch) -> Encoded:
        encoded = plain(batch)
        given = encoded.conditioning
        with torch.inference_mode():
            positive = tuple(change(features) for features in given.positive)
            negative = tuple(None if features is None else change(features) for features in given.negative)
        return replace(encoded, conditioning=replace(given, positive=positive, negative=negative))

    return replaced(backend, "encode", encode)


def after_norm(backend: JoyImageBackend) -> Any:
    """Text features as newer transformers hand them out: after the final norm, which goes token by token."""
    norm = backend.conditioner._encoder.model.language_model.norm
    return features_changed(backend, lambda x: F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps))


def instruction_dropped(backend: JoyImageBackend) -> Any:
    """All up to the end of the instruction goes where the system text goes; kept is what closes the turn."""
    closing = len(backend.conditioner.builder.suffix("", True))
    return features_changed(backend, lambda features: features[-closing:])


def time_exchanged(backend: JoyImageBackend) -> Any:
    """Target and reference change places in the rotary time axis."""
    dit = backend.dit
    return replaced(dit, "position_table", lambda grids, device: _reversed_table(dit, grids, device))


def sides_swapped(backend: JoyImageBackend) -> Any:
    """Height and width change places in the rotary axes."""
    dit = backend.dit
    return replaced(dit, "position_table", lambda grids, device: _swapped_table(dit, grids, device))


def _swapped_table(dit: DiT, grids: Sequence[TokenGrid], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows take the width's positions and columns the height's."""
    turned = [(columns, rows) for rows, columns in grids]
    tables = rope_table(turned, dit.cfg.rope_dims, dit.cfg.theta, device)
    parts = []
    for table in tables:
        items = table.split([rows * columns for rows, columns in grids])
        back = [
            item.unflatten(0, (columns, rows)).transpose(0, 1).flatten(0, 1)
            for item, (rows, columns) in zip(items, grids, strict=True)
        ]
        parts.append(torch.cat(back))
    return parts[0], parts[1]


def _reversed_table(dit: DiT, grids: Sequence[TokenGrid], device: torch.device) -> tuple[Tensor, Tensor]:
    """The target takes the reference's time position, and the reference the target's."""
    first, second = (rows * columns for rows, columns in grids)
    tables = rope_table([grids[1], grids[0]], dit.cfg.rope_dims, dit.cfg.theta, device)
    cos, sin = (torch.cat([table[second:], table[:second]]) for table in tables)
    assert len(cos) == first + second
    return cos, sin


def velocity_negated(backend: JoyImageBackend) -> Any:
    """The predicted velocity with the other sign."""
    plain = backend.dit.predict
    return replaced(backend.dit, "predict", lambda *args, **kwargs: -plain(*args, **kwargs))


FAULTS: dict[str, Callable[[JoyImageBackend], Any]] = {
    "features after the norm": after_norm,
    "instruction dropped": instruction_dropped,
    "target and reference exchanged in time": time_exchanged,
    "height and width swapped": sides_swapped,
    "velocity negated": velocity_negated,
}
"""Each fault by its name: a function of the backend that gives a context in which it is in force."""


if __name__ == "__main__":
    main()
