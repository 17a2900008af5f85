"""What a stream of items gives where nothing more comes until something that is in work has ended.

Whoever holds items back, to join others to them, lets them go on then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pause:
    """`wait` waits at most so many seconds, and says whether it is worth to ask the stream again."""

    wait: Callable[[float], bool]
