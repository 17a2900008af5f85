"""A planned batch for people and as JSON: what each item will make of which pictures, and what is cropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from joyedit.job.boxes import box_numbers, box_text
from joyedit.job.data_picture import Reference
from joyedit.job.fit import Fit
from joyedit.job.results.records import loras_of
from joyedit.job.sizes import Size
from joyedit.job.source.loras import loras_text
from joyedit.job.spec import Batch, FailedItem, SizedItem
from joyedit.printable import brief, printable

_TEXT = 100
_LEAST = 0.005
"""A smaller share is no crop but the rounding of a side."""


def lines_of(entry: Batch | FailedItem, folder: Path) -> list[str]:
    """A line for the batch and one for each of its items; sizes are width x height in pixels.

    `folder` is the one that the outputs are in.
    """
    if isinstance(entry, FailedItem):
        return [printable(f"failed: {entry.id}: {entry.code}: {entry.message}")]
    first, count = entry.items[0], len(entry.items)
    what = "1 item" if count == 1 else f"{count} items"
    steps = first.item.sampling.steps
    head = f"batch {entry.index}: {what}, {_size(first.target)}, {steps} {'step' if steps == 1 else 'steps'}"
    if first.item.loras:
        head += printable(f", LoRA {loras_text(first.item.loras)}")
    return [head, *(f"  {_item(sized, folder)}" for sized in entry.items)]


def record_of(entry: Batch | FailedItem, folder: Path) -> dict[str, Any]:
    """The same as JSON. Sizes are [height, width], as in results.jsonl."""
    if isinstance(entry, FailedItem):
        return {
            "failed": entry.id,
            "error": {"code": entry.code, "message": entry.message},
            "source": {"file": entry.origin.file, "line": entry.origin.line},
        }
    first = entry.items[0]
    return {
        "batch": entry.index,
        "bucket": list(first.target),
        "references": [list(size) for size in first.references],
        "steps": first.item.sampling.steps,
        **({"lora": loras_of(first.item)} if first.item.loras else {}),
        "items": [sized.item.id for sized in entry.items],
        "edits": [
            {
                "id": sized.item.id,
                "instruction": sized.item.instruction,
                "seed": sized.item.sampling.seed,
                **_part(sized),
                **({} if sized.item.mask is None else {"mask": str(sized.item.mask)}),
                **({} if sized.item.box is None else {"box": box_numbers(sized.item.box)}),
                "output_path": str((folder / sized.item.output).absolute()),
                "inputs": [
                    {"path": str(path), "size": list(fit.source), "cropped": cropped(fit), "padded": fit.padded}
                    for path, fit in zip(sized.item.images, sized.fits, strict=True)
                ],
                "size": None if sized.result is None else list(sized.result),
            }
            for sized in entry.items
        ],
    }


def _part(sized: SizedItem) -> dict[str, Any]:
    """Which part of how many this is."""
    if sized.part is None or sized.parts is None:
        return {}
    return {"part": [sized.part + 1, len(sized.parts.begins)]}


def cropped(fit: Fit) -> dict[str, float]:
    """The shares of a picture's height and width that are cut off; nothing is where it goes through in parts."""
    if fit.is_part:
        return {"height": 0.0, "width": 0.0}
    (height, width), (left, top, right, bottom) = fit.source, fit.box
    shares = 1 - (bottom - top) / height, 1 - (right - left) / width
    high, broad = (round(share, 4) if share >= _LEAST else 0.0 for share in shares)
    return {"height": high, "width": broad}


def _item(sized: SizedItem, folder: Path) -> str:
    item = sized.item
    pictures = [_picture(path, fit) for path, fit in zip(item.images, sized.fits, strict=True)]
    source = f"from {' + '.join(pictures)}" if pictures else "from the instruction alone"
    if sized.part is not None and sized.parts is not None:
        source += f", part {sized.part + 1} of {len(sized.parts.begins)}"
    source += "" if item.mask is None else f", mask {printable(str(item.mask))}"
    source += "" if item.box is None else f", red box {box_text(item.box)}"
    output = printable(str(folder / item.output))
    size = "" if sized.result is None or sized.result == sized.target else f"{_size(sized.result)}, "
    return f"{output}: {brief(repr(item.instruction), _TEXT)}, {size}seed {item.sampling.seed}, {source}"


def _picture(path: Reference, fit: Fit) -> str:
    told = [f"{share:.0%} of the {side}" for side, share in cropped(fit).items() if share]
    parts = [_size(fit.source)]
    parts += [f"cropped: {' and '.join(told)}"] if told else []
    parts += [f"padded by {fit.padded:.0%}"] if fit.padded >= _LEAST else []
    return f"{printable(str(path))} ({', '.join(parts)})"


def _size(size: Size) -> str:
    height, width = size
    return f"{width} x {height}"
