"""How a picture is fitted to the bucket that the model computes, and what size the result has. Pure geometry.

A *box* is (left, top, right, bottom) in pixels; a size is (height, width). Four steps lie between a picture and its
result, and only the first may lose something:

    the `box` of the picture is what is shown; the rest is cropped
    it is scaled to `inner`, a box in the bucket; the rest of the bucket is filled by reflection
    the model edits the bucket
    `shown`, a box in the bucket, is cut out and scaled to the size of the result
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from joyedit.job.buckets import bucket_table, choose_bucket
from joyedit.job.sizes import MAX_SIDE, FitName, Size

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""
PixelBox = tuple[int, int, int, int]

_LEAST_SHARE = 0.0005
SMALL_LOSS = 0.02
"""Up to this share of a picture, `auto` crops it or changes its proportions instead of padding it."""
LARGE_LOSS = 0.1
"""joyedit warns of a crop that loses more than this share of a picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The place of one picture in its bucket. `mode` is what was done: `auto` is decided.

    `is_part`: other parts of the picture are edited beside this one, so that nothing is lost.
    """

    mode: FitName
    source: Size
    bucket: Size
    box: Box
    inner: PixelBox
    shown: PixelBox
    is_part: bool = False

    @property
    def lost(self) -> float:
        """The share of the picture that is cut off, 0 to 1."""
        height, width = self.source
        return 0.0 if self.is_part else _rounded(1 - _area(self.box) / (height * width))

    @property
    def padded(self) -> float:
        """The share of the bucket that is filled by reflection, 0 to 1."""
        height, width = self.bucket
        return _rounded(1 - _area(self.inner) / (height * width))

    @property
    def scale(self) -> float:
        """The pixels of the bucket for one pixel of the picture, along the side that is scaled less."""
        across = (self.inner[2] - self.inner[0]) / (self.box[2] - self.box[0])
        down = (self.inner[3] - self.inner[1]) / (self.box[3] - self.box[1])
        return max(across, down)

    def as_record(self) -> dict[str, Any]:
        """What a record says of it. `source` is (height, width) in pixels."""
        return {
            "mode": self.mode,
            "source": list(self.source),
            "lost": self.lost,
            "padded": self.padded,
            "scale": round(self.scale, 4),
        }

    def notes(self) -> tuple[str, ...]:
        """What a person may want to know."""
        told = []
        if self.lost:
            told.append(f"cropped: {self.lost:.1%} of the picture is cut off")
        if self.padded:
            told.append(f"padded by reflection: {self.padded:.1%} of what the model saw")
        return tuple(told)


def _area(box: Box | PixelBox) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _rounded(share: float) -> float:
    """A share with four digits. A smaller one is no crop but the rounding of a side."""
    return 0.0 if share < _LEAST_SHARE else round(share, 4)


class ResultSize(NamedTuple):
    """The size that a result is to have: that of the "input", of the "bucket", a "long" side, or an "exact" one."""

    kind: str
    long: int = 0
    exact: Size | None = None

    def __str__(self) -> str:
        if self.exact is not None:
            return f"{self.exact[1]}x{self.exact[0]}"
        return f"long={self.long}" if self.kind == "long" else self.kind


SIZE_RULE = f"input, bucket, WIDTHxHEIGHT or long=PIXELS, with sides from 16 to {MAX_SIDE}"
_EXACT = re.compile("([0-9]{1,6})x([0-9]{1,6})", re.IGNORECASE)
_LONG = re.compile("long=([0-9]{1,6})")


def parse_size(text: str) -> ResultSize:
    """The size that `input`, `bucket`, `1920x1080` or `long=2048` stands for. Raises ValueError for another text."""
    if text in ("input", "bucket"):
        return ResultSize(text)
    exact, long = _EXACT.fullmatch(text), _LONG.fullmatch(text)
    sides = [int(side) for found in (exact, long) if found is not None for side in found.groups()]
    if not sides or not all(16 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"must be {SIZE_RULE}")
    return ResultSize("exact", exact=(sides[1], sides[0])) if exact is not None else ResultSize("long", long=sides[0])


@lru_cache(maxsize=4096)
def bucket_of_least_loss(size: Size, basesize: int) -> Size:
    """The bucket that a crop of a picture of this (height, width) would lose least in. Errors as in `choose_bucket`."""
    ratio = size[0] / size[1]
    nearest = choose_bucket(size, basesize)  # the model's own choice, where several are equally good
    best = min(bucket_table(basesize), key=lambda pair: abs(math.log(pair[0] / pair[1] / ratio)))
    return best if _crop_loss(size, best) < _crop_loss(size, nearest) - 1e-9 else nearest


def fit_to(source: Size, bucket: Size, wish: FitName, *, is_undone: bool, frame: Size | None = None) -> Fit:
    """How a picture of the size `source` is put into `bucket`.

    `is_undone`: the result gets the picture's proportions back, so that a small change of them loses nothing. `frame`
    is the size of the result where that does not follow from the picture: what has other proportions is cropped to
    them, unless `wish` says otherwise.
    """
    if frame is not None:
        return _in_frame(source, bucket, wish, frame)
    if wish == "auto":
        wish = "pad" if _crop_loss(source, bucket) > SMALL_LOSS else "stretch" if is_undone else "crop"
    whole: Box = (0.0, 0.0, float(source[1]), float(source[0]))
    full = _full(bucket)
    if wish == "stretch":
        return Fit(mode="stretch", source=source, bucket=bucket, box=whole, inner=full, shown=full)
    if wish == "pad":
        inner = _contained(source, bucket)
        return Fit(mode="pad", source=source, bucket=bucket, box=whole, inner=inner, shown=inner)
    return Fit(mode="crop", source=source, bucket=bucket, box=crop_box(source, bucket), inner=full, shown=full)


def _in_frame(source: Size, bucket: Size, wish: FitName, frame: Size) -> Fit:
    """A result of the proportions of `frame` lies in the bucket as a picture of its size does; the picture in it."""
    shown = _full(bucket) if _crop_loss(frame, bucket) <= SMALL_LOSS else _contained(frame, bucket)
    whole: Box = (0.0, 0.0, float(source[1]), float(source[0]))
    if wish == "stretch" or (wish == "auto" and _crop_loss(source, frame) <= SMALL_LOSS):
        return Fit(mode="stretch", source=source, bucket=bucket, box=whole, inner=shown, shown=shown)
    if wish == "pad":
        inner = _contained(source, (shown[3] - shown[1], shown[2] - shown[0]))
        placed = (inner[0] + shown[0], inner[1] + shown[1], inner[2] + shown[0], inner[3] + shown[1])
        return Fit(mode="pad", source=source, bucket=bucket, box=whole, inner=placed, shown=shown)
    height, width = source
    scale = max(frame[0] / height, frame[1] / width)
    tall, wide = frame[0] / scale, frame[1] / scale
    left, top = (width - wide) / 2, (height - tall) / 2
    box = (left, top, left + wide, top + tall)
    return Fit(mode="crop", source=source, bucket=bucket, box=box, inner=shown, shown=shown)


def result_size(wish: ResultSize, fit: Fit) -> Size:
    """The (height, width) of the result of a picture that was fitted so."""
    left, top, right, bottom = fit.shown
    if wish.exact is not None:
        return wish.exact
    if wish.kind == "bucket":
        return bottom - top, right - left
    height, width = max(1, round(fit.box[3] - fit.box[1])), max(1, round(fit.box[2] - fit.box[0]))
    if wish.kind == "long":
        scale = wish.long / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    return height, width


def crop_box(source: Size, bucket: Size) -> Box:
    """The part of a picture that is left when it is scaled to cover `bucket` and cropped at the centre.

    The sides of the scaled picture are rounded up, and the floor of half the excess goes at the top and on the left.
    """
    (height, width), (tall, wide) = source, bucket
    scale = max(tall / height, wide / width)
    scaled_tall, scaled_wide = math.ceil(height * scale), math.ceil(width * scale)
    left, top = (scaled_wide - wide) // 2, (scaled_tall - tall) // 2
    across, down = width / scaled_wide, height / scaled_tall
    return left * across, top * down, (left + wide) * across, (top + tall) * down


def _crop_loss(size: Size, bucket: Size) -> float:
    """The share of a picture that is lost if it is cropped to the proportions of `bucket`, without any rounding."""
    ratio = (size[0] * bucket[1]) / (size[1] * bucket[0])
    return 1 - min(ratio, 1 / ratio)


def _full(bucket: Size) -> PixelBox:
    return 0, 0, bucket[1], bucket[0]


def _contained(size: Size, bucket: Size) -> PixelBox:
    """The place of a picture that is scaled to lie whole in `bucket`, at its centre."""
    scale = min(bucket[0] / size[0], bucket[1] / size[1])
    height, width = (max(1, min(side, round(own * scale))) for own, side in zip(size, bucket, strict=True))
    left, top = (bucket[1] - width) // 2, (bucket[0] - height) // 2
    return left, top, left + width, top + height
