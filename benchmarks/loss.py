"""What a faster setting loses, on edits whose right answer is known.

    PYTHONPATH=.:tools python benchmarks/loss.py "--reuse low" "--reuse high" "--precision fp8" --json loss.json
    PYTHONPATH=.:tools python benchmarks/loss.py --from loss.json --curves docs/images/loss.svg
    PYTHONPATH=.:tools python benchmarks/loss.py --from loss.json --losses joyedit/runtime/speed_losses.json

A setting is a text of flags of `joyedit run` (`--` before them where one is a single word); `exact`, no flag, is
always measured beside them. nano edits held-out
scenes through the command itself, one run for each setting and number of steps, into folders below --work. The same
command goes on where it was stopped: a run's own records say what is done. What is measured on the finished pictures:

    happened      the share of edits that happened, judged by pixels (tools/nano/measure.py)
    unchanged     PSNR in dB of what the edit should leave alone, against the input, median
    PSNR, SSIM    against the picture of the exact run, medians; PSNR also of the worst twentieth; at most 60 dB
    LPIPS         the same, median; only where the package lpips and its weights are there
    seconds       of denoising an item, median of the records
    computed      the share of the DiT's work that was done, where the records say it
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from eval_nano import held_out_pairs
from loss_curves import draw, pairs_of
from PIL import Image
from skimage.metrics import structural_similarity

from joyedit.job.results.records import final_records
from nano.edits import EditPair
from nano.measure import PSNR_CAP, measure
from nano.wording import EDITS

EXACT = "exact"
SEED = 8
"""Of the held-out pairs. 0 and 1 were looked at between trainings, tests and other benchmarks have some others."""
ALEXNET = "alexnet-owt-7be5be79.pth"
"""What lpips wants of torchvision's weights; its own package holds only what stands on top of them."""


@dataclass(frozen=True)
class Edited:
    """One finished picture of one setting, and what was measured on it; the last five against the exact run."""

    kind: str
    happened: bool
    unchanged: float
    seconds: float
    computed: float | None
    psnr: float
    ssim: float
    lpips: float | None
    same: bool


def main() -> None:
    args = parse()
    if args.from_json:
        found = joined([json.loads(path.read_text(encoding="utf-8")) for path in args.from_json])
    else:
        found = measured(args)
    show(found)
    if args.json:
        write(args.json, json.dumps(found, indent=1) + "\n")
    if args.losses:
        write(args.losses, json.dumps(short(found), indent=1) + "\n")
    if args.curves:
        if len({device_of(found, row) for row in found["settings"]}) > 1:
            raise SystemExit("curves are drawn of one device: leave the files of the other one out")
        write(args.curves, draw(found, args.gain))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="FLAGS", help="flags of joyedit run, as one text each")
    parser.add_argument("--pairs", type=int, default=200, help="held-out pairs, an equal number of each kind of edit")
    parser.add_argument("--kinds", nargs="+", choices=EDITS, default=list(EDITS), help="only these kinds of edit")
    parser.add_argument("--steps", type=int, nargs="+", default=[40, 12])
    parser.add_argument("--seed", type=int, default=SEED, help="of the held-out pairs")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="cpu", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other; they divide the cores")
    parser.add_argument("--work", type=Path, default=Path("loss"), help="where pictures and runs are kept")
    parser.add_argument("--again", action="store_true", help="edit everything again, also what is done")
    parser.add_argument("--from", dest="from_json", type=Path, nargs="+", metavar="JSON", help="measure nothing: join")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--losses", type=Path, help="write the figures over all kinds as the package's table of losses")
    parser.add_argument("--curves", type=Path, help="draw gain against loss into this SVG file")
    parser.add_argument("--gain", choices=("time", "work"), default="time", help="what a curve's gain is")
    args = parser.parse_args()
    if args.pairs < len(args.kinds) or args.jobs < 1:
        parser.error("--pairs must be at least the number of kinds, and --jobs at least 1")
    return args


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# --- runs


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Edit with every setting, and judge what came out."""
    settings = [EXACT, *dict.fromkeys(flags for flags in args.settings if flags.strip() != EXACT)]
    work = args.work / f"seed-{args.seed}"
    pairs = named_pairs(args.kinds, args.pairs // len(args.kinds), args.seed)
    manifest = prepare(work, pairs)
    tasks = [(flags, steps) for steps in args.steps for flags in settings]
    with ThreadPoolExecutor(args.jobs) as pool:
        folders = dict(zip(tasks, pool.map(lambda task: edit(args, work, manifest, *task), tasks), strict=True))
    lpips, note = lpips_of()
    rows = []
    for flags, steps in tasks:
        edits = judged(pairs, folders[flags, steps], folders[EXACT, steps], lpips)
        by_kind = {kind: figures([e for e in edits if e.kind == kind]) for kind in args.kinds}
        rows.append({"setting": flags, "steps": steps, "all": figures(edits), "kinds": by_kind})
    about = {
        "model": args.model,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "pairs": len(pairs),
        "seed": args.seed,
        "device": args.device,
        "threads": threads(args.jobs),
        "beside": args.jobs,
        "lpips": note,
    }
    return about | {"settings": rows}


def named_pairs(kinds: Sequence[str], each: int, seed: int) -> dict[str, EditPair]:
    """Held-out pairs by the id of their item."""
    pairs = held_out_pairs(kinds, each, seed)
    return {f"{pair.kind}-{index % each:03}": pair for index, pair in enumerate(pairs)}


def prepare(work: Path, pairs: dict[str, EditPair]) -> Path:
    """The scenes as pictures, and a manifest of them. An item's seed is its number within its kind."""
    pictures = work / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for item, pair in pairs.items():
        picture = pictures / f"{item}.png"
        if not picture.exists():
            pair.source_image.save(picture)
        number = int(item.rpartition("-")[2])
        line = {"id": item, "image": f"pictures/{picture.name}", "instruction": pair.instruction, "seed": number}
        lines.append(json.dumps(line | {"basesize": 256}) + "\n")
    manifest = work / f"{len(pairs)}.jsonl"
    manifest.write_text("".join(lines), encoding="utf-8")
    return manifest


def edit(args: argparse.Namespace, work: Path, manifest: Path, flags: str, steps: int) -> Path:
    """One run of the command; gives its output folder. Raises SystemExit where it fails."""
    given = [] if flags == EXACT else shlex.split(flags)
    out = work / re.sub(r"[^A-Za-z0-9.]+", "-", flags).strip("-") / f"steps-{steps}"
    command = [
        sys.executable, "-m", "joyedit", "run", str(manifest), "--model", args.model, "--output", str(out),
        "--steps", str(steps), "--device", args.device, "--size", "bucket", "--fit", "crop", "--no-page", "--quiet",
    ]  # fmt: skip
    command += ["--overwrite"] if args.again else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads(args.jobs))}
    done = subprocess.run([*command, *given], env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"joyedit run {flags} ended with exit code {done.returncode}:\n{done.stderr}")
    print(f"{flags}, {steps} steps: done", file=sys.stderr, flush=True)
    return out


def threads(jobs: int) -> int:
    """Threads of each run: other numbers of them round otherwise, so all settings have the same."""
    return max(1, (os.cpu_count() or 1) // jobs)


def commit() -> str:
    """The commit that is measured, with + where files differ from it; empty outside a repository."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


# --- what is measured on the pictures


def judged(
    pairs: dict[str, EditPair], folder: Path, exact: Path, lpips: Callable[[Image.Image, Image.Image], float] | None
) -> list[Edited]:
    """What each picture of one run shows, in the order of the pairs."""
    records = {record["id"]: record for record in final_records(folder / "results.jsonl")}
    found = []
    for item, pair in pairs.items():
        record = records[item]
        with Image.open(folder / record["output"]) as picture, Image.open(exact / f"{item}.png") as whole:
            result, wanted = picture.convert("RGB"), whole.convert("RGB")
        seen = measure(pair, result)
        one, other = np.asarray(result), np.asarray(wanted)
        found.append(
            Edited(
                kind=pair.kind,
                happened=seen.happened,
                unchanged=seen.psnr_unchanged,
                seconds=record["seconds"]["denoise"],
                computed=computed_share(record),
                psnr=psnr(one, other),
                ssim=float(structural_similarity(one, other, channel_axis=2, data_range=255)),
                lpips=None if lpips is None else lpips(result, wanted),
                same=bool((one == other).all()),
            )
        )
    return found


def computed_share(record: dict[str, Any]) -> float | None:
    """The share of the DiT's work that an item took, from 0 to 1; None where its record does not say it."""
    told = record.get("computed")
    return None if told is None else float(told["share"] * told.get("share_of_tokens", 1.0))


def psnr(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """In dB, at most PSNR_CAP, which equal pictures have."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return PSNR_CAP if error <= 0 else min(PSNR_CAP, float(10 * np.log10(255**2 / error)))


def lpips_of() -> tuple[Callable[[Image.Image, Image.Image], float] | None, str]:
    """LPIPS of two pictures (AlexNet), and how it was measured; None and why not, where it is not there."""
    try:
        import lpips
        import torch
    except ImportError as error:
        return None, f"not measured: {error}"
    if not (Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET).exists():
        return None, f"not measured: {ALEXNET} is not in torch's folder of weights"
    network = lpips.LPIPS(net="alex", verbose=False).eval()

    def distance(one: Image.Image, other: Image.Image) -> float:
        first, second = (
            torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            for picture in (one, other)
        )
        with torch.inference_mode():
            return float(network(first, second))

    return distance, "AlexNet"


def figures(edits: Sequence[Edited]) -> dict[str, Any]:
    """Of one setting, over all its pictures or those of one kind."""
    shares = [e.computed for e in edits if e.computed is not None]
    lpips = [e.lpips for e in edits if e.lpips is not None]
    return {
        "pairs": len(edits),
        "happened": round(100 * sum(e.happened for e in edits) / len(edits), 1),
        "unchanged": rounded((e.unchanged for e in edits), 1),
        "psnr": rounded((e.psnr for e in edits), 1),
        "psnr_worst": round(float(np.percentile([e.psnr for e in edits], 5)), 1),
        "ssim": rounded((e.ssim for e in edits), 4),
        "lpips": rounded(lpips, 4) if lpips else None,
        "same": round(100 * sum(e.same for e in edits) / len(edits), 1),
        "seconds": rounded((e.seconds for e in edits), 4),
        "computed": round(statistics.fmean(shares), 4) if shares else None,
    }


def rounded(values: Iterable[float], digits: int) -> float:
    """The median."""
    return round(statistics.median(values), digits)


# --- what is told


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings of several files of figures; a later file's figures stand. What another device made has rows beside.

    Those of one number of steps must be of the same pairs.
    """
    for name in ("model", "seed"):
        if len({part[name] for part in parts}) > 1:
            raise SystemExit(f"these files differ in {name}, so their figures cannot stand in one table")
    told = [row | {"device": device_of(part, row)} for part in parts for row in part["settings"]]
    rows = {(row["setting"], row["steps"], row["device"]): row for row in told}
    counts: dict[int, set[int]] = {}
    for row in rows.values():
        counts.setdefault(row["steps"], set()).add(row["all"]["pairs"])
    if any(len(found) > 1 for found in counts.values()):
        raise SystemExit("these files differ in pairs, so their figures cannot stand in one table")
    return parts[-1] | {"settings": list(rows.values())}


def short(found: dict[str, Any]) -> dict[str, Any]:
    """The package's table of losses: how it was measured, and one row for each setting, over all kinds."""
    about = {name: found[name] for name in ("model", "date", "commit", "seed", "device", "lpips")}
    rows = [with_gains(found, row) for row in found["settings"]]
    for row in rows:
        del row["faster"]  # of the machine that measured, and not of the user's
    return about | {"settings": rows}


def with_gains(found: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A setting's figures over all kinds, with how many times faster it was than the exact run of so many steps."""
    device = device_of(found, row)
    exact = next(
        one
        for one in found["settings"]
        if (one["setting"], one["steps"], device_of(found, one)) == (EXACT, row["steps"], device)
    )
    faster = round(exact["all"]["seconds"] / row["all"]["seconds"], 2)
    told = {"setting": row["setting"], "steps": row["steps"], "device": device, **row["all"], "faster": faster}
    return {name: value for name, value in told.items() if name != "seconds"}


def device_of(found: dict[str, Any], row: dict[str, Any]) -> str:
    """The device of a setting's row: its own, where files of several are joined, else that of all."""
    return str(row.get("device", found["device"]))


def show(found: dict[str, Any]) -> None:
    print(f"{found['model']}, commit {found['commit']}, {found['date']}: {pairs_of(found)} held-out pairs"
          f" (seed {found['seed']}); LPIPS {found['lpips']}")  # fmt: skip
    heads = ("happened", "unchanged", "PSNR", "worst 5%", "SSIM", "LPIPS", "same", "computed", "seconds", "faster")
    print(f"{'setting':38}{'steps':>6}" + "".join(f"{head:>10}" for head in heads))
    several = len({device_of(found, row) for row in found["settings"]}) > 1
    for row in found["settings"]:
        name = f"{row['setting']} ({device_of(found, row)})" if several else row["setting"]
        line(f"{name:38}{row['steps']:>6}", with_gains(found, row) | {"seconds": row["all"]["seconds"]})
        for kind, part in row["kinds"].items():
            line(f"  {kind:36}{'':>6}", part)


def line(head: str, row: dict[str, Any]) -> None:
    formats = {
        "happened": "{:.1f}%", "unchanged": "{:.1f} dB", "psnr": "{:.1f} dB", "psnr_worst": "{:.1f} dB",
        "ssim": "{:.4f}", "lpips": "{:.4f}", "same": "{:.0f}%", "computed": "{:.1%}", "seconds": "{:.3f}",
        "faster": "{:.2f}",
    }  # fmt: skip
    cells = ("-" if row.get(name) is None else text.format(row[name]) for name, text in formats.items())
    print(head + "".join(f"{cell:>10}" for cell in cells))


if __name__ == "__main__":
    main()
