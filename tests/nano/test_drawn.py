"""Drawn scenes and photographs are told apart, and a run with nano tells once that it got a photograph."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from joyedit.job.buckets import choose_bucket
from joyedit.job.pictures.drawn import is_drawn
from joyedit.job.pictures.fitted import cropped_to
from joyedit.job.spec import EditItem, Origin, Sampling, SizedItem
from joyedit.runtime.pipeline.scene_check import SceneCheck
from joyedit.runtime.protocol import ReadyBatch
from nano.edits import sample_edit, split_rng
from nano.wording import EDITS


def fitted(image: Image.Image) -> Image.Image:
    image = image.convert("RGB")
    return cropped_to(image, choose_bucket((image.height, image.width), 256))


def scenes(count: int) -> list[Image.Image]:
    rng = split_rng("heldout", 9)
    pairs = [sample_edit(rng, kind, "heldout") for _ in range(count) for kind in EDITS]
    return [picture for pair in pairs for picture in (pair.source_image, pair.target_image)]


def photographic(seed: int, *, grey: bool = False) -> Image.Image:
    """Noise with the spectrum of photographs: its amplitude falls as one over the frequency."""
    rng = np.random.default_rng(seed)
    axis = np.fft.fftfreq(256)
    frequency = np.hypot(axis[:, None], axis[None, :])
    frequency[0, 0] = 1 / 256
    planes = [np.real(np.fft.ifft2(np.fft.fft2(rng.standard_normal((256, 256))) / frequency)) for _ in range(3)]
    levels = np.stack([(plane - plane.mean()) / plane.std() for plane in planes], axis=-1) * 40 + 128
    picture = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    return picture.convert("L").convert("RGB") if grey else picture


def test_drawn_scenes_are_drawn() -> None:
    assert [number for number, scene in enumerate(scenes(4)) if not is_drawn(scene)] == []


def test_drawn_scenes_that_were_scaled_and_compressed_are_drawn() -> None:
    for scene in scenes(1):
        file = io.BytesIO()
        scene.resize((800, 800)).save(file, "JPEG", quality=90)
        assert is_drawn(fitted(Image.open(file)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grey", [False, True])
def test_photographic_noise_is_not_drawn(seed: int, grey: bool) -> None:
    assert not is_drawn(photographic(seed, grey=grey))


def test_a_wide_gradient_is_not_drawn() -> None:
    y, x = np.mgrid[0:256, 0:256]
    levels = np.stack([y, x, 255 - (x + y) // 2], axis=-1)
    assert not is_drawn(Image.fromarray(levels.astype(np.uint8)))


@pytest.mark.skipif("JOYEDIT_TEST_DATA" not in os.environ, reason="JOYEDIT_TEST_DATA names no folder with pictures")
def test_photographs_are_not_drawn() -> None:
    paths = sorted((Path(os.environ["JOYEDIT_TEST_DATA"]) / "images").iterdir())
    assert paths
    for path in paths:
        with Image.open(path) as image:
            assert not is_drawn(fitted(image)), path.name
            assert not is_drawn(fitted(image).filter(ImageFilter.GaussianBlur(1))), path.name


def batch(*pictures: Image.Image) -> ReadyBatch:
    items = [
        SizedItem(
            item=EditItem(
                id=f"item {number}", images=(Path("p.png"),), instruction="x", sampling=Sampling(), basesize=256,
                size=None, output="o.png", origin=Origin(file="m"),
            ),
            target=(256, 256),
            references=((256, 256),),
        )
        for number in range(len(pictures))
    ]  # fmt: skip
    return ReadyBatch.of(items, [(picture,) for picture in pictures])


def test_one_note_a_run() -> None:
    notes: list[str] = []
    check = SceneCheck("nano", notes.append)
    drawn, photo = scenes(1)[0], photographic(0)
    check.look(batch(drawn, drawn))
    assert notes == []
    check.look(batch(drawn, photo))
    check.look(batch(photo))
    assert notes == [
        "item 1 looks like a photograph, and nano knows only simple drawn scenes:"
        " take --model jdopensource/JoyAI-Image-Edit-Diffusers for photographs"
    ]


def test_other_models_know_photographs() -> None:
    notes: list[str] = []
    SceneCheck("JoyAI-Image-Edit", notes.append).look(batch(photographic(0)))
    assert notes == []
