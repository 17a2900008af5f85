"""The size of a result, from what an item says of it and what holds for all."""

from __future__ import annotations

from typing import Any, NamedTuple

from joyedit.errors import Problem
from joyedit.job.fit import parse_size
from joyedit.job.sizes import Size
from joyedit.job.source.source_options import PAIR
from joyedit.job.spec import Settings

_TWO_SIZES = Problem("'size' says another size than 'width' and 'height'", "keep one of them", key="size")


class AskedSize(NamedTuple):
    """The size that decides on the bucket (None: that of the picture), and that of the result."""

    size: Size | None
    result: str


def asked_size(settings: Settings, problems: list[Problem], own: Any = Settings()) -> AskedSize:  # noqa: B008 - frozen
    """The size of an item. `own` is what it says itself, `settings` what is in force for one that says nothing.

    `width` and `height` are the size of the result, or with "bucket" what the bucket is chosen by. Those of the item
    itself come before a `size` for all.
    """
    width = settings.width if own.width is None else own.width
    height = settings.height if own.height is None else own.height
    if (width is None) != (height is None):
        problems.append(PAIR)
    wish = parse_size(own.size or settings.size or "bucket")
    has_sides = own.width is not None or own.height is not None
    if has_sides and own.size is not None and wish.kind not in ("input", "bucket"):
        problems.append(_TWO_SIZES)
    if wish.exact is not None and not has_sides:
        return AskedSize(wish.exact, str(wish))
    if width is None or height is None or (wish.kind == "long" and not has_sides):
        return AskedSize(None, str(wish))
    return AskedSize((height, width), "bucket" if wish.kind == "bucket" else f"{width}x{height}")
