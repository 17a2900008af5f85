"""The counts of a run while it is going on."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from joyedit.job.spec import ItemResult
from joyedit.job.speed.settings import BlockSteps


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0 to 1) of `values` lie, linear between neighbours; None if empty."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


class Tally:
    """The counts of a run while it is going on. It has no lock: the caller must not let calls overlap."""

    def __init__(self) -> None:
        self.ok = 0
        self.skipped = 0  # done by an earlier run
        self.left = 0  # not as asked, and this run does not edit them
        self.missing = 0  # counted at the start, and did not come
        self.unwritten = 0  # shards that could not be written although their items have pictures
        self.failed: Counter[str] = Counter()
        self.work: BlockSteps | None = None  # of items whose steps left out something
        self.batches = 0
        self.last_batch: int | None = None  # its items
        self.warm_up_images = 0
        self.warm_up_seconds = 0.0
        self.warm_up_ended: float | None = None
        self.last_ended: float | None = None
        self.steady_seconds = array("d")  # one figure an image, in eight bytes: there may be a million

    def result(self, result: ItemResult) -> None:
        """Count one item that reached its final state."""
        if result.error is None:
            self.ok += 1
            if result.work is not None:
                self.work = BlockSteps.total((self.work or BlockSteps(0, 0, 0), result.work))
        else:
            self.failed[result.error["code"]] += 1

    @property
    def undone(self) -> int:
        """Items of the source, and shards, that are not as the user asked."""
        return self.failed.total() + self.left + self.missing + self.unwritten

    def batch(self, images: int, seconds: float, ended: float, *, warms_up: bool = False) -> None:
        """Count one pass through the networks: `seconds` on the device, `ended` on the run's clock.

        The first one warms up. With several devices the first one of each does, and all that came before it counts as
        warm-up too: steady is what all of them do together.
        """
        self.batches += 1
        self.last_batch = images
        self.last_ended = ended if self.last_ended is None else max(ended, self.last_ended)
        if warms_up or self.batches == 1:
            self.warm_up_images += images + len(self.steady_seconds)
            self.warm_up_seconds = max(seconds, self.warm_up_seconds)
            self.warm_up_ended = self.last_ended
            del self.steady_seconds[:]
        else:
            self.steady_seconds.extend([seconds / images] * images)

    @property
    def recorded(self) -> int:
        """Items that have a record, also from earlier runs."""
        return self.ok + self.skipped + self.failed.total()

    def warm_up(self) -> dict[str, Any] | None:
        """Images and seconds of the first batch; None before it is done."""
        if self.warm_up_ended is None:
            return None
        return {"images": self.warm_up_images, "seconds": self.warm_up_seconds}

    def steady(self) -> dict[str, Any] | None:
        """Speed without the warm-up: from the end of the first batch to the end of the last one, by the clock."""
        if self.warm_up_ended is None or self.last_ended is None or not self.steady_seconds:
            return None
        seconds = self.last_ended - self.warm_up_ended
        return {
            "images": len(self.steady_seconds),
            "seconds": seconds,
            "images_per_second": len(self.steady_seconds) / seconds if seconds > 0 else None,
            "seconds_an_image": {
                "median": percentile(self.steady_seconds, 0.5),
                "p95": percentile(self.steady_seconds, 0.95),
            },
        }
