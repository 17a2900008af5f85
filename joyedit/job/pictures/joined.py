"""Edited parts of a panorama -> one picture. Where two of them overlap, one fades evenly into the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from joyedit.job.parts import Parts


def joined(pictures: Sequence[Image.Image], parts: Parts) -> Image.Image:
    """The picture of the size `parts.frame` of its parts in order, each RGB and of the size `parts.bucket`."""
    height, width = parts.frame
    total = width if parts.is_wide else height
    places = np.arange(total) + 0.5
    weights = [
        np.clip(np.minimum(places - begin, begin + parts.length - places), 0, None).astype(np.float32)
        for begin in parts.begins
    ]
    # At the ends of the picture nothing fades.
    sums = np.sum(weights, axis=0)
    made = Image.new("RGB", (width, height))
    for number, (picture, begin) in enumerate(zip(pictures, parts.begins, strict=True)):
        end = begin + parts.length
        before = np.sum(weights[:number], axis=0)[begin:end] if number else np.zeros(parts.length, np.float32)
        share = weights[number][begin:end] / (weights[number][begin:end] + before)  # of what lies there so far
        mask = np.rint(share * 255).astype(np.uint8)
        row = Image.fromarray(np.broadcast_to(mask[None] if parts.is_wide else mask[:, None], parts.bucket).copy())
        made.paste(picture, (begin, 0) if parts.is_wide else (0, begin), mask=row)
    assert (sums > 0).all()
    return made
