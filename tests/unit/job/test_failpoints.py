"""The switch of the fault tests: off it does nothing, armed it strikes when it was told to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from joyedit.job import failpoints


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


def test_nothing_happens_where_nothing_is_armed() -> None:
    assert not failpoints.armed()
    failpoints.reached("file.rename")


def test_errors_last(monkeypatch: pytest.MonkeyPatch) -> None:
    failpoints.arm("file.rename:2:enospc")
    assert failpoints.armed()
    failpoints.reached("file.rename")
    failpoints.reached("file.half")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            failpoints.reached("file.rename")


@pytest.mark.parametrize(
    ("action", "number"),
    [("", signal.SIGKILL), (":int", signal.SIGINT), (":term", signal.SIGTERM), (":drop", signal.SIGINT)],
)
def test_a_signal_comes_once(monkeypatch: pytest.MonkeyPatch, action: str, number: signal.Signals) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    failpoints.arm(f"any:2{action}")
    for point in ("lock", "read", "file.half"):
        failpoints.reached(point)  # type: ignore[arg-type]
    assert sent == [(os.getpid(), number)]
