"""Which shard an item belongs to: by the order of the source, and by the records of what was packed."""

from __future__ import annotations

from typing import Any

from joyedit.job.writing.open_shards import OpenShards
from joyedit.job.writing.shard_plan import ShardPlan


def packed(name: str, shard: int, **more: Any) -> dict[str, Any]:
    told = {"shard": shard, "name": f"{name}.png"}
    return {
        "id": name,
        "status": "ok",
        "output": f"edited-{shard:06d}.tar#{name}.edited_image.png",
        "packed": told,
        **more,
    }


def loose(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "status": "ok", "output": f"{name}.png", **more}


def test_the_order_of_the_source_fills_the_shards() -> None:
    plan = ShardPlan(2, [])
    assert [plan.place(f"a{n}") for n in range(5)] == [0, 0, 1, 1, 2]
    assert plan.place("a0") == 0, "an item that comes again keeps its place"
    assert (plan.is_full(0), plan.is_full(2)) == (True, False)


def test_the_same_plan_where_a_shard_waits_and_a_later_one_is_packed() -> None:
    plan = ShardPlan(2, [loose("a0"), packed("a2", 1), packed("a3", 1)])
    assert [plan.place(f"a{n}") for n in range(5)] == [0, 0, 1, 1, 2]


def test_an_item_that_is_edited_again_keeps_its_place() -> None:
    plan = ShardPlan(2, [packed("a0", 0), packed("a1", 0), loose("a1")])
    assert [plan.place(name) for name in ("new", "a1", "a0")] == [1, 0, 0]


def test_a_shard_with_room_takes_what_is_new() -> None:
    plan = ShardPlan(3, [packed("a0", 0), packed("a3", 1)])
    assert [plan.place(name) for name in ("a0", "a1", "a2", "a3", "a4")] == [0, 0, 0, 1, 1]


def test_another_default_id_keeps_the_place() -> None:
    plan = ShardPlan(1, [packed("a", 0)])
    assert plan.place("a-2", ("a",)) == 0
    plan = ShardPlan(1, [packed("a", 0), loose("a-2", replaces=["a"])])
    assert (plan.place("a-2"), plan.place("b")) == (0, 1)


def test_what_moved_counts_once() -> None:
    plan = ShardPlan(1, [packed("a", 0), packed("a", 3)])
    assert [plan.place(name) for name in ("b", "c")] == [0, 1]
    assert plan.count[3] == 1


def came(size: int, records: list[dict[str, Any]], *names: str) -> OpenShards:
    shards = OpenShards(ShardPlan(size, records))
    for name in names:
        shards.came(name, ())
    return shards


def test_a_shard_is_ready_when_all_its_items_have_pictures() -> None:
    shards = came(2, [], "a", "b", "c")
    assert shards.finished("b", is_packed=False) is None
    assert shards.finished("a", is_packed=False) == 0
    assert shards.is_ready(0)
    assert shards.ids(0) == ["a", "b"], "in the order of the source, not of the ends"
    assert shards.finished("c", is_packed=False) is None, "more items may come"
    shards.all_came()
    assert (list(shards.settled()), shards.is_ready(1)) == ([0, 1], True)


def test_a_shard_waits_for_an_item_without_a_picture() -> None:
    shards = came(2, [], "a", "b")
    shards.finished("a", is_packed=False)
    shards.all_came()
    assert (shards.is_ready(0), shards.pending(0), shards.unfinished()) == (False, {"b"}, 1)


def test_a_shard_that_holds_all_is_not_written_again() -> None:
    records = [packed("a", 0), packed("b", 0)]
    shards = came(2, records, "a", "b")
    assert shards.finished("a", is_packed=True) is None
    assert shards.finished("b", is_packed=True) == 0
    assert not shards.is_ready(0)
    assert shards.ids(0) == [], "names are forgotten where nothing is to be written"


def test_a_shard_is_not_written_before_all_its_items_came() -> None:
    shards = came(2, [packed("a", 0), packed("b", 0)], "a")
    assert shards.finished("a", is_packed=False) is None, "b may be edited again too"
    shards.all_came()
    assert shards.is_ready(0), "b is not in the source any more"


def test_an_item_whose_record_has_another_id() -> None:
    shards = came(3, [], "a", "b.png", "c")
    shards.finished("b.png", is_packed=False, recorded_as="b")
    shards.finished("a", is_packed=False)
    assert shards.finished("c", is_packed=False, recorded_as="a") == 0
    assert shards.ids(0) == ["a", "b"], "two items may have one picture"


def test_a_shard_of_which_nobody_knows_how_many_items_come() -> None:
    """`a.jpg` may be the item that was `a`, or a new one beside that."""
    shards = OpenShards(ShardPlan(2, [packed("a", 0), packed("b", 0)]))
    shards.came("a.jpg", ("a",))
    shards.came("a.png", ("a",))
    shards.finished("a.jpg", is_packed=False)
    assert shards.finished("a.png", is_packed=True, recorded_as="a") is None, "b has not come yet"
    shards.came("b", ())
    assert shards.finished("b", is_packed=False) is None
    shards.all_came()
    assert (shards.is_ready(0), shards.ids(0)) == (True, ["a.jpg", "a", "b"])
