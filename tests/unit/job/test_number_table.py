"""Numbers by name: as a dict has them, in little memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from joyedit.job import number_table
from joyedit.job.number_table import NumberTable


@pytest.mark.parametrize("buckets", [1, 3, 1 << 14])
def test_as_a_dict(buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_table, "_BUCKETS", buckets)
    dice = random.Random(buckets)
    names = ["", "a", "ä", "\udc80", *(f"item {n}" for n in range(200))]
    ours, theirs = NumberTable(), dict[str, int]()
    for _ in range(3000):
        name, number = dice.choice(names), dice.choice([0, 1, -1, 2**63 - 1, -(2**63), dice.randrange(2**40)])
        if dice.random() < 0.3:
            assert ours.pop(name) == theirs.pop(name, None)
        else:
            ours[name] = theirs[name] = number
        other = dice.choice(names)
        assert ours.get(other) == theirs.get(other)
        assert (other in ours) == (other in theirs)
        assert len(ours) == len(theirs)
    assert sorted(ours.values()) == sorted(theirs.values())
    assert {name: ours[name] for name in theirs} == theirs


def test_a_name_that_is_not_there() -> None:
    table = NumberTable()
    assert not table
    with pytest.raises(KeyError, match="nobody"):
        table["nobody"]


def test_bytes_that_stand_across_two_entries() -> None:
    """They are found, and are no entry."""
    table = NumberTable()
    digest, _ = table._place("wanted")
    bucket = bytearray(b"x" * 9 + digest + b"x" * (2 * 24 - 9 - 16))
    table._buckets[number_table._number_of(digest)] = bucket
    assert table.get("wanted") is None
    table["wanted"] = 7
    assert table["wanted"] == 7
    assert len(bucket) == 3 * 24


def test_bytes_a_name() -> None:
    """About 30 where there are many; no name is kept."""
    count = 60_000
    table = NumberTable()
    for n in range(4000):
        table[f"first {n}"] = n
    tracemalloc.start()
    for n in range(count):
        table[f"{n:0100}"] = n
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / count < 75  # with so few names the buckets' own bytes count
