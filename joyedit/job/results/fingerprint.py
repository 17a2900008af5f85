"""What an edit is made of, as one hash: equal fingerprints give equal pictures, and an item is done once.

The fingerprint of an item is the sha256 of a JSON text that holds

    version       OUTPUT_VERSION, raised with every change of joyedit that changes pictures
    model         the identity of the checkpoint
    schedule, dtype
    instruction   as it goes to the model
    sampling      steps, guidance_scale, seed, negative_prompt
    basesize, size
    quality       of JPEG and WebP; null for PNG
    inputs        the sha256 of each reference's file, in order

Where the picture is written is compared beside it. Not in it is what changes no more than rounding:
device, attention kernels, compilation, batch size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from joyedit.job.spec import EditItem

OUTPUT_VERSION = 1
"""Raise it with a change that makes other pictures of the same inputs: all items are then edited anew."""

_TEXT = json.JSONEncoder().encode


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprinter:
    """The part of the fingerprint that all items of a run share. `quality` is that of JPEG and WebP."""

    model: str
    schedule: str
    dtype: str
    quality: int

    def of(self, item: EditItem, inputs: Sequence[str]) -> str:
        """The fingerprint of `item`; `inputs` are the sha256 of its references."""
        sampling, text = item.sampling, _TEXT
        quality = "null" if item.output[-4:].lower() == ".png" else self.quality
        size = "null" if item.size is None else f"[{item.size[0]}, {item.size[1]}]"
        # JSON by hand, its keys in order: a resume makes as many of these as there are items.
        message = (
            f'{{"basesize": {item.basesize}, "dtype": {text(self.dtype)}, '
            f'"inputs": [{", ".join([text(sha256) for sha256 in inputs])}], '
            f'"instruction": {text(item.instruction)}, "model": {text(self.model)}, "quality": {quality}, '
            f'"sampling": [{sampling.steps}, {float(sampling.guidance_scale)!r}, {sampling.seed}, '
            f"{text(sampling.negative_prompt)}], "
            f'"schedule": {text(self.schedule)}, "size": {size}, "version": {OUTPUT_VERSION}}}'
        )
        return hashlib.sha256(message.encode()).hexdigest()
