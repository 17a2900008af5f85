"""A panorama as overlapping parts: where they lie, and how edited parts become one picture again.

The model knows no shape beyond 4:1. So a longer picture is cut along its long side into parts of about 2:1 that
overlap by a quarter or more. Each part is an edit of its own. The edited parts lie side by side in one *frame*, a
picture of the proportions of the whole; where they overlap, one fades into the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from joyedit.job.buckets import choose_bucket
from joyedit.job.fit import Fit, PixelBox
from joyedit.job.sizes import Size

LONGEST = 4.0
"""The proportions of the longest picture that goes through as a whole."""
MOST_PARTS = 64
_SHAPE = 2
_LEAST_OVERLAP = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of one picture. `frame` and `bucket` are (height, width) of the joined picture and of each part.

    `begins` are the places of the parts along the long side of the frame, in pixels.
    """

    source: Size
    frame: Size
    bucket: Size
    begins: tuple[int, ...]

    @property
    def is_wide(self) -> bool:
        """Whether the parts lie side by side; else one below the other."""
        return self.frame[1] >= self.frame[0]

    @property
    def length(self) -> int:
        """Pixels of a part along the long side."""
        return self.bucket[1] if self.is_wide else self.bucket[0]

    @property
    def overlap(self) -> float:
        """The least share of a part that the next one shows too."""
        steps = [after - before for before, after in zip(self.begins, self.begins[1:], strict=False)]
        return round(1 - max(steps) / self.length, 4)

    def whole(self) -> Fit:
        """How the whole picture lies in the frame."""
        height, width = self.source
        full: PixelBox = (0, 0, self.frame[1], self.frame[0])
        box = (0.0, 0.0, float(width), float(height))
        return Fit(mode="stretch", source=self.source, bucket=self.frame, box=box, inner=full, shown=full)

    def fit(self, index: int) -> Fit:
        """How the part of this number, from 0, lies in its bucket."""
        height, width = self.source
        begin, end = self.begins[index], self.begins[index] + self.length
        if self.is_wide:
            box = (begin * width / self.frame[1], 0.0, min(end * width / self.frame[1], width), float(height))
        else:
            box = (0.0, begin * height / self.frame[0], float(width), min(end * height / self.frame[0], height))
        full: PixelBox = (0, 0, self.bucket[1], self.bucket[0])
        return Fit(
            mode="stretch", source=self.source, bucket=self.bucket, box=box, inner=full, shown=full, is_part=True
        )


def parts_of(source: Size, basesize: int) -> Parts | None:
    """The parts of a picture of this (height, width); None for one that goes through as a whole.

    That is also one that would have more than `MOST_PARTS`.
    """
    height, width = source
    is_wide = width >= height
    long, short = max(source), min(source)
    if long <= LONGEST * short:
        return None
    bucket = choose_bucket((1, _SHAPE) if is_wide else (_SHAPE, 1), basesize)
    length, across = (bucket[1], bucket[0]) if is_wide else bucket
    total = round(long / short * across)
    overlap = _LEAST_OVERLAP * length
    count = math.ceil((total - overlap) / (length - overlap))
    if count > MOST_PARTS:
        return None
    begins = tuple(round(number * (total - length) / (count - 1)) for number in range(count))
    frame = (across, total) if is_wide else (total, across)
    return Parts(source=source, frame=frame, bucket=bucket, begins=begins)
