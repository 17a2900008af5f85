"""Interruptions that arrive where Python drops exceptions come again."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from joyedit.runtime.pipeline import interrupts
from joyedit.runtime.pipeline.interrupts import INTERRUPTS, Interrupts
from joyedit.runtime.pipeline.stop import Stop

# The other method of pytest-timeout takes SIGALRM itself.
pytestmark = pytest.mark.timeout(300, method="thread")


class Thing:
    """Something to refer to."""


class _Deleted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class _Asked:
    def __getattr__(self, name: str) -> Any:
        signal.raise_signal(signal.SIGINT)
        raise AttributeError(name)


DELAY = 0.3


@pytest.fixture(autouse=True)
def _long_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time enough for a busy machine to come from the place that drops the exception to the one that receives it."""
    monkeypatch.setattr(interrupts, "DELAY", DELAY)


def in_a_callback() -> None:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert reference() is None


def in_del() -> None:
    _Deleted()


def in_a_cycle() -> None:
    gc.freeze()  # all else that the tests hold takes seconds to look through, and the next signal would come
    one: Any = _Deleted()
    one.itself = one
    del one
    gc.collect()
    gc.unfreeze()


def in_a_generator_that_is_dropped() -> None:
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            signal.raise_signal(signal.SIGINT)

    next(numbers())


def in_c_code() -> None:
    ctypes.pythonapi.PyObject_HasAttrString(ctypes.py_object(_Asked()), b"name")


def in_careless_code() -> None:
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)


PLACES = [in_a_callback, in_del, in_a_cycle, in_a_generator_that_is_dropped, in_c_code, in_careless_code]


def wait(seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize("place", PLACES)
def test_a_command_hears_of_a_signal_wherever_it_comes(
    place: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with INTERRUPTS.command():
        place()
        assert INTERRUPTS.is_due()
        with pytest.raises(KeyboardInterrupt):
            wait()
        INTERRUPTS.take()
        assert not INTERRUPTS.is_due()
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("place", PLACES)
def test_a_run_hears_of_it(place: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> None:
    stop = Stop()
    with stop.signals(lambda reason: None):
        place()
        assert stop.reason == "interrupted"
        with pytest.raises(KeyboardInterrupt):
            wait()
    assert capfd.readouterr() == ("", "")


def test_it_comes_until_it_is_taken() -> None:
    came = 0
    with INTERRUPTS.command():
        in_del()
        for _ in range(3):
            try:
                wait()
            except KeyboardInterrupt:
                came += 1
        INTERRUPTS.take()
        wait(2 * DELAY)
    assert came == 3


def test_after_the_block_none_comes() -> None:
    """Whoever called for a run has its KeyboardInterrupt, and may go on."""
    with contextlib.suppress(KeyboardInterrupt), Stop().signals(lambda reason: None):
        signal.raise_signal(signal.SIGINT)
    wait(2 * DELAY)
    assert not INTERRUPTS.is_due()


def test_a_run_that_edits_ends_by_itself() -> None:
    """The signal came before the first batch and was dropped there; now a batch runs, and is to be finished."""
    stop = Stop()
    with stop.signals(lambda reason: None):
        in_del()
        stop.started = True
        wait(2 * DELAY)
        assert stop()
        assert not INTERRUPTS.is_due()


def test_after_its_end_a_signal_changes_nothing() -> None:
    stop = Stop()
    with INTERRUPTS.command():
        with stop.signals(lambda reason: None):
            stop.end()
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert stop.reason is None
        assert not INTERRUPTS.is_due()


def test_the_end_of_a_run_in_another_thread_is_not_that_of_the_command() -> None:
    with INTERRUPTS.command():
        other = Stop()
        thread = threading.Thread(target=other.end)
        thread.start()
        thread.join()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        INTERRUPTS.take()


def test_a_timer_of_somebody_else_stays() -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rang.append(number))
    try:
        with INTERRUPTS.command():
            in_del()
            wait(2 * DELAY)
            assert INTERRUPTS.is_due()
        assert rang == []
        signal.raise_signal(signal.SIGALRM)
        assert rang == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with INTERRUPTS.command():
            signal.raise_signal(signal.SIGINT)
            assert not INTERRUPTS.is_due()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_takes_nothing() -> None:
    seen: list[object] = []

    def work() -> None:
        with INTERRUPTS.command():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_other_exceptions_that_are_dropped_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty:
        def __del__(self) -> None:
            raise ValueError

    class Open:
        def __del__(self) -> None:
            warnings.warn("unclosed", ResourceWarning, stacklevel=1)

    told: list[type] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: told.append(found.exc_type))
    one = Interrupts()
    with one.command(), warnings.catch_warnings():
        warnings.simplefilter("error")
        Faulty()
        Open()
        assert told == [ValueError, ResourceWarning]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        one.take()
        Open()
        Faulty()
    assert told == [ValueError, ResourceWarning, ValueError]
