"""A batch on its way through the networks: first encoded, then running on the device.

The functions here give the device its work and return while it works. What the device has not finished is
waited for by whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.speed.settings import BlockSteps
from joyedit.runtime.pipeline.clock import DEVICE_STAGES
from joyedit.runtime.protocol import Backend, DeviceStage, DeviceTimestamp, Pending, ReadyBatch

Span = tuple[float, float]
"""Begin and end in seconds, on time.perf_counter's clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedBatch:
    """A batch behind the encoder. `conditioning` is the backend's own; `encoded` are the timestamps around it."""

    batch: ReadyBatch
    conditioning: Any
    encoded: tuple[DeviceTimestamp, DeviceTimestamp]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningBatch:
    """A batch that the device denoises and decodes, or has finished. Any thread may ask; all calls but one wait.

    `encoded` and `denoised` are the timestamps around those stages, `decoded` the one after the last.
    `operations` are floating-point operations by stage. `work` is what ran of each item's steps; empty where nothing
    was left out.
    """

    pending: Pending
    encoded: tuple[DeviceTimestamp, DeviceTimestamp]
    denoised: tuple[DeviceTimestamp, DeviceTimestamp]
    decoded: DeviceTimestamp
    operations: Mapping[DeviceStage, int]
    work: Sequence[BlockSteps] = ()

    def picture(self, place: int) -> Image.Image:
        """The picture of one item. Raises ItemError("not_finite") where its latents hold a NaN or an infinity."""
        if not self.pending.is_finite(place):
            raise ItemError("not_finite", "the result holds NaN or infinite numbers, so there is no picture")
        return self.pending.picture(place)

    def is_over(self) -> bool:
        """Whether the device has finished this batch. Does not wait."""
        return self.decoded.reached()

    def spans(self) -> dict[DeviceStage, Span]:
        """When the device was in each stage. The encoder may share the device with the batch before."""
        times = [timestamp.seconds() for timestamp in (*self.encoded, *self.denoised, self.decoded)]
        pairs = (times[0], times[1]), (times[2], times[3]), (times[3], times[4])
        return {stage: (begin, max(begin, end)) for stage, (begin, end) in zip(DEVICE_STAGES, pairs, strict=True)}

    def share(self) -> dict[str, float]:
        """Seconds of each stage that fall to one item."""
        return {stage: (end - begin) / len(self.pending) for stage, (begin, end) in self.spans().items()}


def encode_batch(backend: Backend, batch: ReadyBatch, begin: DeviceTimestamp | None = None) -> EncodedBatch:
    """Instructions and pictures become conditioning. Raises what `Backend.encode` raises.

    `begin` is the timestamp before what was done for several batches at once; it counts for the first of them.
    """
    begin = begin or backend.timestamp("encode")
    conditioning = backend.encode(batch)
    return EncodedBatch(batch=batch, conditioning=conditioning, encoded=(begin, backend.timestamp("encode")))


def start_batch(backend: Backend, given: EncodedBatch, on_step: Callable[[int, int], None]) -> RunningBatch:
    """Denoise and decode, one behind the other on the device. Raises what those two raise.

    `on_step(done, total)` is called after each denoising step that was given to the device.
    """
    begin = backend.timestamp("denoise")
    latents = backend.denoise(given.conditioning, on_step)
    denoised = begin, backend.timestamp("denoise")
    pending = backend.decode_later(latents)
    decoded = backend.timestamp("decode")
    if len(pending) != len(given.batch.items):
        raise RuntimeError(f"{len(pending)} pictures came out of a batch of {len(given.batch.items)}")
    return RunningBatch(
        pending=pending,
        encoded=given.encoded,
        denoised=denoised,
        decoded=decoded,
        operations=backend.operations(given.conditioning),
        work=backend.block_steps(given.conditioning),
    )
