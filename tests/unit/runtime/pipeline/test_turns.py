"""Items wait for the results that they begin with: in any order, together with their batch, without deadlock."""

from __future__ import annotations

from pathlib import Path

import pytest

from joyedit.job.pause import Pause
from joyedit.job.plan import plan
from joyedit.job.spec import Batch, EditItem, FailedItem, Origin, Sampling, SizedItem
from joyedit.job.turns import EARLIER_FAILED, place_holder
from joyedit.runtime.pipeline.turns import Outcome, Turns


def item(name: str, *earlier: str) -> EditItem:
    return EditItem(
        id=name,
        images=tuple(map(place_holder, earlier)) or (Path(f"{name}.jpg"),),
        instruction="x",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output=f"{name}.png",
        origin=Origin(file="m"),
        earlier=earlier,
    )


def outcome(name: str) -> Outcome:
    return Outcome(Path(f"out/{name}.png"), f"{name} failed" if name.startswith("bad") else None)


def turns_of(*items: EditItem | FailedItem, room: int = 100, referred: set[str] | None = None) -> Turns:
    if referred is None:
        referred = {name for one in items if isinstance(one, EditItem) for name in one.earlier if name}
    return Turns(items, referred, outcome, room=room)


def names(turns: Turns, count: int) -> list[str]:
    """The ids of so many entries; a pause is ""."""
    found = [next(turns) for _ in range(count)]
    return ["" if isinstance(one, Pause) else one.id for one in found]


def batch(*ids: str) -> Batch:
    sized = tuple(SizedItem(item=item(name), target=(256, 256), references=((256, 256),)) for name in ids)
    return Batch(index=0, items=sized)


def test_an_item_comes_when_its_inputs_are_there() -> None:
    turns = turns_of(item("c", "b"), item("a"), item("b", "a"), item("d"))
    assert names(turns, 3) == ["a", "d", ""]
    turns.ended("a")
    found = next(turns)
    assert isinstance(found, EditItem)
    assert (found.id, found.images, found.earlier) == ("b", (Path("out/a.png"),), ("a",))
    assert turns.is_waiting
    turns.ended("b")
    assert names(turns, 1) == ["c"]
    with pytest.raises(StopIteration):
        next(turns)


def test_what_waits_for_one_batch_goes_on_together() -> None:
    turns = turns_of(*(item(f"a{n}") for n in range(3)), *(item(f"b{n}", f"a{n}") for n in range(3)))
    assert names(turns, 4) == ["a0", "a1", "a2", ""]
    turns.taken(batch("a0", "a1"))
    turns.ended("a1")
    assert names(turns, 1) == [""]  # a0 of the same batch is about to end
    turns.ended("a0")
    assert names(turns, 3) == ["b1", "b0", ""]
    turns.ended("a2")  # it fails before it is in a batch
    assert names(turns, 1) == ["b2"]


def test_an_item_in_parts_counts_with_its_last_batch() -> None:
    turns = turns_of(item("a"), item("p"), item("b", "a"), item("q", "p"))
    names(turns, 3)
    turns.taken(batch("a", "p"))
    turns.taken(batch("p"))
    turns.ended("a")
    assert names(turns, 2) == ["b", ""]
    turns.ended("p")
    assert names(turns, 1) == ["q"]


def test_several_results_in_one_item() -> None:
    turns = turns_of(item("a"), item("b"), item("c", "a", "b"))
    assert names(turns, 3) == ["a", "b", ""]
    turns.ended("b")
    assert names(turns, 1) == [""]
    turns.ended("a")
    found = next(turns)
    assert isinstance(found, EditItem)
    assert found.images == (Path("out/a.png"), Path("out/b.png"))


def test_a_failure_goes_on_to_the_later_turns() -> None:
    turns = turns_of(item("bad"), item("b", "bad"))
    assert names(turns, 2) == ["bad", ""]
    turns.ended("bad")
    found = next(turns)
    assert isinstance(found, FailedItem)
    assert (found.code, found.message) == (EARLIER_FAILED, "bad failed")
    assert found.images == (Path("out/bad.png"),)


def test_the_source_waits_where_too_many_items_wait() -> None:
    """A chain of any length takes no more memory than the room; an item to come is still read."""
    chain = [item("t0"), *(item(f"t{n}", f"t{n - 1}") for n in range(1, 200))]
    read: list[str] = []

    def given() -> object:
        for one in chain:
            read.append(one.id)
            yield one

    turns = Turns(given(), {one.id for one in chain[:-1]}, outcome, room=5)  # type: ignore[arg-type]
    for number in range(200):
        assert names(turns, 1) == [f"t{number}"]
        assert len(read) <= number + 7
        turns.ended(f"t{number}")
    backwards = turns_of(*reversed(chain), room=5)
    for number in range(200):
        assert names(backwards, 1) == [f"t{number}"]
        backwards.ended(f"t{number}")


def test_an_item_that_comes_last() -> None:
    """It may have killed an earlier run: the stream ends before it, and goes on behind it."""
    turns = turns_of(item("a"), item("k"), item("b", "a"), item("l", "k"), item("m", "l"))
    assert names(turns, 3) == ["a", "k", ""]
    turns.put_last("k")
    turns.ended("a")
    assert names(turns, 1) == ["b"]
    with pytest.raises(StopIteration):
        next(turns)
    assert turns.is_waiting
    turns.ended("k")
    assert names(turns, 2) == ["l", ""]
    turns.ended("l")
    assert names(turns, 1) == ["m"]
    assert not turns.is_waiting


def test_what_never_comes_fails() -> None:
    """The source has lost a line, or lines wait for each other, since somebody looked."""
    turns = turns_of(item("b", "a"), item("c", "d"), item("d", "c"), referred={"a", "c", "d"})
    found = [next(turns)]
    turns.ended("b")
    found.append(next(turns))
    turns.ended("c")
    found.append(next(turns))
    assert [one.id for one in found if isinstance(one, FailedItem)] == ["b", "c"]
    assert isinstance(found[0], FailedItem)
    assert found[0].message == "the source has no item a any more"


def test_a_pause_waits_for_an_end() -> None:
    turns = turns_of(item("a"), item("b", "a"))
    _, pause = next(turns), next(turns)
    assert isinstance(pause, Pause)
    assert not pause.wait(0)
    turns.ended("a")
    assert pause.wait(0)


def test_standard_input_is_not_read_while_an_item_waits() -> None:
    """Its sender may wait for the result of the item that waits."""
    sent = iter([item("a"), item("b", "a")])

    def given() -> object:
        yield from sent
        raise AssertionError("read on")

    turns = Turns(given(), None, outcome, room=1)  # type: ignore[arg-type]
    assert names(turns, 2) == ["a", ""]
    turns.ended("a")
    assert names(turns, 1) == ["b"]


def test_the_plan_fills_batches_across_chains() -> None:
    """All first turns share batches, then the second ones do; what is left over goes when nothing else can."""
    chains = [[item(f"{c}1"), item(f"{c}2", f"{c}1"), item(f"{c}3", f"{c}2")] for c in "abcdef"]
    turns = turns_of(*(one for chain in chains for one in chain))
    planned = plan(turns, 4, 256, lambda path: (256, 256))
    batches: list[str] = []
    in_work: list[Batch] = []
    for entry in planned:
        if isinstance(entry, Batch):
            batches.append(" ".join(sized.item.id for sized in entry.items))
            turns.taken(entry)
            in_work.append(entry)
        while in_work and (isinstance(entry, Pause) or len(in_work) > 1):
            for sized in in_work.pop(0).items:
                turns.ended(sized.item.id)
    assert batches == ["a1 b1 c1 d1", "e1 f1", "a2 b2 c2 d2", "e2 f2", "a3 b3 c3 d3", "e3 f3"]
