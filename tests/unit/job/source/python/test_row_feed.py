"""Rows on their way to a run: a few ahead, errors told, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from joyedit.job.source.python.feed import AHEAD, BrokenIteratorError, RowFeed
from joyedit.job.source.source import SourceStoppedError


def served(feed: RowFeed, stop: threading.Event) -> threading.Thread:
    def serve() -> None:
        while not feed.ended and not stop.is_set():
            if feed.wants():
                feed.pull()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_rows_come_in_order_and_few_of_them_wait() -> None:
    asked: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    feed, stop, most = RowFeed(rows(), "source"), threading.Event(), 0
    thread = served(feed, stop)
    for number, got in enumerate(feed.rows(lambda: False)):
        assert got == number
        most = max(most, len(asked) - number)
    thread.join()
    assert len(asked) == 1000
    assert most <= AHEAD + 2


def test_nothing_is_asked_before_the_run_wants_it() -> None:
    feed = RowFeed(iter([1]), "source")
    assert not feed.wants()


def test_an_error_of_the_iterator_names_the_row_and_is_the_cause() -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    feed, stop = RowFeed(rows(), "source"), threading.Event()
    thread = served(feed, stop)
    given = feed.rows(lambda: False)
    assert next(given) == 1
    with pytest.raises(BrokenIteratorError, match=r"source\[1\]: the iterator raised ValueError: no more") as told:
        next(given)
    thread.join()
    assert isinstance(told.value.__cause__, ValueError)


def test_a_wait_ends_when_the_run_stops() -> None:
    feed = RowFeed(iter([]), "source")
    with pytest.raises(SourceStoppedError):
        next(feed.rows(lambda: True))


def test_a_generator_is_closed() -> None:
    closed = []

    def rows() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    feed = RowFeed(rows(), "source")
    feed.pull()
    feed.close()
    assert closed == [True]
    assert not feed.wants()
