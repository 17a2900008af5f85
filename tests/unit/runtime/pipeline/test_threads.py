"""Threads for calls that may hang: given up in time, replaced, and never waited for at the end."""

from __future__ import annotations

import threading
import time

import pytest

from joyedit.errors import ItemError, JoyeditError
from joyedit.runtime.pipeline import threads as module
from joyedit.runtime.pipeline.threads import StoppedError, Workers, running_call


def test_results_and_errors() -> None:
    with Workers(2, "w", timeout=60) as workers:
        tasks = [workers.submit(lambda number=number: 10 // number) for number in (5, 0, 2)]
        assert workers.result(tasks[0], "x") == 2
        with pytest.raises(ZeroDivisionError):
            workers.result(tasks[1], "x")
        assert workers.result(tasks[2], "x") == 5


def test_a_call_that_hangs_is_given_up_and_the_others_go_on() -> None:
    gate = threading.Event()
    with Workers(1, "w", timeout=0.2) as workers:
        hung = workers.submit(gate.wait)
        after = workers.submit(lambda: 7)
        with pytest.raises(ItemError, match=r"the file: reading took longer than 0\.2 seconds") as caught:
            workers.result(hung, "the file")
        assert caught.value.code == "picture_timeout"
        assert workers.result(after, "x") == 7
    gate.set()


def test_too_many_that_hang_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LOST", 2)
    gate = threading.Event()
    with Workers(2, "w", timeout=0.1) as workers:
        tasks = [workers.submit(gate.wait) for _ in range(2)]
        with pytest.raises(ItemError):
            workers.result(tasks[0], "x")
        with pytest.raises(JoyeditError, match="check that their disk is still connected"):
            workers.result(tasks[1], "x")
        gate.set()


def test_nobody_waits_when_the_run_stops() -> None:
    gate = threading.Event()
    stopped = threading.Event()
    with Workers(1, "w", timeout=60, stopped=stopped.is_set) as workers:
        task = workers.submit(gate.wait)
        stopped.set()
        with pytest.raises(StoppedError):
            workers.result(task, "x")
        gate.set()


def test_what_has_not_begun_is_dropped_at_the_end() -> None:
    done: list[int] = []
    with Workers(1, "w", timeout=60) as workers:
        for number in range(50):
            workers.submit(lambda number=number: (time.sleep(0.01), done.append(number)))
    assert len(done) < 50


def test_a_thread_that_comes_back_hangs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk may be late a thousand times over a night, as long as few calls hang at one time."""
    monkeypatch.setattr(module, "MOST_LOST", 2)
    with Workers(1, "w", timeout=0.1) as workers:
        for _ in range(4):
            gate = threading.Event()
            task = workers.submit(gate.wait)
            with pytest.raises(ItemError, match="reading took longer"):
                workers.result(task, "x")
            gate.set()
            assert task.done.wait(5)
            assert workers.result(workers.submit(lambda: 7), "x") == 7


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit("away")])
def test_whatever_ends_a_thread_is_told(error: BaseException) -> None:
    def die() -> None:
        raise error

    with Workers(1, "w", timeout=60) as workers:
        with pytest.raises(JoyeditError, match="a thread that read pictures ended"):
            workers.result(workers.submit(die), "x")
        assert workers.result(workers.submit(lambda: 7), "x") == 7


def test_no_more_threads_is_told_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers = Workers(1, "w", timeout=60)
    monkeypatch.setattr(workers._clock, "start", lambda: None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(JoyeditError, match="the system allows no more threads"):
        workers.__enter__()


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    gate = threading.Event()
    with Workers(1, "w", timeout=0.2) as workers:
        workers._clock.stop()  # as while the process does not run: the clock of the wall goes on, this one does not
        task = workers.submit(lambda: gate.wait(30))
        threading.Timer(0.6, gate.set).start()
        assert workers.result(task, "x")


def test_time_in_which_a_call_waits_for_others_does_not_count() -> None:
    def call() -> str:
        told = running_call()
        assert told is not None
        with told.waiting():
            time.sleep(0.6)  # three times the timeout
            told.check()
        return "read"

    with Workers(1, "w", timeout=0.2) as workers:
        assert workers.result(workers.submit(call), "x") == "read"
    assert running_call() is None


def test_a_call_that_waits_gives_up_what_hangs_even_if_nobody_asks_for_that() -> None:
    given_back, hang = threading.Event(), threading.Event()
    holds = threading.Event()

    def holder() -> None:
        told = running_call()
        assert told is not None
        told.when_given_up(given_back.set)
        holds.set()
        hang.wait()

    def waiter() -> str:
        told = running_call()
        assert told is not None
        with told.waiting():
            while not given_back.wait(0.05):
                told.check()
        return "read"

    with Workers(2, "w", timeout=0.3) as workers:
        hung = workers.submit(holder)
        assert holds.wait(60)
        assert workers.result(workers.submit(waiter), "x") == "read"
        with pytest.raises(ItemError, match="longer than"):
            workers.result(hung, "x")
        hang.set()


def test_a_call_that_comes_back_after_it_was_given_up_holds_nothing_and_is_late() -> None:
    hang, given_back = threading.Event(), threading.Event()
    told_late: list[bool] = []

    def call() -> None:
        told = running_call()
        assert told is not None
        hang.wait()
        told.when_given_up(given_back.set)
        told_late.append(given_back.is_set())
        told.check()

    with Workers(1, "w", timeout=0.2) as workers:
        task = workers.submit(call)
        for _ in range(2):
            with pytest.raises(ItemError) as caught:
                workers.result(task, "x")
            assert caught.value.code == "picture_timeout"
            hang.set()
            task.done.wait(60)
    assert told_late == [True]


def test_a_call_that_waits_is_stopped_with_the_run() -> None:
    stopped, waits = threading.Event(), threading.Event()

    def call() -> None:
        told = running_call()
        assert told is not None
        with told.waiting():
            while True:
                waits.set()
                time.sleep(0.02)
                told.check()

    with Workers(1, "w", timeout=60, stopped=stopped.is_set) as workers:
        task = workers.submit(call)
        assert waits.wait(60)
        stopped.set()
        assert task.done.wait(60)
        with pytest.raises(StoppedError):
            workers.result(task, "x")
