"""A picture as the vision tower's patches, as Qwen's image processor makes them.

A picture that needs no resizing goes without the processor: its bytes are put in order before they become
numbers of four bytes, and on the device. At 1024 pixels the processor's passes on the host take longer
than the tower.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from joyedit.models.qwen import Grid


class PictureReader:
    """Reads RGB pictures by the settings of an image processor."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._merge, self._patch, self._frames = (
            int(getattr(processor, name)) for name in ("merge_size", "patch_size", "temporal_patch_size")
        )
        size = dict(getattr(processor, "size", None) or {})
        self._least = getattr(processor, "min_pixels", None) or size.get("shortest_edge")
        self._most = getattr(processor, "max_pixels", None) or size.get("longest_edge")
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        plain = not processor.do_normalize
        self._mean = torch.tensor([0.0] * 3 if plain else processor.image_mean) / factor
        self._std = torch.tensor([1.0] * 3 if plain else processor.image_std) / factor

    def __call__(self, picture: Image.Image, levels: Tensor) -> tuple[Tensor, Grid]:
        """Patches (4P, 3 * 2 * 16 * 16), fp32, and the grid of merged ones.

        `levels` are the picture's bytes, uint8 (H, W, 3); the patches are where they are.
        """
        if not self.fits(picture.width, picture.height):
            seen = self._processor(images=[picture], return_tensors="pt")
            _, rows, columns = (int(n) for n in seen["image_grid_thw"][0])
            return seen["pixel_values"], (rows // self._merge, columns // self._merge)
        side = (self._merge, self._patch)
        x = levels.unflatten(1, (-1, *side)).unflatten(0, (-1, *side))  # (r, m, p, c, m, p, 3)
        x = x.permute(0, 3, 1, 4, 6, 2, 5).contiguous()  # (r, c, m, m, 3, p, p)
        mean, std = (part.to(levels.device)[:, None, None] for part in (self._mean, self._std))
        still = ((x.float() - mean) / std).unsqueeze(5)  # the same frame, twice
        return still.expand(*x.shape[:5], self._frames, *x.shape[5:]).flatten(4).flatten(0, 3), (x.shape[0], x.shape[1])

    def fits(self, width: int, height: int) -> bool:
        """Whether the processor would leave a picture of this size as large as it is."""
        side = self._merge * self._patch
        if self._least is None or self._most is None or width % side or height % side:
            return False
        return bool(self._least <= width * height <= self._most)
