"""How GPUs are divided into groups, and who computes what in a group."""

from __future__ import annotations

from typing import Any

import pytest

from joyedit.errors import UsageError
from joyedit.runtime.parallel.layout import Layout, Parallel, choose_parallel

ONE, PAIR, FOUR = Layout(), Layout(guidance=2), Layout(guidance=2, sequence=2)


def test_every_rank_is_in_one_group_of_each_kind() -> None:
    layout = Layout(guidance=2, sequence=3)
    assert layout.world == 6
    assert layout.sequence_groups() == [[0, 1, 2], [3, 4, 5]]
    assert layout.guidance_groups() == [[0, 3], [1, 4], [2, 5]]
    for rank in range(layout.world):
        branch, part = layout.place(rank)
        assert layout.sequence_groups()[branch][part] == layout.guidance_groups()[part][branch] == rank


@pytest.mark.parametrize(
    ("layout", "text"),
    [(ONE, "one"), (PAIR, "guidance 2"), (Layout(sequence=4), "sequence 4"), (FOUR, "guidance 2 x sequence 2")],
)
def test_in_words(layout: Layout, text: str) -> None:
    assert str(layout) == text


@pytest.mark.parametrize(
    ("items", "gpus", "guidance_on", "expected"),
    [
        (8, 8, True, Parallel(groups=8)),
        (1000, 2, True, Parallel(groups=2)),
        (None, 4, True, Parallel(groups=4)),  # standard input
        (1, 1, True, Parallel(groups=1)),
        (1, 2, True, Parallel(groups=1, layout=PAIR)),
        (1, 4, True, Parallel(groups=1, layout=FOUR)),
        (1, 8, True, Parallel(groups=1, layout=Layout(guidance=2, sequence=4))),
        (1, 3, True, Parallel(groups=1, layout=Layout(sequence=3))),
        (1, 6, True, Parallel(groups=1, layout=Layout(guidance=2, sequence=3))),
        (1, 2, False, Parallel(groups=1, layout=Layout(sequence=2))),
        (2, 4, True, Parallel(groups=2, layout=PAIR)),  # as fast as one after the other by four, and exact
        (4, 8, True, Parallel(groups=4, layout=PAIR)),
        (3, 4, True, Parallel(groups=1, layout=FOUR)),  # two groups would take two rounds
        (0, 2, True, Parallel(groups=1, layout=PAIR)),
    ],
)
def test_auto(items: int | None, gpus: int, guidance_on: bool, expected: Parallel) -> None:
    found = choose_parallel("auto", items=items, gpus=gpus, heads=32, guidance_on=guidance_on)
    assert found == expected
    assert found.gpus == gpus


def test_auto_takes_no_more_ranks_than_heads() -> None:
    found = choose_parallel("auto", items=1, gpus=8, heads=2, guidance_on=True)
    assert found == Parallel(groups=2, layout=FOUR)


def test_as_asked() -> None:
    given: dict[str, Any] = {"items": 100, "gpus": 4, "heads": 32}
    assert choose_parallel("data", **given) == Parallel(groups=4)
    assert choose_parallel("guidance", **given) == Parallel(groups=2, layout=PAIR)
    assert choose_parallel("sequence", **given) == Parallel(groups=1, layout=Layout(sequence=4))


@pytest.mark.parametrize(
    ("wish", "gpus", "guidance_on", "words"),
    [
        ("guidance", 3, True, "takes pairs of GPUs, and 3 are given"),
        ("guidance", 2, False, "it is off for all items; use --parallel sequence or data"),
        ("sequence", 5, True, "divides 4 attention heads, and 5 GPUs are given; use --gpus 4 or fewer"),
        ("auto", 0, True, "0 GPUs are given"),
    ],
)
def test_what_cannot_be(wish: Any, gpus: int, guidance_on: bool, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_parallel(wish, items=10, gpus=gpus, heads=4, guidance_on=guidance_on)
