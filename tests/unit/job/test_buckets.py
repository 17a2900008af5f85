from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyedit.job.buckets import bucket_table, choose_bucket
from joyedit.job.spec import BASE_SIZES


def stated_rule(base: int) -> list[tuple[int, int]]:
    """Another statement of the table: for each height the widths that the walk stands on while it is there.

    In patches of a sixteenth of 256, the walk enters height h at the width where it left h + 1, and
    leaves it at floor(256 / h).
    """
    unit = 16 * base // 256
    pairs = []
    for height in range(1, 257):
        entered = max(256 // (height + 1), 1) if height < 256 else 1
        for width in range(entered, 256 // height + 1):
            if max(height, width) / min(height, width) <= 4.0:
                pairs.append((height * unit, width * unit))
    return sorted(pairs)


@pytest.mark.parametrize("base", BASE_SIZES)
def test_table_equals_an_independent_statement_of_the_rule(base: int) -> None:
    table = bucket_table(base)
    assert list(table) == stated_rule(base)
    assert len(table) == 49


def test_known_rows() -> None:
    table = bucket_table(1024)
    assert table[0] == (512, 1792)
    assert table[4] == (512, 2048)
    assert table[-1] == (2048, 512)
    assert (1024, 1024) in table
    assert bucket_table(256)[0] == (128, 448)


@pytest.mark.parametrize("base", [0, -256, 100, 1000])
def test_other_bases_are_refused(base: int) -> None:
    with pytest.raises(ValueError, match="multiple of 256"):
        bucket_table(base)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1, 1), (1024, 1024)),
        ((1160, 1274), (960, 1024)),
        ((100, 10_000), (512, 2048)),
        ((10_000, 100), (2048, 512)),
        ((480, 640), (832, 1152)),
    ],
)
def test_choice(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    ratio = size[0] / size[1]
    distances = [abs(h / w - ratio) for h, w in bucket_table(1024)]
    assert bucket_table(1024)[distances.index(min(distances))] == bucket
    assert choose_bucket(size, 1024) == bucket


def test_a_tie_takes_the_first_in_ascending_order() -> None:
    table = bucket_table(1024)
    equal = [pair for pair in table if pair[0] / pair[1] == 4.0]
    assert equal == [(2048, 512)]
    # The midpoint of two neighbouring ratios is as far from one as from the other.
    found = 0
    for first, second in pairwise(table):
        height = first[0] * second[1] + second[0] * first[1]
        width = 2 * first[1] * second[1]
        ratio = height / width
        distances = [abs(h / w - ratio) for h, w in table]
        if distances.count(min(distances)) > 1:
            found += 1
            assert choose_bucket((height, width), 1024) == table[distances.index(min(distances))]
    assert found > 3


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from(BASE_SIZES))
@settings(max_examples=60, deadline=None)
def test_no_bucket_is_nearer(height: int, width: int, base: int) -> None:
    chosen = choose_bucket((height, width), base)
    ratio = height / width
    assert abs(chosen[0] / chosen[1] - ratio) == min(abs(h / w - ratio) for h, w in bucket_table(base))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_picture_has_no_bucket(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel"):
        choose_bucket(size, 512)
