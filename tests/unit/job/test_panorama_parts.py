"""The parts of a panorama: where they lie, and that they are one picture again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from joyedit.job.buckets import bucket_table
from joyedit.job.fit import Fit
from joyedit.job.parts import MOST_PARTS, Parts, parts_of
from joyedit.job.pictures.fitted import fitted
from joyedit.job.pictures.joined import joined
from joyedit.job.plan import plan, size_item
from joyedit.job.spec import Batch, EditItem, FailedItem, Origin, Sampling, SizedItem

SHAPES = [(100, 401), (401, 100), (100, 500), (99, 1234), (1500, 17), (333, 12_000), (1000, 10_000)]


def found(size: tuple[int, int], basesize: int = 256) -> Parts:
    parts = parts_of(size, basesize)
    assert parts is not None
    return parts


@pytest.mark.parametrize("basesize", [256, 1024])
@pytest.mark.parametrize("size", SHAPES)
def test_the_parts_cover_the_picture_and_overlap(size: tuple[int, int], basesize: int) -> None:
    parts = found(size, basesize)
    assert parts.bucket in bucket_table(basesize)
    total = max(parts.frame)
    assert parts.begins[0] == 0
    assert parts.begins[-1] + parts.length == total
    steps = np.diff(parts.begins)
    assert (parts.length - steps).min() >= parts.length / 4 - 1
    assert (2 * steps >= parts.length - 2).all(), "no more than two lie over each other"
    assert parts.overlap >= 0.24
    assert parts.frame[0] / parts.frame[1] == pytest.approx(size[0] / size[1], rel=0.01)
    fits = [parts.fit(number) for number in range(len(parts.begins))]
    for fit in fits:
        assert 0 <= fit.box[0] < fit.box[2] <= size[1]
        assert 0 <= fit.box[1] < fit.box[3] <= size[0]
        assert fit.notes() == ()
        wide = (fit.box[2] - fit.box[0]) / (fit.box[3] - fit.box[1])
        assert wide == pytest.approx(parts.bucket[1] / parts.bucket[0], rel=0.01)


@pytest.mark.parametrize("size", [(100, 400), (400, 100), (100, 100), (1, 4), (10, 10 * 2 * MOST_PARTS)])
def test_others_go_through_whole(size: tuple[int, int]) -> None:
    assert parts_of(size, 1024) is None


def whole_in_frame(image: Image.Image, parts: Parts) -> Image.Image:
    fit: Fit = parts.whole()
    return fitted(image, fit)


@pytest.mark.parametrize("size", [(100, 700), (700, 100), (64, 2000)])
def test_parts_that_nobody_changed_are_the_picture(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (max(2, size[0] // 9), max(2, size[1] // 9), 3), dtype=np.uint8))
    image = small.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    parts = found(size)
    pieces = [fitted(image, parts.fit(number)) for number in range(len(parts.begins))]
    got, wanted = (np.asarray(one).astype(int) for one in (joined(pieces, parts), whole_in_frame(image, parts)))
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 3


def test_one_part_fades_evenly_into_the_next() -> None:
    parts = found((100, 500))
    pieces = [Image.new("RGB", (parts.bucket[1], parts.bucket[0]), (200 * (n % 2),) * 3) for n in range(3)]
    row = np.asarray(joined(pieces, parts))[0, :, 0].astype(int)
    assert (np.asarray(joined(pieces, parts)) == row[None, :, None]).all()
    begin, end = parts.begins[1], parts.length
    assert (row[:begin] == 0).all()
    assert (np.diff(row[begin:end]) >= 0).all()
    assert np.diff(row).max() <= 200 / (end - begin) + 2, "no seam"
    assert row[parts.begins[1] + parts.length // 2] == 200 or row.max() >= 199
    same = joined([Image.new("RGB", (parts.bucket[1], parts.bucket[0]), (7, 8, 9))] * 3, parts)
    assert same.getcolors() == [(parts.frame[0] * parts.frame[1], (7, 8, 9))]


def item(name: str, **more: object) -> EditItem:
    made = EditItem(
        id=name,
        images=(Path(f"{name}.png"),),
        instruction="x",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output=f"{name}.png",
        origin=Origin(file="m.jsonl"),
        result_size="input",
        fit="auto",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def long(path: object) -> tuple[int, int]:
    return (100, 700)


@pytest.mark.parametrize(
    "more", [{"size": (64, 64)}, {"box": (1.0, 1.0, 9.0, 9.0)}, {"fit": "crop"}, {"images": (Path("a"), Path("b"))}]
)
def test_what_asks_for_something_else_goes_through_whole(more: dict[str, object]) -> None:
    sized = size_item(item("a", **more), long, "parts")
    assert isinstance(sized, SizedItem)
    assert sized.parts is None


def test_the_plan_mixes_parts_with_items_of_their_shape() -> None:
    items = [item("a"), item("b"), item("c", images=(Path("square.png"),))]
    bucket = found((100, 700)).bucket

    def size_of(path: object) -> tuple[int, int]:
        return bucket if "square" in str(path) else (100, 700)

    planned = list(plan(iter(items), 4, 100, size_of, panorama="parts"))
    batches = [entry for entry in planned if isinstance(entry, Batch)]
    assert not any(isinstance(entry, FailedItem) for entry in planned)
    count = len(found((100, 700)).begins)
    assert [len(batch.items) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    assert sum(len(batch.items) for batch in batches) == 2 * count + 1
    told = [(sized.item.id, sized.part) for batch in batches for sized in batch.items]
    assert sorted(told, key=str) == sorted(
        [("c", None), *((name, number) for name in "ab" for number in range(count))], key=str
    )
    whole = next(sized for batch in batches for sized in batch.items if sized.part == 1).whole
    assert (whole.result, whole.part, whole.target) == ((100, 700), None, found((100, 700)).frame)
    assert {sized.target for batch in batches for sized in batch.items} == {bucket}
