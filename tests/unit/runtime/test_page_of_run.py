"""The page at the end of a run: it is there, and nothing about it changes how the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joyedit.errors import OutputError
from joyedit.job.own_files import PAGE
from joyedit.job.page.build import Building, BuiltPage, build_page
from joyedit.job.results.run_counts import Tally
from joyedit.runtime import page_of_run
from joyedit.runtime.page_of_run import with_page
from joyedit.runtime.pipeline.progress import NoProgress
from joyedit.runtime.run import RunOutcome
from support.pages import MadeFolder, ReadPage
from support.reports import report


class Notes(NoProgress):
    """What is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.stopped: Callable[[], bool] = lambda: False

    def begin(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    made = MadeFolder(tmp_path)
    made.add("a")
    return made.write()


def outcome(state: Any = "complete", seconds: float = 10.0) -> RunOutcome:
    return RunOutcome(exit_code=0, report=replace(report(Tally()), state=state, seconds=seconds))


def test_a_complete_run_has_a_page(out: Path, notes: Notes) -> None:
    ended = with_page(outcome(), out, notes)
    assert ended == replace(outcome(), page=out / PAGE)
    assert notes.said == []
    assert with_page(outcome(), out, None).page == out / PAGE


@pytest.mark.parametrize("state", ["interrupted", "stopped", "running"])
def test_who_stops_waits_for_no_page(out: Path, notes: Notes, state: str) -> None:
    assert with_page(outcome(state), out, notes) == outcome(state)
    assert not (out / PAGE).exists()
    assert notes.said == []


def test_out_of_time_makes_no_small_pictures(out: Path, notes: Notes) -> None:
    assert with_page(outcome("out_of_time"), out, notes).page == out / PAGE
    assert ReadPage(out).pictures() == set()
    assert notes.said == [f"the page lacks 4 small pictures: joyedit view {out} makes them"]


def test_no_records_no_page(tmp_path: Path, notes: Notes) -> None:
    assert with_page(outcome(), tmp_path, notes).page is None
    assert (notes.said, list(tmp_path.iterdir())) == ([], [])


def test_a_strangers_page_is_a_note(out: Path, notes: Notes) -> None:
    (out / PAGE).write_text("mine")
    assert with_page(outcome(), out, notes) == outcome()
    (said,) = notes.said
    assert said.startswith("no page was made: ")
    assert "--page look.html" in said


@pytest.mark.parametrize(
    "error", [OutputError("the disk is full"), RuntimeError("odd"), MemoryError(), OSError(5, "bad disk")]
)
def test_no_fault_of_the_page_is_one_of_the_run(
    out: Path, notes: Notes, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> BuiltPage:
        raise error

    monkeypatch.setattr(page_of_run, "build_page", fail)
    assert with_page(outcome(), out, notes) == outcome()
    assert len(notes.said) == 1
    assert notes.said[0].startswith("no page was made: ")


def test_pictures_that_cannot_be_written_are_a_note(out: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    built = BuiltPage(path=out / PAGE, items=1, made=0, left=1, error=OutputError("No space left on device"))
    monkeypatch.setattr(page_of_run, "build_page", lambda *_: built)
    assert with_page(outcome(), out, notes).page == out / PAGE
    assert notes.said == ["the page lacks 1 small picture: No space left on device"]


def test_a_page_that_takes_too_long_is_given_up(out: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(page_of_run.time, "monotonic", lambda: now[0])

    def look(folder: Path, building: Building) -> BuiltPage:
        assert not building.stopped()
        now[0] += 151
        return build_page(folder, building)

    monkeypatch.setattr(page_of_run, "build_page", look)
    assert with_page(outcome(), out, notes) == outcome()
    assert notes.said == [f"no page was made: joyedit view {out} makes it"]


@pytest.mark.parametrize(("seconds", "least", "most"), [(10.0, 29, 30), (36_000.0, 719, 720)])
def test_the_time_is_bounded(
    out: Path, notes: Notes, seconds: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(page_of_run.time, "monotonic", lambda: now[0])
    found: list[bool] = []

    def look(folder: Path, building: Building) -> BuiltPage:
        for passed in (least, most):
            now[0] = 1000.0 + passed
            found.append(building.hurry())
        building.told(7)
        return BuiltPage(path=folder / PAGE, items=1, made=0, left=0)

    monkeypatch.setattr(page_of_run, "build_page", look)
    with_page(outcome(seconds=seconds), out, notes)
    assert found == [False, True]
    assert notes.said == ["making the page: 7 items so far"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_page_and_not_the_run(
    out: Path, notes: Notes, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)

    def interrupted(folder: Path, building: Building) -> BuiltPage:
        signal.raise_signal(number)
        return build_page(folder, building)

    monkeypatch.setattr(page_of_run, "build_page", interrupted)
    assert with_page(outcome(), out, notes) == outcome()
    assert notes.said == [f"no page was made: joyedit view {out} makes it"]
    assert signal.getsignal(number) == before
    assert not (out / PAGE).exists()
    assert notes.stopped(), "the process waits for no reader of its output either"


def test_more_signals_change_no_more(out: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, building: Building) -> BuiltPage:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)
        return build_page(folder, building)

    monkeypatch.setattr(page_of_run, "build_page", interrupted)
    assert with_page(outcome(), out, notes) == outcome()
    assert len(notes.said) == 1


def test_another_thread_takes_no_signals(out: Path, notes: Notes) -> None:
    found: list[RunOutcome] = []
    thread = threading.Thread(target=lambda: found.append(with_page(outcome(), out, notes)))
    thread.start()
    thread.join()
    assert found[0].page == out / PAGE
