"""What an edit left alone gets the picture's own pixels back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from joyedit.job.fit import fit_to
from joyedit.job.pictures.fitted import fitted, taken_out
from joyedit.job.pictures.unedited import changed_mask, with_unedited


def photo(width: int = 1024, height: int = 768) -> Image.Image:
    """Fine detail that no small picture can hold."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 150 / width, y * 150 / height, (x + y) * 150 / (width + height)], axis=-1)
    return Image.fromarray((base + noise).astype(np.uint8))


def as_a_vae(image: Image.Image) -> Image.Image:
    """A little blur, a little noise, a little more red."""
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7))).astype(float)
    pixels += np.random.default_rng(1).normal(0, 2, pixels.shape) + np.array([2, 0, -1])
    return Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))


def test_only_the_edit_is_changed() -> None:
    original = photo()
    fit = fit_to((768, 1024), (224, 288), "auto", is_undone=True)
    before = fitted(original, fit)
    edited = as_a_vae(before)
    ImageDraw.Draw(edited).ellipse([60, 60, 140, 140], fill=(220, 40, 40))
    mask = changed_mask(edited, before)
    result = with_unedited(taken_out(edited, fit.shown, (768, 1024)), original, mask, fit, fit.shown)
    same = (np.asarray(result) == np.asarray(original)).all(axis=-1)
    scale = fit.scale
    y, x = np.mgrid[0:768, 0:1024]
    away = np.hypot(x * scale + fit.inner[0] - 100, y * scale + fit.inner[1] - 100)
    assert same[away > 70].all(), "bit by bit"
    assert not same[away < 38].any()
    assert np.abs(np.asarray(result)[away < 36].astype(int) - [220, 40, 40]).max() <= 3
    edge = np.asarray(mask)[100, :].astype(int)
    assert np.abs(np.diff(edge)).max() < 80, "a soft edge"


def test_an_edit_of_everything_stays() -> None:
    before = photo(288, 224)
    night = before.point(lambda value: value // 3)
    assert np.asarray(changed_mask(night, before)).mean() > 250


def test_an_edit_of_nothing_is_the_picture() -> None:
    before = photo(288, 224)
    assert not np.asarray(changed_mask(as_a_vae(before), before)).any()


@pytest.mark.parametrize("size", [(16, 16), (17, 130), (512, 128)])
def test_all_sizes(size: tuple[int, int]) -> None:
    before = photo(*size)
    assert changed_mask(before, before).size == size


def test_a_crop_shows_its_part_of_the_original() -> None:
    original = photo(800, 200)
    fit = fit_to((200, 800), (256, 256), "crop", is_undone=True)
    result = Image.new("RGB", (200, 200))
    got = with_unedited(result, original, Image.new("L", (256, 256)), fit, fit.shown)
    assert np.array_equal(np.asarray(got), np.asarray(original.crop((300, 0, 500, 200))))
