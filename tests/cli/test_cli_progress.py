"""Progress: plain lines are sparse, and a bar knows the step inside the batch."""

from __future__ import annotations

import pytest

from joyedit.cli.progress import BarMeter, PlainMeter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_at_each_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = PlainMeter(1000, now=clock)
    for _ in range(1000):
        clock.now += 0.001
        meter.item()
    assert capsys.readouterr().err.splitlines() == [
        "250/1000 items, 1e+03 a second, 0.750 s left",
        "500/1000 items, 1e+03 a second, 0.500 s left",
        "750/1000 items, 1e+03 a second, 0.250 s left",
        "1000/1000 items, 1e+03 a second",
    ]


def test_plain_lines_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = PlainMeter(None, now=clock)
    for _ in range(25):
        clock.now += 1
        meter.item()
    clock.now += 5
    meter.step(7, 40)
    meter.step(8, 40)
    assert capsys.readouterr().err.splitlines() == [
        "10 items, 1 a second",
        "20 items, 1 a second",
        "25 items, 0.83 a second, step 7/40",
    ]


def test_the_bar_shows_items_and_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    meter = BarMeter(4)
    meter.step(1, 40)
    meter.item()
    meter.message("hello")
    meter.close()
    message = capsys.readouterr().err
    assert "step 1/40" in message
    assert "hello\n" in message
    assert "1/4" in message


def test_a_bar_for_what_is_there_is_taken_away_again(capsys: pytest.CaptureFixture[str]) -> None:
    meter = BarMeter(None, "checking which items are done", stays=False)
    for _ in range(30):
        meter.skipped()
    meter.message("hello")
    meter.close()
    message = capsys.readouterr().err
    assert "checking which items are done: 30 items" in message
    assert message.rstrip(" \r").endswith("hello") or message.split("\r")[-1].strip() == ""
    counted = BarMeter(40)
    counted.skipped(30)
    counted.item()
    counted.close()
    assert "31/40" in capsys.readouterr().err
