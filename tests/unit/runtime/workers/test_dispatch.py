"""Which batch goes to which worker, and what a worker's death does to its items."""

from __future__ import annotations

from joyedit.job.fit import fit_to
from joyedit.job.spec import EditItem, Origin, Sampling, Seen, SizedItem, Stamp
from joyedit.runtime.protocol import ReadyBatch, ReadyItem
from joyedit.runtime.workers.dispatch import Dispatch

FIT = fit_to((256, 256), (256, 256), "crop", is_undone=False)


def ready(name: str, picture: str = "") -> ReadyItem:
    item = EditItem(
        id=name, images=(), instruction=name, sampling=Sampling(), basesize=256, size=None,
        output=f"{name}.png", origin=Origin(file="test"),
    )  # fmt: skip
    sized = SizedItem(item=item, target=(256, 256), references=(), fits=(FIT,) if picture else ())
    seen = (Seen(picture, Stamp(0, 0, 0)),) if picture else ()
    return ReadyItem(sized=sized, pictures=(), seen=seen)


def batch(*names: str, picture: str = "") -> ReadyBatch:
    return ReadyBatch(index=0, items=tuple(ready(name, picture) for name in names))


def dispatch(workers: int = 2, depth: int = 2) -> Dispatch:
    made = Dispatch(depth)
    for worker in range(workers):
        made.join(worker)
    return made


def sent(made: Dispatch) -> list[tuple[int, str]]:
    """Workers, and the ids that they get now."""
    return [(task.worker, "".join(one.item.id for one in task.batch.items)) for task in made.tasks()]


def test_the_least_loaded_gets_the_next_batch_and_no_one_has_more_than_two() -> None:
    made = dispatch()
    for name in "abcdef":
        made.add(batch(name))
    assert sent(made) == [(0, "a"), (1, "b"), (0, "c"), (1, "d")]
    assert made.waiting == 2
    assert not made.has_room
    assert made.result(1, "b") is not None
    assert sent(made) == [(1, "e")]
    assert made.has_room


def test_what_waits_is_for_workers_that_still_load() -> None:
    """The first one to be ready has a batch, and takes a second one only if there are more than the others need."""
    made = dispatch(workers=1)
    made.loading = 1
    made.add(batch("a"))
    made.add(batch("b"))
    first, *more = made.tasks()
    assert (first.worker, first.at_once, more) == (0, True, [])
    made.add(batch("c"))
    assert sent(made) == [(0, "b")]
    made.join(1)
    made.loading = 0
    assert sent(made) == [(1, "c")]


def test_a_picture_goes_to_the_worker_that_has_it_unless_another_has_less_to_do() -> None:
    made = dispatch(workers=3, depth=3)
    made.add(batch("a", picture="cat"))
    assert sent(made) == [(0, "a")]
    made.add(batch("b", picture="cat"))  # nobody stays idle for the sake of a picture
    made.add(batch("c", picture="dog"))
    assert sent(made) == [(1, "b"), (2, "c")]
    for name in "de":
        made.add(batch(name, picture="dog"))
    made.add(batch("f", picture="dog"))
    assert sent(made) == [(2, "d"), (2, "e"), (0, "f")]
    made.result(1, "b")
    made.add(batch("g", picture="dog"))
    assert sent(made) == [(1, "g")]


def test_items_of_a_dead_worker_go_one_by_one_to_another_that_has_nothing_else() -> None:
    made = dispatch()
    made.add(batch("a", "b"))
    made.add(batch("c"))
    assert sent(made) == [(0, "ab"), (1, "c")]
    lost = made.died(0)
    assert (lost.given_up, lost.again, lost.was_alone) == ((), 2, False)
    made.join(0)
    made.add(batch("d"))
    made.add(batch("e"))
    assert sent(made) == [(0, "d"), (0, "e")], "worker 1 is to become idle; worker 0 goes on"
    assert made.result(1, "c") is not None
    made.add(batch("f"))
    assert sent(made) == [(1, "a")], "alone, with nothing behind it"
    assert made.result(1, "a") is not None
    assert sent(made) == [(1, "b")]
    made.result(0, "d")
    assert sent(made) == [(0, "f")]


def test_an_item_is_given_up_at_its_second_death_and_a_result_forgives_the_first() -> None:
    made = dispatch()
    made.add(batch("a", "b"))
    assert sent(made) == [(0, "ab")]
    made.died(0)
    assert sent(made) == [(1, "a")]
    lost = made.died(1)
    assert [one.item.id for one in lost.given_up] == ["a"]
    assert lost.was_alone
    made.join(0)
    made.join(1)
    assert sent(made) == [(1, "b")], "not to the worker that died with it"
    assert made.result(1, "b") is not None
    made.add(batch("b"))
    assert sent(made) == [(0, "b")]
    assert made.died(0).given_up == ()


def test_a_single_worker_gets_its_own_suspects() -> None:
    made = dispatch(workers=1)
    made.add(batch("a"))
    sent(made)
    made.died(0)
    assert made.waiting == 1
    assert sent(made) == []
    made.join(0)
    assert sent(made) == [(0, "a")]


def test_a_worker_that_is_to_become_idle_waits_for_no_more_batches() -> None:
    made = dispatch(depth=5)
    for name in "abcd":
        made.add(batch(name))
    sent(made)
    made.died(0)
    assert sent(made) == []
    assert made.flushes() == [1]
    assert made.flushes() == []


def test_the_last_batch_is_split_among_idle_workers() -> None:
    made = dispatch(workers=3)
    made.finishing = True
    made.add(batch("a", "b", "c", "d"))
    tasks = list(made.tasks())
    assert [len(task.batch.items) for task in tasks] == [2, 1, 1]
    assert all(task.at_once for task in tasks)
    assert made.busy() == [0, 1, 2]


def test_what_is_dropped_or_unknown_is_nobodys() -> None:
    made = dispatch()
    assert not made.drop()
    made.add(batch("a"))
    assert made.drop()
    assert sent(made) == []
    assert made.result(0, "a") is None
    assert made.result(7, "a") is None
    assert made.died(7).again == 0
    assert not made.is_running


def test_a_worker_is_thought_to_remember_a_bounded_number_of_pictures() -> None:
    made = dispatch(workers=2)
    for number in range(100):
        made.add(batch("a", picture=f"picture {number}"))
        (task,) = made.tasks()
        made.result(task.worker, "a")
    assert all(len(load.pictures) <= 64 for load in made._loads.values())
