"""Results as they are finished, and what happens when nobody takes them."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import joyedit
from joyedit.api.running import _living
from joyedit.api.watch import MOST_WAITING
from joyedit.errors import JoyeditError, UsageError

Stream = Callable[..., joyedit.Stream]


@pytest.fixture
def fake_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")

    def stream(source: Any, **options: Any) -> joyedit.Stream:
        given = {"model": "fake", "output": tmp_path / "out", "steps": 1, "basesize": 256, "progress": False}
        return joyedit.stream(source, **(given | options))

    return stream


def rows(count: int, instruction: str = "x") -> Iterator[dict[str, Any]]:
    for number in range(count):
        picture = Image.new("RGB", (60, 40), (number % 256, number // 256, 9))
        yield {"id": str(number), "image": picture, "instruction": instruction}


def test_each_result_comes_once_and_those_of_earlier_runs_too(fake_stream: Stream) -> None:
    stream = fake_stream(rows(30))
    assert stream.outcome is None
    first = [(one.id, one.was_done) for one in stream]
    assert sorted(first) == sorted((str(n), False) for n in range(30))
    assert stream.outcome is not None
    assert [one.id for one in stream.outcome] == [str(n) for n in range(30)]
    assert list(stream) == []
    again = [(one.id, one.was_done) for one in fake_stream(rows(31))]
    assert sorted(again) == sorted((str(n), n < 30) for n in range(31))


def test_a_result_comes_before_the_run_has_ended(fake_stream: Stream) -> None:
    stream = fake_stream(rows(20, "SLEEP"), batch_size=1)
    assert next(stream).ok
    stream.close()
    assert stream.outcome is not None
    assert stream.outcome.exit_code == 130
    assert 1 <= stream.outcome.report.ok < 20
    assert len(stream.outcome) == stream.outcome.report.ok


def test_a_slow_loop_holds_the_run_back(fake_stream: Stream, tmp_path: Path) -> None:
    count = 3 * MOST_WAITING
    stream = fake_stream(list(rows(count)), page=False)
    next(stream)
    time.sleep(4)
    lines = len((tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert lines < count
    assert sum(1 for _ in stream) == count - 1


def test_a_loop_that_is_left_stops_the_run_and_the_next_call_goes_on(fake_stream: Stream) -> None:
    for one in fake_stream(list(rows(40, "SLEEP")), batch_size=1):
        assert one.ok
        break
    gc.collect()
    stream = fake_stream(list(rows(3, "SLEEP")), batch_size=1)  # it waits for the end of the first one
    assert sum(one.ok for one in stream) == 3
    assert stream.outcome is not None
    assert stream.outcome.report.skipped >= 1


def test_a_stream_that_is_left_keeps_nothing(
    fake_stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    closed: list[str] = []

    def source() -> Iterator[Any]:
        try:
            yield from rows(500, "SLEEP")
        finally:
            closed.append(threading.current_thread().name)

    for given in (source(), list(rows(500, "SLEEP"))):
        for one in fake_stream(given, batch_size=1, output=None):
            assert one.image is not None
            break
        assert closed == [threading.current_thread().name]
        del one
        end = time.monotonic() + 30
        while (any(folder.iterdir()) or _living) and time.monotonic() < end:
            gc.collect()
            time.sleep(0.05)
        assert not any(folder.iterdir())
        assert not _living


def test_the_one_picture_is_there_when_its_result_comes(fake_stream: Stream, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    stream = fake_stream(tmp_path / "a.png", prompt="x", output=tmp_path / "new.png")
    (size,) = [one.image.size for one in stream if one.image is not None]
    assert size == (60, 40)
    assert stream.outcome is not None
    assert [one.path for one in stream.outcome] == [tmp_path / "new.png"]
    failing = fake_stream(tmp_path / "a.png", prompt="FAIL-NAN", output=tmp_path / "other.png")
    assert [one.error_code for one in failing] == ["not_finite"]


def test_two_streams_into_one_folder(fake_stream: Stream) -> None:
    first = fake_stream(list(rows(40, "SLEEP")), batch_size=1)
    next(first)
    with pytest.raises(UsageError, match="a stream of this program still edits into"):
        next(fake_stream(list(rows(3)), batch_size=1))
    first.close()


def test_another_thread_may_stop_it(fake_stream: Stream) -> None:
    stream = fake_stream(list(rows(60, "SLEEP")), batch_size=1)
    threading.Timer(1.0, stream.stop).start()
    count = sum(1 for _ in stream)
    assert 0 < count < 60
    assert stream.outcome is not None
    assert stream.outcome.report.state == "interrupted"


def test_as_a_context(fake_stream: Stream) -> None:
    with fake_stream(list(rows(60, "SLEEP")), batch_size=1) as stream:
        next(stream)
    assert stream.outcome is not None
    with fake_stream(rows(2)):
        pass  # nothing was asked for, so nothing began


def test_what_stopped_the_run_is_raised_after_the_results(fake_stream: Stream) -> None:
    def broken() -> Iterator[Any]:
        yield from rows(3)
        raise ValueError("cut")

    stream = fake_stream(broken())
    assert sorted(next(stream).id for _ in range(3)) == ["0", "1", "2"]
    with pytest.raises(JoyeditError, match=r"source\[3\]: the iterator raised ValueError: cut"):
        next(stream)
    assert stream.outcome is not None
    assert stream.outcome.exit_code == 1
    with pytest.raises(UsageError, match="no instruction"):
        next(fake_stream([Image.new("RGB", (9, 9))]))


def test_a_generator_that_cannot_be_closed_loses_no_outcome(fake_stream: Stream) -> None:
    def source() -> Iterator[Any]:
        try:
            yield from rows(200, "SLEEP")
        finally:
            raise ValueError("stuck")

    stream = fake_stream(source(), batch_size=1)
    next(stream)
    stream.close()
    assert stream.outcome is not None
    assert any("the iterator raised ValueError when it was closed: stuck" in one for one in stream.outcome.notes)
