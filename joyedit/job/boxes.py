"""Boxes in a picture: four numbers, as left, top, right and bottom. The model moves an object into a red box.

The numbers are pixels of the upright picture, or fractions of its sides: if none of them is larger than 1.
"""

from __future__ import annotations

import json
import math

from joyedit.job.fit import Fit
from joyedit.job.sizes import Size
from joyedit.job.spec import Box

RULE = "four numbers [left, top, right, bottom], in pixels or in fractions from 0 to 1"
_MOST = 1_000_000
_NEARLY = 0.005


def read_box(value: object) -> Box | None:
    """The box of a list of numbers, or of the same as text (`0.1,0.2,0.5,0.6`); None for what is no box."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text if text.startswith("[") else f"[{text}]")
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return None
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        return None
    if not all(math.isfinite(number) and 0 <= number <= _MOST for number in value):
        return None
    left, top, right, bottom = map(float, value)
    return (left, top, right, bottom) if left < right and top < bottom else None


def box_text(box: Box) -> str:
    """The box as one text: `0.1,0.2,0.5,0.6`. `read_box` takes it back."""
    return ",".join(f"{number:.12g}" for number in box)


def box_numbers(box: Box) -> list[int | float]:
    """The box as JSON, with whole numbers where they are whole."""
    return [int(number) if number.is_integer() else number for number in box]


def fractions_of(box: Box, size: Size) -> Box:
    """The same box in fractions of a picture of (height, width) `size`."""
    if max(box) <= 1:
        return box
    height, width = size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def box_fault(box: Box, size: Size) -> str | None:
    """Why a picture of (height, width) `size` has no such box; None if it has."""
    if max(fractions_of(box, size)) <= 1:
        return None
    height, width = size
    return f"the box {box_text(box)} leads out of the picture, which is {width} x {height} pixels"


def is_cropped(box: Box, fit: Fit) -> bool:
    """Whether the crop of a picture cuts something off a box, which is in fractions of the picture."""
    height, width = fit.source
    left, top, right, bottom = fit.box
    near = _NEARLY * max(height, width)
    is_across = left <= box[0] * width + near and box[2] * width <= right + near
    return not (is_across and top <= box[1] * height + near and box[3] * height <= bottom + near)
