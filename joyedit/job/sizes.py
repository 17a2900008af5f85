"""Words for sizes that the whole of `job/` shares."""

from __future__ import annotations

from typing import Literal

Size = tuple[int, int]
"""(height, width) in pixels."""

FitName = Literal["auto", "crop", "pad", "stretch"]
"""How a picture is fitted to a bucket of other proportions: as loses least, cut off at the edges, whole with
reflections around it, or whole with other proportions."""

MAX_SIDE = 16384
"""The longest side that a person may ask for, in pixels."""
