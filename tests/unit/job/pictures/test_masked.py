"""What a mask says by its pixels, and what it lays over an edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.job.fit import fit_to
from joyedit.job.pictures import icc
from joyedit.job.pictures.decode import Picture, load_picture, picture_in_memory
from joyedit.job.pictures.fitted import fitted, part_of
from joyedit.job.pictures.masked import Masked, mask_of, notes_of, share_of, with_mask
from joyedit.job.pictures.unedited import with_unedited

RAMP = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (64, 1)))
GAMMA = icc.profile(icc.PRIMARIES[1][1], np.linspace(0.0, 1.0, icc.ENTRIES) ** 1.4, name="Steep")


def read(path: Path) -> Image.Image:
    return mask_of(load_picture(path, follows_profile=False))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_greys_are_taken_as_they_are(tmp_path: Path, mode: str) -> None:
    RAMP.convert(mode).save(tmp_path / "m.png", icc_profile=GAMMA if mode == "RGB" else None)
    assert read(tmp_path / "m.png").tobytes() == RAMP.tobytes()


def test_deep_and_bilevel_masks(tmp_path: Path) -> None:
    Image.fromarray(np.asarray(RAMP).astype(np.uint16) * 257).save(tmp_path / "m.png")
    assert read(tmp_path / "m.png").tobytes() == RAMP.tobytes()
    RAMP.point([0] * 128 + [255] * 128).convert("1").save(tmp_path / "b.png")
    assert read(tmp_path / "b.png").tobytes() == RAMP.point([0] * 128 + [255] * 128).tobytes()


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    white = Image.new("RGBA", (256, 64), "white")
    white.putalpha(RAMP)
    white.save(tmp_path / "painted.png")
    assert read(tmp_path / "painted.png").tobytes() == RAMP.tobytes()
    black = Image.new("RGBA", (256, 64), "black")
    black.putalpha(RAMP)
    black.save(tmp_path / "holes.png")
    holes = read(tmp_path / "holes.png")
    assert holes.getextrema() == (0, 0)
    assert notes_of(holes) == ("the mask is all black, so nothing may change",)


def test_a_turned_mask_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    RAMP.save(tmp_path / "m.png", exif=exif)
    assert read(tmp_path / "m.png").tobytes() == RAMP.transpose(Image.Transpose.ROTATE_270).tobytes()


def test_share_and_notes() -> None:
    assert share_of(RAMP) == 0.5
    assert notes_of(RAMP) == ()
    assert notes_of(Image.new("L", (8, 8), 255)) == ("the mask is all white, so everything may change",)
    assert share_of(Image.new("L", (8, 8), 255)) == 1.0
    labels = Image.new("L", (8, 8))
    labels.putpixel((3, 3), 1)
    assert notes_of(labels) == ("the mask is nearly all black: its lightest grey is 1 of 255",)


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def in_memory(image: Image.Image) -> Picture:
    return picture_in_memory(image)


def test_linear_between_the_picture_and_the_edit() -> None:
    picture, edit = noise((64, 256), 1), noise((64, 256), 2)
    fit = fit_to((64, 256), (128, 512), "auto", is_undone=True)
    got = with_mask(edit, Masked(in_memory(picture), RAMP), fit, fit.shown, is_bucket=False)
    one, other, share = (np.asarray(image).astype(float) for image in (picture, edit, RAMP))
    wanted = one + (other - one) * share[..., None] / 255
    assert np.abs(np.asarray(got) - wanted).max() <= 0.5 + 1e-9
    assert np.array_equal(np.asarray(got)[:, 0], one[:, 0])
    assert np.array_equal(np.asarray(got)[:, 255], other[:, 255])


def test_a_mask_of_another_size_is_scaled() -> None:
    picture, edit = noise((64, 256), 1), noise((64, 256), 2)
    fit = fit_to((64, 256), (128, 512), "auto", is_undone=True)
    half = Image.new("L", (512, 128))
    half.paste(255, (256, 0, 512, 128))
    got = np.asarray(with_mask(edit, Masked(in_memory(picture), half), fit, fit.shown, is_bucket=False))
    assert np.array_equal(got[:, :127], np.asarray(picture)[:, :127])
    assert np.array_equal(got[:, 129:], np.asarray(edit)[:, 129:])


def test_at_the_size_of_the_bucket_the_outside_is_what_the_model_saw() -> None:
    picture = noise((300, 400), 1)
    fit = fit_to((300, 400), (256, 256), "pad", is_undone=False)
    edit = noise((fit.shown[3] - fit.shown[1], fit.shown[2] - fit.shown[0]), 2)
    black = Image.new("L", (400, 300))
    got = with_mask(edit, Masked(in_memory(picture), black), fit, fit.shown, is_bucket=True)
    assert got.tobytes() == fitted(picture, fit).crop(fit.shown).tobytes()


def test_a_result_that_shows_more_than_the_picture() -> None:
    """1920x1080 of a square picture with --fit pad: the picture stands in the middle, its reflection around it."""
    picture = noise((100, 100), 3)
    fit = fit_to((100, 100), (128, 256), "pad", is_undone=False, frame=(100, 200))
    assert fit.inner != fit.shown
    got = part_of(picture, fit, fit.shown, (100, 200), Image.Resampling.LANCZOS)
    assert got.size == (200, 100)
    assert got.crop((50, 0, 150, 100)).tobytes() == picture.tobytes()
    assert np.array_equal(np.asarray(got)[:, 49], np.asarray(picture)[:, 1])
    kept = with_unedited(noise((100, 200), 4), picture, Image.new("L", (256, 128)), fit, fit.shown)
    assert kept.tobytes() == got.tobytes(), "--keep-unedited lays the picture at the same place"
