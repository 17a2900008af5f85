"""What --keep-unedited and the drift are worth, on edits whose right answer is known.

    python benchmarks/unedited.py

nano edits held-out scenes of its own kind, which are five times as large as it computes. For each edit: the PSNR of
what the scene's own target leaves as it is (and 4 pixels of nano around it), plain and with --keep-unedited; and the
drift that was measured, which is none in truth. tools/ must be on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from joyedit import run
from joyedit.job.results.records import final_records
from nano import scenes
from nano.edits import sample_edit, split_rng

KINDS = ("recolour", "remove", "add", "shape", "resize")
TIMES = 5


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--edits", type=int, default=2, help="of each kind")
    flags.add_argument("--steps", type=int, default=12)
    given = flags.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = write(folder, given.edits)
        found: dict[bool, dict[str, float]] = {}
        for keep in (False, True):
            out = folder / f"keep-{keep}"
            run(folder / "m.jsonl", model="nano", output=out, steps=given.steps, keep_unedited=keep, page=False)
            records = {record["id"]: record for record in final_records(out / "results.jsonl")}
            found[keep] = {
                item: psnr(folder / f"{item}.png", out / f"{item}.png", where) for item, where in kept.items()
            }
    print("edit          plain  kept  drift")
    for item in kept:
        print(f"{item:12} {found[False][item]:6.1f} {found[True][item]:5.1f}  {records[item].get('drift')}")
    print(
        f"median       {statistics.median(found[False].values()):6.1f} {statistics.median(found[True].values()):5.1f}"
    )


def write(folder: Path, count: int) -> dict[str, Any]:
    """The scenes as pictures, and a manifest; gives what each edit should leave as it is, (H, W) of bool."""
    lines, kept = [], {}
    for kind in KINDS:
        for number in range(count):
            pair = sample_edit(split_rng("heldout", 5, 10 + number), kind, "heldout")
            before, after = (scenes.render(enlarged(scene)) for scene in (pair.source, pair.target))
            item = f"{kind}-{number}"
            before.save(folder / f"{item}.png")
            lines.append({"image": f"{item}.png", "id": item, "instruction": pair.instruction, "basesize": 256})
            changed = (np.asarray(before) != np.asarray(after)).any(axis=-1)
            small = Image.fromarray((changed * 255).astype(np.uint8)).reduce(TIMES)
            grown = small.point(lambda value: 255 if value else 0).filter(ImageFilter.MaxFilter(9))
            kept[item] = np.asarray(grown.resize(before.size, Image.Resampling.NEAREST)) == 0
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return kept


def enlarged(scene: scenes.Scene) -> scenes.Scene:
    things = tuple(replace(t, cy=t.cy * TIMES, cx=t.cx * TIMES, size=t.size * TIMES) for t in scene.objects)
    return replace(scene, height=scene.height * TIMES, width=scene.width * TIMES, objects=things)


def psnr(one: Path, other: Path, where: Any) -> float:
    """In dB, of the pixels `where` is set."""
    with Image.open(one) as first, Image.open(other) as second:
        away = (np.asarray(first.convert("RGB")).astype(float) - np.asarray(second.convert("RGB")))[where]
    return float(10 * np.log10(255**2 / max(float((away**2).mean()), 1e-9)))


if __name__ == "__main__":
    main()
