"""The plan: who shares a batch, when a batch leaves, and how little is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from joyedit.errors import ItemError
from joyedit.job.plan import plan, size_item
from joyedit.job.sizes import Size
from joyedit.job.spec import Batch, EditItem, FailedItem, Origin, Sampling, SizedItem

SQUARE, WIDE, TALL = (1000, 1000), (500, 1000), (1000, 500)


def item(name: str, shape: str = "square", steps: int = 40, size: Size | None = None, images: int = 1) -> EditItem:
    return EditItem(
        id=name,
        images=tuple(Path(shape) for _ in range(images)),
        instruction="do it",
        sampling=Sampling(steps=steps),
        basesize=256,
        size=size,
        output=f"{name}.png",
        origin=Origin(file="m.jsonl", line=1),
    )


def size_of(path: Path) -> Size:
    sizes = {"square": SQUARE, "wide": WIDE, "tall": TALL}
    if str(path) not in sizes:
        raise ItemError("unreadable_picture", f"{path}: no picture")
    return sizes[str(path)]


def shown(entries: Iterator[Batch | FailedItem]) -> list[str]:
    """Each batch as its ids, each failed item as !id."""
    return [
        "!" + entry.id if isinstance(entry, FailedItem) else " ".join(one.item.id for one in entry.items)
        for entry in entries
    ]


def test_items_of_one_shape_and_steps_share_batches_and_full_ones_leave_first() -> None:
    items = [item("a"), item("b", "wide"), item("c"), item("d", steps=20), item("e", "wide"), item("f")]
    assert shown(plan(items, 2, 100, size_of)) == ["a c", "b e", "d", "f"]


def of_picture(name: str, picture: str) -> EditItem:
    return replace(item(name), images=(Path("square", picture),))


def square(path: Path) -> Size:
    return SQUARE


def test_items_of_one_picture_leave_together_though_the_stream_scatters_them() -> None:
    items = [of_picture(f"{picture}{n}", picture) for n in range(3) for picture in "pqr"]
    assert shown(plan(items, 2, 100, square)) == ["p0 p1", "p2 q0", "q1 q2", "r0 r1", "r2"]
    assert shown(plan(items, 3, 100, square)) == ["p0 p1 p2", "q0 q1 q2", "r0 r1 r2"]


def test_a_picture_that_goes_on_for_ever_holds_up_no_other() -> None:
    items = [of_picture("p0", "p"), of_picture("q", "q"), *(of_picture(f"p{n}", "p") for n in range(1, 9))]
    assert shown(plan(items, 2, 4, square)) == ["p0 p1", "q p2", "p3 p4", "p5 p6", "p7 p8"]


def test_pictures_are_met_once_each_within_a_window() -> None:
    """Runs of equal pictures in the planned order: as many as distinct pictures in each window."""
    items = [of_picture(f"{n}", f"{n % 25}") for n in range(200)]
    order = [
        sized.item.images for entry in plan(items, 4, 100, square) if isinstance(entry, Batch) for sized in entry.items
    ]
    assert len(order) == 200
    assert sum(1 for _ in itertools.groupby(order)) <= 2 * 25
    everything = plan(items, 4, 200, square)
    order = [sized.item.images for entry in everything if isinstance(entry, Batch) for sized in entry.items]
    assert sum(1 for _ in itertools.groupby(order)) == 25


def test_a_stream_that_breaks_gives_what_came_before() -> None:
    def stream() -> Iterator[EditItem]:
        yield item("a")
        raise ItemError("gone", "the source is gone")

    planned = plan(stream(), 2, 100, size_of)
    assert shown(iter([next(planned)])) == ["a"]
    with pytest.raises(ItemError, match="the source is gone"):
        next(planned)


def test_without_a_look_ahead_full_batches_leave_at_once() -> None:
    taken: list[str] = []

    def stream() -> Iterator[EditItem]:
        for name in "abcd":
            taken.append(name)
            yield item(name)

    planned = plan(stream(), 2, 100, size_of, look_ahead=False)
    assert shown(iter([next(planned)])) == ["a b"]
    assert taken == ["a", "b"]
    assert shown(planned) == ["c d"]


def test_indices_count_batches_only() -> None:
    entries = list(plan([item("a"), item("x", "gone"), item("b", "wide")], 1, 10, size_of))
    assert [entry.index for entry in entries if isinstance(entry, Batch)] == [0, 1]


def test_mates_may_differ_in_everything_but_shapes_and_steps() -> None:
    one = item("a")
    other = EditItem(
        id="b",
        images=one.images,
        instruction="something else",
        sampling=Sampling(steps=40, guidance_scale=1.0, seed=7, negative_prompt="blur"),
        basesize=256,
        size=None,
        output="b.png",
        origin=one.origin,
    )
    assert shown(plan([one, other], 2, 10, size_of)) == ["a b"]


def test_a_picture_that_cannot_be_sized_fails_alone_and_at_once() -> None:
    entries = list(plan([item("a"), item("x", "gone"), item("b")], 2, 10, size_of))
    failed = entries[0]
    assert isinstance(failed, FailedItem)
    assert (failed.id, failed.code, failed.message) == ("x", "unreadable_picture", "gone: no picture")
    assert failed.images == (Path("gone"),)
    assert shown(iter(entries)) == ["!x", "a b"]


def test_items_that_failed_before_pass_through() -> None:
    gone = FailedItem(id="g", images=(), instruction="", origin=Origin(file="-"), code="bad_line", message="m")
    assert list(plan([gone], 2, 10, size_of)) == [gone]


def test_no_item_waits_longer_than_the_window() -> None:
    rare = [item("rare", "tall")]
    common = [item(str(number)) for number in range(10)]
    assert shown(plan(rare + common, 4, 5, size_of)) == ["rare", "0 1 2 3", "4 5 6 7", "8 9"]


def test_failed_items_count_into_the_window_too() -> None:
    broken = [item(f"x{number}", "gone") for number in range(3)]
    assert shown(plan([item("a"), *broken, item("b")], 2, 3, size_of)) == ["!x0", "!x1", "a", "!x2", "b"]


def test_a_window_of_one_makes_batches_of_one() -> None:
    assert shown(plan([item("a"), item("b")], 4, 1, size_of)) == ["a", "b"]


def test_a_window_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="window"):
        list(plan([], 4, 0, size_of))


@pytest.mark.parametrize(("batch_size", "window"), [(1, 1), (4, 16), (8, 64), (100, 32)])
def test_it_takes_at_most_a_window_beyond_what_it_gave(batch_size: int, window: int) -> None:
    taken = 0

    def endless() -> Iterator[EditItem]:
        nonlocal taken
        for number, shape in zip(itertools.count(), itertools.cycle(["square", "wide", "tall"]), strict=False):
            taken += 1
            yield item(str(number), shape, steps=1 + number % 5)

    given = 0
    for entry in itertools.islice(plan(endless(), batch_size, window, size_of), 500):
        assert isinstance(entry, Batch)
        assert taken - given <= window
        given += len(entry.items)
    assert given > 400


def test_every_item_comes_out_once_and_the_same_way_each_time() -> None:
    shapes = ["square", "wide", "tall", "gone", "square"]
    items = [item(str(n), shapes[n * 7 % 5], steps=1 + n * 3 % 2) for n in range(500)]
    first, second = (shown(plan(items, 3, 20, size_of)) for _ in range(2))
    assert first == second
    names = sorted(name.lstrip("!") for entry in first for name in entry.split())
    assert names == sorted(one.id for one in items)


def test_the_batch_size_may_depend_on_the_target() -> None:
    items = [item(f"s{n}") for n in range(4)] + [item(f"w{n}", "wide") for n in range(4)]
    sizes = {(256, 256): 1}
    entries = plan(items, lambda target: sizes.get(target, 4), 100, size_of)
    assert shown(entries) == ["s0", "s1", "s2", "s3", "w0 w1 w2 w3"]


def sized(entry: EditItem) -> SizedItem:
    result = size_item(entry, size_of)
    assert isinstance(result, SizedItem)
    return result


def test_the_target_is_the_last_references_bucket() -> None:
    two = EditItem(
        id="two",
        images=(Path("square"), Path("wide")),
        instruction="",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output="two.png",
        origin=Origin(file="m"),
    )
    result = sized(two)
    assert result.references[0] == (256, 256)
    assert result.target == result.references[1]
    assert result.target[1] == pytest.approx(2 * result.target[0], rel=0.1)


def test_a_size_that_is_asked_for_wins_over_the_references() -> None:
    result = sized(item("a", "wide", size=(700, 700)))
    assert result.target == (256, 256)
    assert result.references == ((256, 256),)  # one reference follows the target
    several = sized(item("b", "wide", size=(700, 700), images=2))
    assert several.target == (256, 256)
    assert (256, 256) not in several.references


def test_text_to_image_takes_the_square_of_its_base() -> None:
    assert sized(item("a", images=0)).target == (256, 256)
    assert sized(item("a", images=0)).references == ()
