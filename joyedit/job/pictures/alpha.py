"""The alpha of a picture on its way around the edit: kept small in memory, and given back to the result."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from joyedit.job.fit import Box
from joyedit.job.sizes import Size

_ROWS = 256
"""So many rows of a result are worked on at a time."""


class StoredAlpha(NamedTuple):
    """An alpha channel of (height, width), compressed: most of them take a few kilobytes so."""

    size: Size
    data: bytes

    @classmethod
    def of(cls, alpha: Image.Image) -> StoredAlpha:
        """`alpha`: mode L."""
        return cls((alpha.height, alpha.width), zlib.compress(alpha.tobytes(), 1))

    def picture(self) -> Image.Image:
        """All of it, as a picture of mode L."""
        return Image.frombytes("L", (self.size[1], self.size[0]), zlib.decompress(self.data))

    def channel(self, box: Box, size: Size) -> Image.Image:
        """The part `box` of it, as a picture of mode L and of `size` (height, width)."""
        height, width = self.size
        alpha = self.picture()
        if size == self.size and box == (0.0, 0.0, width, height):
            return alpha
        return alpha.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)


def without_white(flat: Image.Image, alpha: Image.Image) -> Image.Image:
    """An RGB picture that was made from one on white, without the white that shone through where `alpha` (L) let it."""
    result = Image.new("RGB", flat.size)
    for top in range(0, flat.height, _ROWS):
        band = (0, top, flat.width, min(top + _ROWS, flat.height))
        covers = np.asarray(alpha.crop(band))[..., None]
        seen = np.asarray(flat.crop(band)).astype(np.float32)
        share = np.maximum(covers, 1).astype(np.float32) / 255
        colour = np.clip(np.rint(255 - (255 - seen) / share), 0, 255)
        result.paste(Image.fromarray(np.where(covers == 255, seen, colour).astype(np.uint8)), (0, top))
    return result
