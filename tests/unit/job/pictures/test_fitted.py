"""Pixels in a bucket and out of it again."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from joyedit.job.fit import FitName, fit_to, parse_size, result_size
from joyedit.job.pictures.fitted import cropped_to, fitted, taken_out


def ramp(height: int, width: int) -> Image.Image:
    """Smooth in both directions: a shift or a zoom shows in the values."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), (x + y) * 255 / (height + width)]
    return Image.fromarray(np.stack(planes, axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("wish", ["auto", "pad", "stretch"])
@pytest.mark.parametrize("size", [(300, 400), (900, 4000), (1200, 300), (97, 131)])
def test_an_edit_that_changes_nothing_gives_the_picture_back(size: tuple[int, int], wish: FitName) -> None:
    picture = ramp(*size)
    fit = fit_to(size, (512, 512), wish, is_undone=True)
    result = taken_out(fitted(picture, fit), fit.shown, result_size(parse_size("input"), fit))
    assert (result.height, result.width) == size
    away = np.abs(np.asarray(result).astype(int) - np.asarray(picture))
    assert away.mean() < 0.6, "no shift, no zoom, no border"
    assert away.max() <= 12


def test_the_padding_is_a_reflection() -> None:
    fit = fit_to((100, 400), (256, 256), "pad", is_undone=True)
    pixels = np.asarray(fitted(ramp(100, 400), fit)).astype(int)
    assert fit.inner == (0, 96, 256, 160)
    assert np.array_equal(pixels[95], pixels[97])
    assert np.array_equal(pixels[160], pixels[158])
    assert np.abs(np.diff(pixels, axis=0)).max() <= 8, "no seam"


def test_a_line_of_one_pixel_is_padded_too() -> None:
    fit = fit_to((1, 10_000), (128, 512), "pad", is_undone=True)
    assert fitted(ramp(1, 10_000), fit).size == (512, 128)


@pytest.mark.parametrize("size", [(300, 400), (40, 4000), (3000, 20)])
def test_a_crop_is_that_of_the_reference(size: tuple[int, int]) -> None:
    picture = ramp(*size)
    for bucket in ((224, 288), (512, 128), (256, 256)):
        fit = fit_to(size, bucket, "crop", is_undone=False)
        assert fitted(picture, fit).tobytes() == cropped_to(picture, bucket).tobytes()


def test_nothing_is_done_where_nothing_is_asked() -> None:
    picture = ramp(64, 64)
    assert taken_out(picture, None, None) is picture
    assert taken_out(picture, (0, 0, 64, 64), (64, 64)) is picture
