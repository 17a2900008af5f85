"""Parts of a panorama go out together, whatever batches they were planned in."""

from __future__ import annotations

from pathlib import Path

from joyedit.job.plan import plan
from joyedit.job.spec import Batch, EditItem, FailedItem, Origin, Sampling
from joyedit.runtime.ray_engine.parts import whole_items


def item(name: str) -> EditItem:
    return EditItem(
        id=name,
        images=(Path(f"{name}.png"),),
        instruction="Make it blue.",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output=f"{name}.png",
        origin=Origin(file="m.jsonl"),
        result_size="input",
        fit="auto",
    )


def test_all_parts_of_an_item_are_one_batch() -> None:
    sizes = {"wide.png": (256, 3000), "plain.png": (256, 256), "wider.png": (256, 4000)}
    items = [item("wide"), item("plain"), item("wider")]
    planned = list(plan(items, 2, 64, lambda path: sizes[str(path)], panorama="parts"))
    found = list(whole_items(planned))
    assert not any(isinstance(one, FailedItem) for one in found)
    by_item: dict[str, list[Batch]] = {}
    for one in found:
        assert isinstance(one, Batch)
        for name in {sized.item.id for sized in one.items}:
            by_item.setdefault(name, []).append(one)
    assert {name: len(batches) for name, batches in by_item.items()} == {"wide": 1, "plain": 1, "wider": 1}
    for name in ("wide", "wider"):
        (batch,) = by_item[name]
        parts = batch.items[0].parts
        assert parts is not None
        assert [sized.part for sized in batch.items] == list(range(len(parts.begins)))


def test_failed_items_pass() -> None:
    failed = FailedItem(id="x", images=(), instruction="", origin=Origin(file="m"), code="missing_picture", message="?")
    assert list(whole_items([failed])) == [failed]
