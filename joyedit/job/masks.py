"""Which masks fit a picture. Pure geometry, in (height, width)."""

from __future__ import annotations

from joyedit.job.sizes import Size


def mask_fault(mask: Size, picture: Size) -> str | None:
    """Why a mask of this size does not fit a picture of that one; None if it does.

    Both have the same proportions, up to the rounding of one side: one of them is the other one, scaled.
    """
    if _is_scaled(mask, picture) or _is_scaled(picture, mask):
        return None
    return (
        f"the mask has {mask[1]} x {mask[0]} pixels and its picture {picture[1]} x {picture[0]}, so their proportions "
        "differ (make the mask of the picture's size)"
    )


def _is_scaled(size: Size, other: Size) -> bool:
    """Whether `size` may be `other`, scaled by its longer side."""
    (height, width), (tall, wide) = size, other
    if tall >= wide:
        return abs(wide * height - width * tall) < tall
    return abs(tall * width - height * wide) < wide
