"""Draw the pictures and the manifest of `make demo`, and set them beside what came out.

    python tools/draw_demo.py demo             draw demo/pictures and demo/manifest.yaml
    python tools/draw_demo.py demo --overview  demo/overview.png: before, instruction, after

The scenes and wordings are held out from nano's training, one of each kind of edit, not picked; how often it does as
told is in tools/nano/RESULTS.md.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont

from nano.edits import EditPair, sample_edit, split_rng
from nano.wording import EDITS

SEED = 1000


def pairs() -> dict[str, EditPair]:
    """The demo's edits by name."""
    return {kind: sample_edit(split_rng("heldout", SEED), kind, "heldout") for kind in EDITS}


def draw(folder: Path) -> None:
    """Write the source pictures and a manifest that edits them."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    items = []
    for name, pair in pairs().items():
        pair.source_image.save(folder / "pictures" / f"{name}.png")
        items.append({"id": name, "image": f"pictures/{name}.png", "instruction": pair.instruction})
    text = yaml.safe_dump({"defaults": {"seed": 42}, "items": items}, sort_keys=False, allow_unicode=True)
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")


def overview(folder: Path) -> None:
    """Before and after side by side, below the instruction: `overview.png`."""
    cell, text_height, gap = 320, 40, 16
    sheet = Image.new("RGB", (2 * cell + 3 * gap, len(EDITS) * (cell + text_height + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    for row, (name, pair) in enumerate(pairs().items()):
        top = gap + row * (cell + text_height + gap)
        pen.text((gap, top + 8), textwrap.shorten(pair.instruction, 74), fill="black", font=font)
        for column, source in enumerate(("pictures", "edited")):
            with Image.open(folder / source / f"{name}.png") as picture:
                picture.thumbnail((cell, cell))
                sheet.paste(picture.convert("RGB"), (gap + column * (cell + gap), top + text_height))
    sheet.save(folder / "overview.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--overview", action="store_true")
    args = parser.parse_args()
    if args.overview:
        overview(args.folder)
    else:
        draw(args.folder)


if __name__ == "__main__":
    main()
