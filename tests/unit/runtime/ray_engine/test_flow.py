"""The driver's side of a run over Ray, without Ray: each item has one record, whatever comes back and how often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from joyedit.errors import CheckpointError, JoyeditError
from joyedit.job.pause import Pause
from joyedit.job.spec import Batch, EditItem, Origin, Sampling, SizedItem
from joyedit.runtime.ray_engine.flow import RayFlow, _raise
from joyedit.runtime.ray_engine.rows import Outcome, WrittenRow, as_table, packed, unpacked
from joyedit.runtime.workers.faults import Fault


def sized(name: str) -> SizedItem:
    item = EditItem(
        id=name,
        images=(),
        instruction="Make it blue.",
        sampling=Sampling(),
        basesize=256,
        size=None,
        output=f"{name}.png",
        origin=Origin(file="m.jsonl"),
    )
    return SizedItem(item=item, target=(256, 256), references=())


class Heard:
    """Stands for the recorder, for what hears rows, and for the output folder."""

    def __init__(self) -> None:
        self.cleaned = 0
        self.failures: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.rows = 0

    def failed(self, one: SizedItem, error: Exception, code: str, **more: Any) -> None:
        self.failures.append((one.item.id, code))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def row(self, row: WrittenRow) -> None:
        self.rows += 1

    def clean(self) -> int:
        self.cleaned += 1
        return 0


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def flow(heard: Heard) -> RayFlow:
    unused: Any = None
    return RayFlow(
        unused,
        folder=heard,  # type: ignore[arg-type]
        recorder=heard,  # type: ignore[arg-type]
        placing=unused,
        delivery=unused,
        admission=unused,
        hearing=heard,  # type: ignore[arg-type]
        stopped=lambda: False,
        on_batch=lambda batch: None,
    )


def given_out(flow: RayFlow, number: int, *names: str) -> None:
    flow._open[number] = {name: sized(name) for name in names}


def row(number: int, *names: str, **more: Any) -> WrittenRow:
    outcomes = tuple(Outcome(id=name, seconds={}) for name in names)
    return WrittenRow(number=number, outcomes=outcomes, stages={}, node="node1", **more)


def ids(found: Iterator[Any]) -> list[str]:
    return [one.sized.item.id for one in found]


def test_a_row_that_comes_twice_counts_once(flow: RayFlow, heard: Heard) -> None:
    given_out(flow, 0, "a", "b")
    assert ids(flow._arrived(row(0, "a", "b", "unknown"))) == ["a", "b"]
    assert ids(flow._arrived(row(0, "a", "b"))) == []
    assert ids(flow._arrived(row(7, "c"))) == []
    assert heard.rows == 1


def test_items_that_were_not_begun_stay_open(flow: RayFlow) -> None:
    given_out(flow, 0, "a", "b")
    assert ids(flow._arrived(row(0, "a"))) == ["a"]
    assert list(flow._open[0]) == ["b"]


def test_items_of_a_dead_actor_go_alone_and_then_are_given_up(flow: RayFlow, heard: Heard) -> None:
    given_out(flow, 0, "a", "b")
    assert ids(flow._arrived(row(0, died=True))) == []
    assert heard.notes == ["2 items were with a process that died: tried again, each alone"]
    again = flow._with_again([Batch(index=3, items=(sized("c"),))])
    assert [[one.item.id for one in batch.items] for batch in again if isinstance(batch, Batch)] == [
        ["a"],
        ["b"],
        ["c"],
    ]
    given_out(flow, 1, "a")
    given_out(flow, 2, "b")
    assert ids(flow._arrived(row(1, died=True))) == []
    assert ids(flow._arrived(row(2, "b"))) == ["b"]
    assert heard.failures == [("a", "killed_workers")]
    assert not flow._again
    assert not flow._deaths


def test_a_fault_of_the_run_names_its_machine(flow: RayFlow) -> None:
    given_out(flow, 0, "a")
    fault = Fault.of(CheckpointError("the checkpoint is damaged"))
    with pytest.raises(CheckpointError, match="node1: the checkpoint is damaged"):
        list(flow._arrived(replace(row(0), fault=fault)))


def test_a_pipeline_that_ends_before_its_source_is_followed_by_another(
    flow: RayFlow, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[str]] = []

    def one_pass(planned: Any) -> None:
        """Ray gives up the task that hands out batches, after two of them."""
        batches = [batch for batch in islice(planned, 2) if isinstance(batch, Batch)]
        passes.append([sized.item.id for batch in batches for sized in batch.items])
        flow._all_planned = len(batches) < 2

    monkeypatch.setattr(flow, "_pass", one_pass)
    assert flow.run([Batch(index=n, items=(sized(name),)) for n, name in enumerate("abcde")])
    assert passes == [["a", "b"], ["c", "d"], ["e"]]
    assert heard.cleaned == 1  # a task that ran twice has left two files


def test_a_planner_waits_for_no_result_of_a_pipeline_that_is_over(flow: RayFlow) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        flow._pass_is_over = len(waited) == 3
        return False

    assert list(flow._with_again([Pause(wait), Batch(index=0, items=(sized("a"),))])) == []
    assert len(waited) == 3


def test_an_error_of_ray_ends_the_run_in_words(flow: RayFlow) -> None:
    ActorDiedError = type("ActorDiedError", (Exception,), {"__module__": "ray.exceptions"})  # noqa: N806
    with pytest.raises(JoyeditError, match=r"Ray ended the run: the actor died \(the same command goes on\)"):
        _raise(ActorDiedError("the actor died"))
    with pytest.raises(CheckpointError, match=r"^damaged$") as caught:
        _raise(CheckpointError("damaged"))
    assert caught.value.__cause__ is None


def test_rows_pass_through_tables() -> None:
    pytest.importorskip("pyarrow")
    assert unpacked(packed(row(3, "a"))) == row(3, "a")
    assert unpacked(as_table(b"")) is None
