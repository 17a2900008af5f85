"""PSNR and SSIM against scikit-image, and pictures in strips against whole ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.job.compare import measure as module
from joyedit.job.compare.measure import difference_of, measure, pixels_of
from joyedit.job.compare.summary import Spread
from joyedit.job.pictures.decode import load_picture


def pair(seed: int, height: int, width: int, channels: int) -> tuple[module.Pixels, module.Pixels]:
    """A smooth picture with noise, and the same a little changed."""
    random = np.random.default_rng(seed)
    slope = np.linspace(0, 180, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    one = np.clip(slope + random.normal(0, 12, (height, width, channels)), 0, 255).astype(np.uint8)
    other = np.clip(one + random.normal(3, 9, one.shape), 0, 255).astype(np.uint8)
    return one, other


@pytest.mark.parametrize("size", [(7, 7), (7, 40), (33, 50), (200, 61), (120, 121)])
@pytest.mark.parametrize("channels", [3, 4])
def test_as_scikit_image(size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    one, other = pair(sum(size), *size, channels)
    wanted = metrics.structural_similarity(one, other, channel_axis=2, data_range=255)
    for strip in (1 << 20, 900, 1):
        monkeypatch.setattr(module, "_STRIP", strip)
        found = measure(one, other)
        assert found.psnr == pytest.approx(metrics.peak_signal_noise_ratio(one, other, data_range=255), abs=1e-9)
        assert found.ssim == pytest.approx(wanted, abs=1e-9)


def test_extremes() -> None:
    one = np.zeros((9, 9, 3), np.uint8)
    other = np.full((9, 9, 3), 255, np.uint8)
    assert measure(one, other).psnr == 0
    assert measure(one, one) == module.Measured(math.inf, 1.0)
    assert measure(one[:6], other[:6]).ssim is None
    assert measure(one[:6], one[:6]) == module.Measured(math.inf, None)
    assert measure(one, other).ssim == pytest.approx(0, abs=1e-4)


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STRIP", 5)
    one, other = np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 4), np.uint8)
    other[1, 2] = (4, 0, 200, 0)
    other[3, 4, 3] = 5
    made = np.asarray(difference_of(one, other))
    assert tuple(made[1, 2]) == (40, 0, 255)
    assert tuple(made[3, 4]) == (50, 50, 50)
    assert made.sum() == 40 + 255 + 150


def test_transparency_and_sixteen_bits_count(tmp_path: Path) -> None:
    rgb = Image.new("RGB", (20, 10), (9, 9, 9))
    rgb.save(tmp_path / "a.png")
    with_alpha = rgb.copy()
    with_alpha.putalpha(Image.linear_gradient("L").resize((20, 10)))
    with_alpha.save(tmp_path / "b.png")
    one, other = pixels_of(load_picture(tmp_path / "a.png"), load_picture(tmp_path / "b.png"))
    assert one.shape == other.shape == (10, 20, 4)
    assert (one[..., 3] == 255).all()
    assert measure(one, other).psnr < 20
    deep = np.full((10, 20), 40_000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.new("L", (20, 10), 156).save(tmp_path / "flat.png")
    one, other = pixels_of(load_picture(tmp_path / "deep.png"), load_picture(tmp_path / "flat.png"))
    assert measure(one, other).psnr > 40


def test_spreads() -> None:
    assert Spread.of([]) is None
    assert Spread.of([math.nan]) is None
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    values = [float(n) for n in range(101)]
    assert Spread.of(reversed(values)) == Spread(50.0, 5.0, 0.0)
    assert Spread.of(values, is_distance=True) == Spread(50.0, 95.0, 100.0)
    spread = Spread.of([math.inf, 20.0, math.inf])
    assert spread is not None
    assert spread.as_json() == {"median": None, "worst_twentieth": 20.0, "worst": 20.0}
