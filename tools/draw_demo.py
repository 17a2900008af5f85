"""Draw the pictures and the manifest of `make demo`, and set them beside what came out.

python tools/draw_demo.py demo             draw demo/pictures and demo/manifest.yaml
python tools/draw_demo.py demo --overview  demo/overview.png: before, instruction, after
"""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont

from nano.scenes import Background, Box, Scene, Thing, render


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture of the demo and what is asked of it."""

    name: str
    instruction: str
    scene: Scene


EXAMPLES = (
    Example(
        name="recolour",
        instruction="Make the house blue.",
        scene=Scene(
            height=256,
            width=256,
            background=Background(colour="green", pattern="gradient", variant=2),
            objects=(
                Thing(kind="house", colour="red", cy=150, cx=84, size=96),
                Thing(kind="tree", colour="yellow", cy=140, cx=190, size=84),
            ),
        ),
    ),
    Example(
        name="background",
        instruction="Change the background to purple.",
        scene=Scene(
            height=224,
            width=288,
            background=Background(colour="yellow", pattern="dots", variant=1),
            objects=(
                Thing(kind="car", colour="red", cy=140, cx=90, size=92),
                Thing(kind="star", colour="blue", cy=90, cx=215, size=70),
            ),
        ),
    ),
    Example(
        name="remove",
        instruction="Remove the cup.",
        scene=Scene(
            height=256,
            width=256,
            background=Background(colour="blue", pattern="plain", variant=3),
            objects=(
                Thing(kind="cup", colour="orange", cy=160, cx=80, size=88),
                Thing(kind="mushroom", colour="red", cy=110, cx=186, size=80),
            ),
        ),
    ),
    Example(
        name="move",
        instruction="Move the boat into the red box and finally remove the red box.",
        scene=Scene(
            height=208,
            width=304,
            background=Background(colour="blue", pattern="stripes", variant=0),
            objects=(Thing(kind="boat", colour="yellow", cy=110, cx=70, size=80),),
            box=Box(y0=60, x0=186, y1=152, x1=278),
        ),
    ),
    Example(
        name="add",
        instruction="Add a red heart at the top right.",
        scene=Scene(
            height=288,
            width=224,
            background=Background(colour="yellow", pattern="checks", variant=4),
            objects=(Thing(kind="flower", colour="pink", cy=190, cx=90, size=90),),
        ),
    ),
    Example(
        name="greyscale",
        instruction="Make it black and white.",
        scene=Scene(
            height=192,
            width=320,
            background=Background(colour="pink", pattern="noise", variant=2),
            objects=(
                Thing(kind="tree", colour="green", cy=100, cx=80, size=90),
                Thing(kind="circle", colour="orange", cy=92, cx=230, size=80),
            ),
        ),
    ),
)


def draw(folder: Path) -> None:
    """Write the source pictures and a manifest that edits them."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        render(example.scene).save(folder / "pictures" / f"{example.name}.png")
    manifest = {
        "defaults": {"seed": 42},
        "items": [{"id": e.name, "image": f"pictures/{e.name}.png", "instruction": e.instruction} for e in EXAMPLES],
    }
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")


def overview(folder: Path) -> Path:
    """Before and after in two columns, each with its instruction: `overview.png`."""
    cell, text_height, gap = 320, 40, 16
    rows = (len(EXAMPLES) + 1) // 2
    sheet = Image.new("RGB", (4 * cell + 5 * gap, rows * (cell + text_height + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=18)
    for number, example in enumerate(EXAMPLES):
        row, column = divmod(number, 2)
        top = gap + row * (cell + text_height + gap)
        left = gap + column * 2 * (cell + gap)
        pen.text((left, top + 8), textwrap.shorten(example.instruction, 74), fill="black", font=font)
        for place, name in enumerate(("pictures", "edited")):
            picture = Image.open(folder / name / f"{example.name}.png").convert("RGB")
            picture.thumbnail((cell, cell))
            sheet.paste(picture, (left + place * (cell + gap), top + text_height))
    path = folder / "overview.png"
    sheet.save(path)
    return path


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
