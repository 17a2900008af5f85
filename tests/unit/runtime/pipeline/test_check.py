"""Items are looked at ahead of the plan, in order, and one that hangs holds up nobody."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import ItemError, ManifestError, Problem
from joyedit.job.hashing import HashCache
from joyedit.job.spec import EditItem, FailedItem, Origin, Sampling
from joyedit.runtime.pipeline import check as checking
from joyedit.runtime.pipeline.check import Checker
from joyedit.runtime.pipeline.threads import Workers


def item(number: int) -> EditItem:
    return EditItem(
        id=str(number), images=(Path(f"{number}.png"),), instruction="x", sampling=Sampling(), basesize=256,
        size=None, output=f"{number}.png", origin=Origin(file="m"),
    )  # fmt: skip


class Decider:
    """Every third item is done."""

    def decide(self, item: EditItem) -> Any:
        return "done" if int(item.id) % 3 == 0 else "edit"


def checked(items: Any, passed: list[str], *, timeout: float = 60, **more: Any) -> Iterator[tuple[Any, Any]]:
    with Workers(4, "w", timeout=timeout) as workers:
        decider: Any = Decider()
        on_skip = lambda item, decision: passed.append(f"{item.id} {decision}")  # noqa: E731
        checker = Checker(items, decider, workers, on_skip, max_pixels=10**9, **more)
        for one in checker:
            yield one, None if isinstance(one, FailedItem) else checker.size_of(one.images[0])


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(path: Path, limit: int) -> tuple[int, int]:
        if path.stem == "7":
            raise ItemError("missing_picture", "7.png: no such file")
        return int(path.stem), limit

    monkeypatch.setattr(checking, "header_size", size)


@pytest.mark.parametrize("ahead", [1, 5, 1000])
def test_order_sizes_and_what_is_done(ahead: int) -> None:
    passed: list[str] = []
    message = list(checked(map(item, range(200)), passed, ahead=ahead))
    assert [one.id for one, _ in message] == [str(number) for number in range(200) if number % 3]
    assert passed == [f"{number} done" for number in range(0, 200, 3)]
    for one, size in message:
        if one.id == "7":
            assert (one.code, one.item) == ("missing_picture", item(7))
        else:
            assert size == (int(one.id), 10**9)


@pytest.mark.parametrize("slow", [False, True])
def test_threads_work_at_once_where_a_look_takes_long(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    monkeypatch.setattr(checking, "QUICK", 0.0 if slow else 1e9)
    monkeypatch.setattr(checking, "MEASURE", 3)
    size, lock = checking.header_size, threading.Lock()
    at_work: list[int] = []
    peaks: list[int] = []

    def count(path: Path, limit: int) -> tuple[int, int]:
        with lock:
            at_work.append(1)
            peaks.append(len(at_work))
        time.sleep(0.001)
        with lock:
            at_work.pop()
        return size(path, limit)

    monkeypatch.setattr(checking, "header_size", count)
    message = list(checked(map(item, range(900)), []))
    assert [one.id for one, _ in message] == [str(number) for number in range(900) if number % 3]
    assert (max(peaks) > 1) is slow
    alone = sum(peak == 1 for peak in peaks[200:])
    assert alone > 16, "from time to time one chunk is measured alone"


def test_one_at_a_time_where_each_is_waited_for() -> None:
    taken: list[int] = []

    def source() -> Iterator[EditItem]:
        for number in (1, 2, 4):
            taken.append(number)
            yield item(number)

    for one, _ in checked(source(), [], ahead=1):
        assert taken[-1] == int(one.id)


def test_what_came_before_a_fault_of_the_source_goes_through() -> None:
    def source() -> Iterator[EditItem]:
        yield from map(item, (1, 2))
        raise ManifestError([Problem(file="m", message="changed")])

    seen: list[str] = []
    with pytest.raises(ManifestError, match="changed"):
        seen.extend(one.id for one, _ in checked(source(), []))
    assert seen == ["1", "2"]


def test_one_that_hangs_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    size = checking.header_size

    def hang(path: Path, limit: int) -> tuple[int, int]:
        if path.stem == "5":
            gate.wait(30)
        return size(path, limit)

    monkeypatch.setattr(checking, "header_size", hang)
    message = {one.id: one for one, _ in checked(map(item, range(40)), [], timeout=0.3)}
    gate.set()
    failed = [one for one in message.values() if isinstance(one, FailedItem) and one.id != "7"]
    assert [(one.id, one.code) for one in failed] == [("5", "picture_timeout")]
    assert failed[0].message.startswith("5.png: reading took longer than 0.3 seconds")
    assert len(message) == 26


def test_an_input_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.png")
    with pytest.raises(OSError, match="not a file"):
        HashCache().sha256(str(tmp_path / "in.png"))
