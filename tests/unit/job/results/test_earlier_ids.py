"""Which records under other default ids are an item's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joyedit.job.results.earlier_ids import EarlierIds
from joyedit.job.results.journal import Journal
from joyedit.job.results.records import final_records, settings_of
from joyedit.job.spec import EditItem, ItemResult, Origin, Sampling

ITEM = EditItem(
    id="a.png",
    images=(Path("/photos/a.png"),),
    instruction="x",
    sampling=Sampling(),
    basesize=256,
    size=None,
    output="a.png.png",
    origin=Origin(file="photos"),
    has_default_id=True,
    other_ids=("a",),
    owns="same pictures",
)


def result(name: str, *, has_failed: bool = False, **changes: Any) -> ItemResult:
    made = ItemResult(
        id=name,
        status="failed" if has_failed else "ok",
        instruction="x",
        inputs=("/photos/a.png",),
        output=None if has_failed else f"{name}.png",
        bucket=None,
        settings=settings_of(ITEM),
        error={"code": "unreadable_picture", "message": "no"} if has_failed else None,
        origin=Origin(file="photos"),
    )
    return replace(made, **changes)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def test_a_first_run_has_none(journal: Journal) -> None:
    earlier = EarlierIds(journal)
    journal.append(result("a"))
    assert (earlier.final(ITEM), earlier.finished(ITEM), earlier.replaced(ITEM)) == (None, None, ())


def test_the_record_under_the_present_id_comes_first(journal: Journal) -> None:
    journal.append(result("a"))
    journal.append(result("a.png"))
    found = EarlierIds(journal).final(ITEM), EarlierIds(journal).finished(ITEM)
    assert [record and record["id"] for record in found] == ["a.png", "a.png"]
    assert EarlierIds(journal).replaced(ITEM) == ("a",)


@pytest.mark.parametrize(
    ("changes", "item", "is_own"),
    [
        ({}, {}, True),
        ({"inputs": ("/photos/a.jpg",)}, {}, False),
        ({"origin": Origin(file="others")}, {}, False),
        ({"origin": Origin(file="/here/photos")}, {}, True),
        ({"origin": Origin(file="out/failed.jsonl", line=1)}, {}, True),
        ({"origin": None}, {}, False),
        ({"instruction": "y"}, {}, True),
        ({}, {"owns": "none"}, False),
        ({}, {"owns": "same line"}, True),
        ({"instruction": "y"}, {"owns": "same line"}, False),
        ({"settings": {}}, {"owns": "same line"}, False),
    ],
)
def test_whose_a_record_is(journal: Journal, changes: dict[str, Any], item: dict[str, Any], is_own: bool) -> None:
    journal.append(result("a", **changes))
    earlier, asked = EarlierIds(journal), replace(ITEM, **item)
    assert (earlier.final(asked) is not None) == is_own
    assert (earlier.finished(asked) is not None) == is_own
    assert earlier.replaced(asked) == (("a",) if is_own else ())


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_record_takes_the_place_of_others(journal: Journal, tmp_path: Path, has_failed: bool) -> None:
    journal.append(result("a"))
    journal.append(result("b", has_failed=True))
    journal.append(result("a", has_failed=True))
    journal.append(result("a.png", has_failed=has_failed, replaces=("a", "b", "never")))
    journal.close()
    assert [record["id"] for record in final_records(tmp_path / "results.jsonl")] == ["a.png"]
    again = Journal(tmp_path)
    for one in (journal, again):
        assert len(one) == 1
        assert not one.has_failed("a")
    finished = again.finished("a.png")
    assert finished is not None
    assert finished["id"] == ("a" if has_failed else "a.png"), "the finished picture stays that of the item"
    assert [record["id"] for record in again.failures()] == (["a.png"] if has_failed else [])
    again.append(result("a"))
    assert len(again) == 2, "another item may have that id later"
    again.close()


def test_what_somebody_else_wrote_there(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(
        '{"id": "a", "status": "ok"}\n{"id": "b", "status": "ok", "replaces": "a"}\n'
        '{"id": "b", "status": "ok", "replaces": [1, null, "b"]}\n'
    )
    journal = Journal(tmp_path)
    assert len(journal) == 2
    assert [record["id"] for record in final_records(tmp_path / "results.jsonl")] == ["a", "b"]
    journal.close()
