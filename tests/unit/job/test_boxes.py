"""Boxes: what is one, what leads out of the picture, and what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.job.boxes import box_fault, box_numbers, box_text, fractions_of, is_cropped, read_box
from joyedit.job.fit import fit_to
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.red_box import with_red_box
from joyedit.job.plan import size_item
from joyedit.job.results.fingerprint import Fingerprinter
from joyedit.job.results.records import settings_of
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.read import CUT_BOX, read_picture

RED = (255, 0, 0)


@pytest.mark.parametrize(
    "value",
    [
        None, 3, "x", "1,2,3", [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, True], [3, 2, 1, 4], [1, 4, 3, 2], [1, 2, 1, 4],
        [-1, 0, 3, 4], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1], "[" * 10_000, "1,2,3,4,5", [0, 0, 2e6, 1],
    ],
)  # fmt: skip
def test_what_is_no_box(value: object) -> None:
    assert read_box(value) is None


def test_boxes_and_their_texts() -> None:
    assert read_box("[1, 2, 3, 4]") == read_box("1, 2, 3,4") == read_box((1, 2.0, 3, 4)) == (1, 2, 3, 4)
    assert read_box(box_text((0.1, 0.25, 0.5, 1))) == (0.1, 0.25, 0.5, 1)
    assert box_numbers((1.0, 2.5, 3.0, 4.0)) == [1, 2.5, 3, 4]


def test_pixels_and_fractions() -> None:
    assert fractions_of((0, 0, 1, 1), (100, 200)) == (0, 0, 1, 1)
    assert fractions_of((50, 25, 200, 100), (100, 200)) == (0.25, 0.25, 1, 1)
    assert box_fault((50, 25, 200, 100), (100, 200)) is None
    assert box_fault((50, 25, 201, 100), (100, 200)) == (
        "the box 50,25,201,100 leads out of the picture, which is 200 x 100 pixels"
    )


def test_the_line_is_red_and_inside_of_the_box() -> None:
    grey = Image.new("RGB", (1024, 600), (90, 90, 90))
    made = np.asarray(with_red_box(grey, (0.25, 0.5, 0.75, 1)))
    red = (made == RED).all(axis=-1)
    rows, columns = np.nonzero(red)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (256, 768, 300, 599)
    assert red[300:305, 256:769].all()
    assert not red[305:594, 262:762].any()
    assert (made[~red] == 90).all()
    assert grey.getpixel((300, 300)) == (90, 90, 90)  # a copy


def test_a_small_box_in_a_small_picture() -> None:
    made = with_red_box(Image.new("RGB", (4, 4)), (0.99, 0.99, 1, 1))
    assert made.getpixel((3, 3)) == RED


def test_the_box_is_drawn_on_the_upright_picture_before_it_is_fitted(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 200), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the upright picture is 200 wide and 400 high
    image.save(tmp_path / "a.png", exif=exif)
    fit = fit_to((400, 200), (256, 256), "crop", is_undone=False)
    plain = read_picture(tmp_path / "a.png", fit, clock=StageClock(), hashes=HashCache())
    for box in ((0.25, 0.4, 0.75, 0.6), (50.0, 160.0, 150.0, 240.0)):
        read = read_picture(tmp_path / "a.png", fit, box=box, clock=StageClock(), hashes=HashCache())
        made = np.asarray(read.image).astype(int)
        red = (made[..., 0] > 200) & (made[..., 2] < 60)
        rows, columns = np.nonzero(red)
        # The picture is scaled by 1.28, and cropped to the rows from 128 to 384 of 512.
        assert abs(columns.min() - 64) <= 1
        assert abs(columns.max() - 192) <= 1
        assert abs(rows.min() - 77) <= 1
        assert abs(rows.max() - 179) <= 1
        assert read.seen == plain.seen


@pytest.mark.parametrize(
    ("box", "bucket", "cut"),
    [
        ((0, 0, 1, 1), (100, 200), False),
        ((0, 0, 1, 1), (100, 100), True),
        ((0.25, 0, 0.75, 1), (100, 100), False),
        ((0.2, 0, 0.75, 1), (50, 50), True),
        ((0.25, 0, 0.8, 1), (50, 50), True),
        ((0, 0.25, 1, 0.75), (256, 1024), False),
        ((0, 0.2, 1, 0.75), (256, 1024), True),
        ((0, 0.25, 1, 0.8), (256, 1024), True),
    ],
)
def test_a_box_that_the_crop_cuts(box: tuple[float, float, float, float], bucket: tuple[int, int], cut: bool) -> None:
    assert is_cropped(box, fit_to((100, 200), bucket, "crop", is_undone=False)) == cut
    assert not is_cropped(box, fit_to((100, 200), bucket, "pad", is_undone=True))


def test_the_record_hears_of_a_box_that_the_crop_cuts(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200)).save(tmp_path / "a.png")
    for box, notes in (((0.4, 0.4, 0.6, 0.6), ()), ((0.0, 0.4, 0.6, 0.6), (CUT_BOX,))):
        fit = fit_to((200, 400), (256, 256), "crop", is_undone=False)
        read = read_picture(tmp_path / "a.png", fit, box=box, clock=StageClock(), hashes=HashCache())
        assert read.notes == notes


def item(box: tuple[float, float, float, float] | None, *images: Path) -> EditItem:
    return EditItem(
        id="x", images=images, instruction="i", sampling=Sampling(), basesize=256, size=None, output="x.png",
        origin=Origin(file="m"), box=box,
    )  # fmt: skip


def test_a_box_outside_of_its_picture_fails_the_item() -> None:
    failed = size_item(item((1, 2, 301, 4), Path("a.png")), lambda path: (100, 300))
    assert isinstance(failed, FailedItem)
    assert (failed.code, failed.message) == (
        "bad_box",
        "a.png: the box 1,2,301,4 leads out of the picture, which is 300 x 100 pixels",
    )
    assert not isinstance(size_item(item((1, 2, 300, 4), Path("a.png")), lambda path: (100, 300)), FailedItem)


def test_the_fingerprint_and_the_record_have_the_box() -> None:
    prints = Fingerprinter(model="m", schedule="s", dtype="d", quality=95, metadata="keep")
    boxes = [None, (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.5)]
    assert len({prints.of(item(box), []) for box in boxes}) == 3
    assert settings_of(item((0.0, 0.0, 10.0, 20.0)))["box"] == [0, 0, 10, 20]
    assert "box" not in settings_of(item(None))
