"""Which masks fit a picture, in height x width."""

from __future__ import annotations

import pytest

from joyedit.job.masks import mask_fault


@pytest.mark.parametrize(
    ("mask", "picture"),
    [
        ((300, 400), (300, 400)),
        ((150, 200), (300, 400)),
        ((600, 800), (300, 400)),
        ((751, 1001), (3000, 4000)),
        ((3000, 4000), (751, 1001)),
        ((750, 1000), (3001, 4000)),
        ((101, 33), (1009, 331)),
        ((1, 1), (1, 1)),
    ],
)
def test_a_scaled_picture_fits(mask: tuple[int, int], picture: tuple[int, int]) -> None:
    assert mask_fault(mask, picture) is None


@pytest.mark.parametrize(
    ("mask", "picture"),
    [((400, 300), (300, 400)), ((300, 402), (300, 400)), ((256, 256), (300, 400)), ((1000, 1010), (1000, 1000))],
)
def test_another_shape_does_not(mask: tuple[int, int], picture: tuple[int, int]) -> None:
    fault = mask_fault(mask, picture)
    assert fault is not None
    assert f"the mask has {mask[1]} x {mask[0]} pixels and its picture {picture[1]} x {picture[0]}" in fault
