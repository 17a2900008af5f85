"""What `--reuse`, `--guidance-reuse` and `--regions` mean, from their spellings."""

from __future__ import annotations

import math

from joyedit.errors import UsageError
from joyedit.job.speed.regions import AUTO_LEVEL, Regions
from joyedit.job.speed.settings import GuidanceReuse

OFF, AUTO = "off", "auto"
MOST_LEVEL = 2
"""The highest level of regions: latents of two pictures differ by little more."""
MOST_EVERY = 20
"""Guidance is computed at least every so many steps."""


def threshold_of(text: str) -> float:
    """The threshold that `--reuse` names, where that is a number. Raises UsageError."""
    value = _number(text)
    if value is None or not 0 <= value <= 1:
        raise UsageError(f"--reuse must be auto, off, or a relative change from 0 to 1 such as 0.1, not {text!r}")
    return value


def guidance_of(text: str) -> GuidanceReuse | None:
    """What `--guidance-reuse` names; None for `off`. Raises UsageError."""
    if text == OFF:
        return None
    low, colon, high = text.partition(":")
    if not colon and text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_EVERY:
        return GuidanceReuse(every=int(text))
    least, most = _number(low), _number(high)
    if colon and least is not None and most is not None and 0 <= least < most <= 1:
        return GuidanceReuse(low=least, high=most)
    raise UsageError(
        f"--guidance-reuse must be off, a number of steps from 1 to {MOST_EVERY}, or two noise levels from 0 to 1 such"
        f" as 0.3:0.95, not {text!r}"
    )


def regions_of(text: str) -> Regions | None:
    """What `--regions` names; None for `off`. Raises UsageError."""
    if text == OFF:
        return None
    level = AUTO_LEVEL if text == AUTO else _number(text)
    if level is None or not 0 <= level <= MOST_LEVEL:
        raise UsageError(
            f"--regions must be auto, off, or a difference from 0 to {MOST_LEVEL} such as {AUTO_LEVEL}, not {text!r}"
        )
    return Regions(level=level)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
