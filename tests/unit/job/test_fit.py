"""The geometry of fitting: what is shown, what is lost, and what size comes out."""

from __future__ import annotations

import pytest

from joyedit.job.buckets import bucket_table, choose_bucket
from joyedit.job.fit import Fit, bucket_of_least_loss, crop_box, fit_to, parse_size, result_size

BUCKET = (224, 288)
WHOLE = (0, 0, 288, 224)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("input", "input"), ("bucket", "bucket"), ("long=2048", "long=2048"), ("1920x1080", "1920x1080"),
        ("640X480", "640x480"),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, wanted: str) -> None:
    assert str(parse_size(text)) == wanted
    assert parse_size(wanted) == parse_size(text)


def test_a_size_is_width_by_height() -> None:
    assert parse_size("1920x1080").exact == (1080, 1920)


@pytest.mark.parametrize(
    "text", ["", "big", "0x5", "15x100", "100x16385", "long=", "long=8", "1e3x4", "٣٢x٣٢", "12 x 34"]
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="WIDTHxHEIGHT or long=PIXELS"):
        parse_size(text)


def test_the_bucket_of_least_loss_never_loses_more_than_the_nearest_one() -> None:
    for height, width in [(100, 100), (3000, 4000), (4000, 900), (20, 10_000), (1080, 1920), (719, 1000)]:
        best, nearest = (choose((height, width), 256) for choose in (bucket_of_least_loss, choose_bucket))
        assert best in bucket_table(256)
        lost = [fit_to((height, width), bucket, "crop", is_undone=False).lost for bucket in (best, nearest)]
        assert lost[0] <= lost[1] + 0.01


def test_a_small_change_of_proportions_loses_nothing_where_it_is_undone() -> None:
    fit = fit_to((3000, 4000), (224, 304), "auto", is_undone=True)
    assert (fit.mode, fit.box, fit.inner, fit.shown) == (
        "stretch",
        (0, 0, 4000, 3000),
        (0, 0, 304, 224),
        (0, 0, 304, 224),
    )
    assert (fit.lost, fit.padded) == (0, 0)
    assert result_size(parse_size("input"), fit) == (3000, 4000)
    kept = fit_to((3000, 4000), (224, 304), "auto", is_undone=False)
    assert (kept.mode, kept.box) == ("crop", crop_box((3000, 4000), (224, 304)))
    assert kept.lost == pytest.approx(0.018, abs=0.002)


def test_what_a_crop_would_lose_is_padded() -> None:
    fit = fit_to((1200, 6000), (128, 512), "auto", is_undone=True)
    assert (fit.mode, fit.box) == ("pad", (0, 0, 6000, 1200))
    assert fit.inner == fit.shown == (0, 13, 512, 115)
    assert fit.padded == pytest.approx(1 - 102 / 128, abs=1e-4)
    assert fit.lost == 0
    assert result_size(parse_size("bucket"), fit) == (102, 512)
    assert result_size(parse_size("long=3000"), fit) == (600, 3000)
    assert fit.notes() == (f"padded by reflection: {fit.padded:.1%} of what the model saw",)


def test_a_crop_that_was_asked_for_keeps_its_scale() -> None:
    fit = fit_to((1200, 6000), (128, 512), "crop", is_undone=True)
    assert fit.lost == pytest.approx(0.2)
    assert result_size(parse_size("input"), fit) == (1200, 4800)
    assert fit.notes() == ("cropped: 20.0% of the picture is cut off",)


def test_a_result_of_other_proportions() -> None:
    """The frame is that of the result; the picture fills it, or lies in it."""
    square = parse_size("500x500").exact
    assert square is not None
    crop = fit_to((300, 400), (256, 256), "auto", is_undone=False, frame=square)
    assert (crop.mode, crop.box, crop.shown) == ("crop", (50, 0, 350, 300), (0, 0, 256, 256))
    pad = fit_to((300, 400), (256, 256), "pad", is_undone=False, frame=square)
    assert (pad.inner, pad.shown) == ((0, 32, 256, 224), (0, 0, 256, 256))
    stretch = fit_to((300, 400), (256, 256), "stretch", is_undone=False, frame=square)
    assert (stretch.box, stretch.inner) == ((0, 0, 400, 300), (0, 0, 256, 256))
    for fit in (crop, pad, stretch):
        assert result_size(parse_size("500x500"), fit) == (500, 500)


def test_a_frame_beyond_every_bucket_lies_in_one() -> None:
    fit = fit_to((100, 1000), (128, 512), "auto", is_undone=False, frame=(100, 1000))
    assert fit.shown == (0, 38, 512, 89)
    assert fit.mode == "stretch"
    assert fit.lost == 0


@pytest.mark.parametrize("source", [(1, 10_000), (10_000, 1), (1, 1), (17, 23), (16384, 16384)])
@pytest.mark.parametrize("wish", ["auto", "crop", "pad", "stretch"])
def test_boxes_lie_inside(source: tuple[int, int], wish: str) -> None:
    for bucket in (choose_bucket(source, 256), bucket_of_least_loss(source, 1024), (512, 128)):
        fit: Fit = fit_to(source, bucket, wish, is_undone=True)  # type: ignore[arg-type]
        left, top, right, bottom = fit.box
        assert 0 <= left < right <= source[1] + 1e-6
        assert 0 <= top < bottom <= source[0] + 1e-6
        left, top, right, bottom = fit.inner
        assert 0 <= left < right <= bucket[1]
        assert 0 <= top < bottom <= bucket[0]
        assert min(result_size(parse_size("input"), fit)) >= 1
        assert 0 <= fit.lost <= 1
        assert 0 <= fit.padded < 1
        assert fit.scale > 0
