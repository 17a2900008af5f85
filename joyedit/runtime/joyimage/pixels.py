"""Pictures become tensors, and tensors become pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from joyedit.runtime.protocol import DeviceTimestamp


def pixels_of(picture: Image.Image, device: torch.device) -> Tensor:
    """An RGB picture as the VAE takes it: (1, 3, H, W), fp32 in [-1, 1]."""
    return scaled(levels_of(picture).to(device))


def levels_of(picture: Image.Image) -> Tensor:
    """An RGB picture's bytes: uint8 (H, W, 3) on the CPU."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, 3)


def scaled(levels: Tensor) -> Tensor:
    """Levels (H, W, 3) -> pixels (1, 3, H, W), fp32 in [-1, 1]."""
    return levels.permute(2, 0, 1)[None].float() / 127.5 - 1


def rounded(pixels: Tensor) -> Tensor:
    """The inverse: pixels (3, H, W) in [-1, 1] -> uint8 (H, W, 3)."""
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(1, 2, 0).contiguous()


def picture_of(pixels: Tensor) -> Image.Image:
    """Pixels (3, H, W) in [-1, 1] -> an RGB picture."""
    return Image.fromarray(rounded(pixels).cpu().numpy(), "RGB")


@dataclass(frozen=True, kw_only=True)
class PendingPictures:
    """Pictures on their way to the host. `levels`: uint8 (H, W, 3) each; `finite`: (B,) bool; both on the host.

    They are there when `copied` is reached.
    """

    levels: Sequence[Tensor]
    finite: Tensor
    copied: DeviceTimestamp

    def __len__(self) -> int:
        return len(self.levels)

    def is_finite(self, place: int) -> bool:
        """Whether the latents of this item hold neither a NaN nor an infinity."""
        self.copied.seconds()
        return bool(self.finite[place])

    def picture(self, place: int) -> Image.Image:
        """One picture, RGB."""
        self.copied.seconds()
        return Image.fromarray(self.levels[place].numpy(), "RGB")
