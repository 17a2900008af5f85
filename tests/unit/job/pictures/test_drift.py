"""Shifts and zooms that were planted are found and undone, whatever was edited beside."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from joyedit.job.pictures.drift import Drift, measure_drift, without_drift

WIDTH, HEIGHT = 480, 360


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Many soft things of all sizes, as in a photograph."""
    chance = np.random.default_rng(3)
    image = Image.new("RGB", (WIDTH + 80, HEIGHT + 80), (90, 110, 120))
    draw = ImageDraw.Draw(image)
    for _ in range(250):
        x, y = int(chance.integers(0, WIDTH + 80)), int(chance.integers(0, HEIGHT + 80))
        reach = int(chance.integers(3, 40))
        colour = tuple(int(value) for value in chance.integers(0, 255, 3))
        draw.ellipse([x - reach, y - reach // 2, x + reach, y + reach], fill=colour)
    return image.filter(ImageFilter.GaussianBlur(1.2))


def planted(picture: Image.Image, drift: Drift) -> Image.Image:
    """What a model would make of it that moves things so; the picture is larger, so that nothing is missing."""
    width, height = picture.size
    back = 1 / drift.zoom
    left = (width - WIDTH) / 2 + (1 - back) * WIDTH / 2 - drift.dx * back
    top = (height - HEIGHT) / 2 + (1 - back) * HEIGHT / 2 - drift.dy * back
    return picture.transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, (back, 0, left, 0, back, top), Image.Resampling.BICUBIC
    )


def edited(image: Image.Image, how: str) -> Image.Image:
    if how == "a thing is added":
        image = image.copy()
        ImageDraw.Draw(image).rectangle([150, 100, 330, 260], fill=(200, 30, 60))
    if how == "it is night":
        image = image.point(lambda value: int(value * 0.4)).filter(ImageFilter.GaussianBlur(1))
    return image


@pytest.mark.parametrize("how", ["nothing", "a thing is added", "it is night"])
@pytest.mark.parametrize("drift", [(5.0, 5.0, 1.015), (-5.0, 3.0, 1.0), (0.0, 0.0, 0.985), (12.0, -8.0, 1.03)])
def test_a_drift_is_found_and_undone(picture: Image.Image, drift: tuple[float, float, float], how: str) -> None:
    before, wanted = planted(picture, Drift(0, 0, 1)), Drift(*drift)
    moved = edited(planted(picture, wanted), how)
    found = measure_drift(moved, before)
    assert found is not None
    away = Drift(found.dx - wanted.dx, found.dy - wanted.dy, 1 + found.zoom - wanted.zoom)
    assert away.reach(WIDTH, HEIGHT) < 0.5
    left = measure_drift(without_drift(moved, found), before)
    assert left is not None
    assert left.reach(WIDTH, HEIGHT) < 0.5


@pytest.mark.parametrize("how", ["nothing", "a thing is added", "it is night"])
def test_no_drift_is_none(picture: Image.Image, how: str) -> None:
    still = planted(picture, Drift(0, 0, 1))
    found = measure_drift(edited(still, how), still)
    assert found is not None
    assert found.reach(WIDTH, HEIGHT) < 0.1


def test_pictures_with_nothing_in_common(picture: Image.Image) -> None:
    one = planted(picture, Drift(0, 0, 1))
    other = one.transpose(Image.Transpose.ROTATE_180)
    assert measure_drift(other, one) is None
    flat = Image.new("RGB", one.size, "grey")
    assert measure_drift(flat, one) is None
    assert measure_drift(flat, flat) is None


def test_small_and_narrow_pictures_do_no_harm(picture: Image.Image) -> None:
    for size in ((16, 16), (64, 16), (512, 128), (17, 400)):
        small = picture.resize(size)
        found = measure_drift(small, small)
        assert found is None or found.reach(*size) < 0.5


def test_a_record_has_pixels_of_the_picture() -> None:
    assert Drift(2.0, -1.0, 1.01).as_record(0.25) == {"dx": 8.0, "dy": -4.0, "zoom": 1.01}


def test_what_comes_in_from_outside_repeats_the_edge(picture: Image.Image) -> None:
    still = planted(picture, Drift(0, 0, 1))
    moved = without_drift(still, Drift(20.0, 0.0, 1.0))
    assert moved.size == still.size
    assert np.array_equal(np.asarray(moved)[:, -1], np.asarray(moved)[:, -10])
