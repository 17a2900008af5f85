"""Reading threads share one budget of memory."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import ItemError
from joyedit.job.fit import fit_to
from joyedit.job.hashing import HashCache
from joyedit.job.pictures.budget import DecodeBudget
from joyedit.runtime.pipeline import read as reading
from joyedit.runtime.pipeline.clock import StageClock
from joyedit.runtime.pipeline.read import read_picture
from joyedit.runtime.pipeline.threads import StoppedError, Workers

BUCKET = (64, 64)


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> DecodeBudget:
    """One that no two pictures fit into."""
    small = DecodeBudget(1)
    monkeypatch.setattr(reading, "shared_budget", lambda: small)
    return small


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(found):
        Image.new("RGB", (200, 100), (number, 0, 0)).save(path)
    return found


def read(path: Path) -> Any:
    return partial(read_picture, path, fit_to((100, 200), BUCKET, "crop", is_undone=False), StageClock(), HashCache())


def test_pictures_beyond_the_budget_are_decoded_one_at_a_time(
    budget: DecodeBudget, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, fit, most = threading.Lock(), reading.fitted, [0, 0]

    def counted(*args: Any) -> Image.Image:
        with lock:
            most[0] += 1
            most[1] = max(most)
        try:
            return fit(*args)
        finally:
            with lock:
                most[0] -= 1

    monkeypatch.setattr(reading, "fitted", counted)
    with Workers(4, "w", timeout=60) as workers:
        tasks = [workers.submit(read(path)) for path in paths]
        levels = [workers.result(task, "x").image.getpixel((0, 0)) for task in tasks]
    assert levels == [(number, 0, 0) for number in range(8)]
    assert most == [0, 1]
    assert budget.used == 0


def test_a_reader_that_hangs_with_the_budget_holds_up_nobody_for_ever(
    budget: DecodeBudget, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, hang, hangs = reading.fitted, threading.Event(), threading.Event()

    def hanging(*args: Any) -> Image.Image:
        if not hangs.is_set():
            hangs.set()
            hang.wait()
        return fit(*args)

    monkeypatch.setattr(reading, "fitted", hanging)
    with Workers(2, "w", timeout=0.5) as workers:
        first = workers.submit(read(paths[0]))
        assert hangs.wait(60)
        others = [workers.submit(read(path)) for path in paths[1:]]
        assert [workers.result(task, "x").image.size for task in others] == [(64, 64)] * 7
        with pytest.raises(ItemError) as caught:
            workers.result(first, "x")
        assert caught.value.code == "picture_timeout"
        hang.set()
        assert first.done.wait(60)
    assert budget.used == 0


def test_a_reader_that_waits_for_memory_stops_with_the_run(budget: DecodeBudget, paths: list[Path]) -> None:
    stopped = threading.Event()
    with Workers(1, "w", timeout=60, stopped=stopped.is_set) as workers:
        budget._used = 100
        task = workers.submit(read(paths[0]))
        stopped.set()
        assert task.done.wait(60)
        with pytest.raises(StoppedError):
            workers.result(task, "x")
