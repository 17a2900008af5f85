"""A batch that was given to the device: what comes of it, and how long each stage took there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from joyedit.errors import ItemError
from joyedit.runtime.pipeline.clock import DEVICE_STAGES
from joyedit.runtime.protocol import DeviceStage, DeviceTimestamp, Pending

Span = tuple[float, float]
"""Begin and end in seconds, on time.perf_counter's clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningBatch:
    """One pass through the networks. Any thread may ask; what is not there yet is waited for.

    `encoded` and `denoised` are the timestamps around those stages, `decoded` the one after the last.
    `operations` are floating-point operations by stage.
    """

    pending: Pending
    encoded: tuple[DeviceTimestamp, DeviceTimestamp]
    denoised: tuple[DeviceTimestamp, DeviceTimestamp]
    decoded: DeviceTimestamp
    operations: Mapping[DeviceStage, int]

    def picture(self, place: int) -> Image.Image:
        """The picture of one item. Raises ItemError where its latents are not finite."""
        if not self.pending.is_finite(place):
            raise ItemError("not_finite", "the latents hold a NaN or an infinity, so there is no picture")
        return self.pending.picture(place)

    def is_over(self) -> bool:
        """Whether the device is done with it."""
        return self.decoded.reached()

    def spans(self) -> dict[DeviceStage, Span]:
        """When the device was in each stage. The encoder may share it with the batch before."""
        times = [timestamp.seconds() for timestamp in (*self.encoded, *self.denoised, self.decoded)]
        pairs = (times[0], times[1]), (times[2], times[3]), (times[3], times[4])
        return {stage: (begin, max(begin, end)) for stage, (begin, end) in zip(DEVICE_STAGES, pairs, strict=True)}

    def share(self) -> dict[str, float]:
        """Seconds of each stage that fall to one item."""
        return {stage: (end - begin) / len(self.pending) for stage, (begin, end) in self.spans().items()}
