"""When a run stops before its end: signals and the end of the time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from joyedit.runtime.pipeline.stop import Stop


def test_the_time_ends() -> None:
    now = [100.0]
    stop = Stop(60, now=lambda: now[0])
    assert not stop()
    now[0] = 159.9
    assert (stop(), stop.reason) == (False, None)
    now[0] = 160.0
    assert (stop(), stop.reason) == (True, "out_of_time")


def test_without_a_limit_there_is_no_end() -> None:
    assert not Stop(now=lambda: 1e18)()


def test_the_first_signal_is_noted_and_told() -> None:
    stop, message = Stop(), []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop.signals(message.append):
        stop.started = True
        signal.raise_signal(signal.SIGTERM)
        assert (stop(), stop.reason) == (True, "interrupted")
    assert message == ["interrupted"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_before_there_is_a_batch_a_signal_ends_it_all() -> None:
    stop = Stop()
    with stop.signals(lambda reason: None), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().signals(lambda reason: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_takes_no_signals() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Stop().signals(lambda reason: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


_THREE_SIGNALS = """
import signal, sys
from pathlib import Path
from joyedit.runtime.pipeline.stop import Stop

def last_words():
    signal.raise_signal(signal.SIGTERM)
    Path(sys.argv[1]).write_text("written")

stop = Stop()
stop.before_exit = last_words
with stop.signals(lambda reason: None):
    stop.started = True
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""


def test_a_third_signal_does_not_cut_the_last_words(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _THREE_SIGNALS, tmp_path / "words"], stderr=subprocess.PIPE, text=True
    )
    assert ended.returncode == 130, ended.stderr
    assert "stopped at once" in ended.stderr
    assert (tmp_path / "words").read_text() == "written"
