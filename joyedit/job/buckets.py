"""The aspect-ratio buckets that the model was trained on, and the choice of one. Pure functions.

A bucket is the (height, width) in pixels that a picture is fitted to. Each base size has 49 buckets. Each of
them has about base x base pixels, and its long side is at most four times its short side.
"""

from __future__ import annotations

from functools import lru_cache

from joyedit.job.sizes import Size

_STEP = 16
"""Sides of the 256-base table are multiples of this; other bases scale the table up."""

_WALK_BASE = 256
_MAX_RATIO = 4


@lru_cache(maxsize=16)
def bucket_table(basesize: int) -> tuple[Size, ...]:
    """The (height, width) pairs of `basesize` (256, 512, 768 or 1024), ascending by height, then width.

    Raises ValueError if `basesize` is no positive multiple of 256.
    """
    scale, rest = divmod(basesize, _WALK_BASE)
    if scale < 1 or rest:
        raise ValueError(f"a base size is a multiple of {_WALK_BASE}, not {basesize}")
    area = _WALK_BASE * _WALK_BASE
    height, width = area // _STEP, _STEP
    pairs: list[Size] = []
    while height > 0:
        if max(height, width) <= _MAX_RATIO * min(height, width):
            pairs.append((height * scale, width * scale))
        if height * (width + _STEP) <= area:
            width += _STEP
        else:
            height -= _STEP
    return tuple(sorted(pairs))


@lru_cache(maxsize=4096)
def choose_bucket(size: Size, basesize: int) -> Size:
    """The bucket whose height/width is nearest to that of `size` (height, width), by absolute difference.

    If several are equally near, it is the first in ascending order. Raises ValueError for a side below 1.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"a picture has sides of at least 1 pixel, not {height}x{width}")
    ratio = height / width
    return min(bucket_table(basesize), key=lambda pair: abs(pair[0] / pair[1] - ratio))
