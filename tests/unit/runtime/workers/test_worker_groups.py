"""`--parallel`: places in groups, the processes of their ranks, and what becomes of a worker whose group is lost."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from unit.runtime.workers.test_worker import Parent, batch

from joyedit.errors import CheckpointError, DeviceError, JoyeditError, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.fake import FakeBackend
from joyedit.runtime.joyimage import loading
from joyedit.runtime.parallel import follow as follows
from joyedit.runtime.parallel import lead as leads
from joyedit.runtime.parallel.layout import Layout, ParallelName
from joyedit.runtime.parallel.place import Place as RankPlace
from joyedit.runtime.pipeline.worker_stats import FleetStats
from joyedit.runtime.protocol import GroupLost
from joyedit.runtime.workers import fleet as fleets
from joyedit.runtime.workers import follower, group, messages, worker
from joyedit.runtime.workers.fleet import Fleet, name_of_device
from joyedit.runtime.workers.group import Group
from joyedit.runtime.workers.grouping import HEADS, grouped, heads_of, in_words
from joyedit.runtime.workers.place import Place
from joyedit.runtime.workers.wire import receive, send

PAIR = Layout(guidance=2)
NANO = RunConfig(output=Path("out"), model="nano", device="cpu")


def on_gpus(count: int) -> tuple[Place, ...]:
    return tuple(Place(number=number, devices=(str(number),), threads=2) for number in range(count))


@pytest.mark.parametrize(
    ("wish", "items", "gpus", "words"),
    [
        ("data", 1, 2, "2 workers (data)"),
        ("auto", None, 2, "2 workers (data)"),
        ("auto", 2, 2, "2 workers (data)"),
        ("auto", 1, 2, "1 group of 2 x GPU (guidance 2)"),
        ("auto", 2, 4, "2 groups of 2 x GPU (guidance 2)"),
        ("guidance", 9, 4, "2 groups of 2 x GPU (guidance 2)"),
        ("sequence", 9, 3, "1 group of 3 x GPU (sequence 3)"),
    ],
)
def test_how_devices_are_grouped(wish: ParallelName, items: int | None, gpus: int, words: str) -> None:
    config = RunConfig(output=Path("out"), expected_items=items)
    places = grouped(on_gpus(gpus), wish, config)
    assert in_words(places) == words
    assert [device for place in places for device in place.devices] == [str(number) for number in range(gpus)]
    assert [place.number for place in places] == list(range(len(places)))
    assert {place.threads for place in places} == {2}


def test_what_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(UsageError, match="pairs of GPUs, and 3 are given"):
        grouped(on_gpus(3), "guidance", NANO)
    with pytest.raises(UsageError, match="it is off for all items"):
        grouped(on_gpus(2), "guidance", RunConfig(output=Path("out"), expected_guidance=False))
    with pytest.raises(UsageError, match="divides 6 attention heads, and 8 GPUs are given"):
        grouped(on_gpus(8), "sequence", NANO)


def test_heads_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    assert heads_of(NANO) == 6
    assert heads_of(RunConfig(output=Path("out"))) == HEADS
    assert heads_of(RunConfig(output=Path("out"), model=str(tmp_path / "nowhere"))) == HEADS


def test_the_name_of_a_groups_devices() -> None:
    assert name_of_device("2 x cuda (NVIDIA H200)") == "NVIDIA H200"
    assert name_of_device("2 x cpu (1 threads)") == name_of_device("2 x cpu") == "cpu"


class Left:
    """What is called in place of the end of the process."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.event = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.event.set()


def lead_with(
    monkeypatch: pytest.MonkeyPatch, code: str, found: Callable[[RunConfig, RankPlace, Any], Any]
) -> tuple[Group, Left]:
    """A group whose other rank runs this code, and whose rank 0 does what `found` does."""
    monkeypatch.setattr(group, "command", lambda module: [sys.executable, "-c", code])
    monkeypatch.setattr(leads, "lead", found)
    monkeypatch.setattr(loading, "load_backend", lambda config: "loaded")
    left = Left()
    return Group(RunConfig(output=Path("out"), device="cuda"), PAIR, left), left


def test_the_other_ranks_hear_where_they_belong_and_end_with_rank_0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = f"""
import sys
from joyedit.runtime.workers.wire import receive
config, place = receive(sys.stdin.buffer)
open({str(tmp_path / "heard")!r}, "w").write(f"{{config.device}} {{place.rank}} {{place.device}} {{place.layout}}")
sys.stdin.buffer.read()
"""
    seen: list[RankPlace] = []

    def found(config: RunConfig, place: RankPlace, load: Any) -> Any:
        seen.append(place)
        return load(config)

    made, left = lead_with(monkeypatch, code, found)
    assert made.lead() == "loaded"  # type: ignore[comparison-overlap]
    assert (seen[0].rank, seen[0].device, seen[0].layout) == (0, 0, PAIR)
    assert seen[0].folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(group, "ENDING", 60.0)
    made.end()
    assert made._others[0].returncode == 0
    assert (tmp_path / "heard").read_text() == "cuda 1 1 guidance 2"
    assert not seen[0].folder.exists()
    made.end()
    assert left.codes == []


@pytest.mark.parametrize(
    ("code", "is_linked", "how"),
    [
        ("import sys; sys.exit(5)", False, "exit code 5"),
        ("import os; os.kill(os.getpid(), 9)", True, "killed by signal 9"),
        ("import sys; sys.exit(1)", True, "exit code 1"),
    ],
)
def test_a_rank_that_dies_ends_the_group(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], code: str, is_linked: bool, how: str
) -> None:
    monkeypatch.setattr(group, "PATIENCE", 0.0 if how == "exit code 1" else 600.0)
    folders: list[Path] = []

    def found(config: RunConfig, place: RankPlace, load: Any) -> Any:
        folders.append(place.folder)
        return load(config) if is_linked else None

    made, left = lead_with(monkeypatch, "import sys; sys.stdin.buffer.read(8); " + code, found)
    made._are_linked = is_linked  # a rank may be quicker than rank 0 here
    made.lead()
    assert left.event.wait(60)
    assert left.codes == [1]
    assert f"rank 1 of the group died ({how})" in capfd.readouterr().err
    assert not folders[0].exists()


def test_what_rank_0_hears_itself_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that could not load has said so: the error reaches the parent."""

    def found(config: RunConfig, place: RankPlace, load: Any) -> Any:
        made._others[0].wait()
        raise DeviceError("rank 1: no room")

    made, left = lead_with(monkeypatch, f"import sys; sys.exit({follower.TOLD})", found)
    with pytest.raises(DeviceError, match="rank 1: no room"):
        made.lead()
    made.end()
    assert left.codes == []


def test_a_rank_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = lead_with(monkeypatch, "", lambda config, place, load: None)
    monkeypatch.setattr(group, "command", lambda module: ["/nowhere/python"])
    with pytest.raises(JoyeditError, match="cannot start rank 1 of a group: No such file or directory"):
        made.lead()
    made.end()


def test_a_follower_follows_and_ends_when_rank_0_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = Left()
    monkeypatch.setattr(follower.os, "_exit", left)
    heard: list[Any] = []
    monkeypatch.setattr(follows, "follow", lambda *given: heard.append(given))
    folder = tmp_path / "meeting"
    folder.mkdir()
    given = NANO, RankPlace(rank=1, layout=PAIR, folder=folder)
    inbox, outbox = os.pipe()
    with os.fdopen(inbox, "rb") as reading, os.fdopen(outbox, "wb") as writing:
        send(writing, given)
        follower.Following().serve(reading)
        assert heard[0][:2] == given
        assert folder.exists()
        writing.close()
        assert left.event.wait(60)
    assert left.codes == [0]
    assert not folder.exists()
    follower.Following().serve(io.BytesIO())
    assert len(heard) == 1


@pytest.mark.parametrize(("error", "code"), [(None, 0), (CheckpointError("torn"), follower.TOLD), (ValueError(), 1)])
def test_how_a_follower_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception | None, code: int
) -> None:
    def load(config: RunConfig) -> None:
        if error is not None:
            raise error

    def serve(self: follower.Following, inbox: BinaryIO) -> None:
        if isinstance(error, ValueError):
            raise error
        try:
            self.load(NANO)
        except CheckpointError as caught:
            seen.append(caught)
            raise

    seen: list[Exception] = []
    left = Left()
    monkeypatch.setattr(loading, "load_backend", load)
    monkeypatch.setattr(follower.Following, "serve", serve)
    monkeypatch.setattr(follower, "begin", lambda: (io.BytesIO(), io.BytesIO()))
    monkeypatch.setattr(follower.os, "_exit", left)
    follower.main()
    assert left.codes == [code]
    assert seen == [error] * (code == follower.TOLD), "rank 0 is told the error itself"
    assert ("ValueError" in capsys.readouterr().err) == (code == 1)


class FakeGroup:
    """Stands for `Group`: one fake backend."""

    def __init__(self, config: RunConfig, layout: Layout, leave: Callable[[int], None]) -> None:
        assert layout == PAIR
        self.config = config
        made.append(self)
        self.ended = 0

    def lead(self) -> FakeBackend:
        if self.config.dtype == "bf16":
            raise GroupLost("rank 1 of the group did not come")
        return FakeBackend(self.config)

    def end(self) -> None:
        self.ended += 1


made: list[FakeGroup] = []


def said(monkeypatch: pytest.MonkeyPatch, *more: object, **start: Any) -> tuple[list[Any], GroupLost | None]:
    """What a worker with a group says until it ends, and the error of that end."""
    monkeypatch.setattr(worker, "Group", FakeGroup)
    made.clear()
    inbox, outbox = io.BytesIO(), io.BytesIO()
    config = start.pop("config", RunConfig(output=Path("out"), model="fake"))
    for message in (messages.Start("edit", config, layout=PAIR, **start), *more):
        send(inbox, message)
    inbox.seek(0)
    lost = None
    try:
        worker.serve(inbox, outbox, lambda code: None)
    except GroupLost as error:
        lost = error
    assert made[0].ended
    outbox.seek(0)
    found = []
    while (message := receive(outbox)) is not None:
        found.append(message)
    return found, lost


@pytest.mark.parametrize("out_of_memory", [True, False])
def test_a_worker_whose_group_is_lost_ends(monkeypatch: pytest.MonkeyPatch, out_of_memory: bool) -> None:
    def fail(*given: object) -> None:
        raise GroupLost("out of step", out_of_memory=out_of_memory)

    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    monkeypatch.setattr(FakeBackend, "denoise", fail)
    found, lost = said(monkeypatch, batch("a", "b", "c"))
    assert lost is not None
    assert [one for one in found if isinstance(one, messages.TooLarge)] == [messages.TooLarge(3)] * out_of_memory
    assert not [one for one in found if isinstance(one, (messages.RunFault, messages.Failed))], "no item is blamed"


def test_a_group_that_is_lost_while_it_loads_may_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, lost = said(monkeypatch, config=RunConfig(output=Path("out"), dtype="bf16"))
    assert lost is not None
    assert not [one for one in found if isinstance(one, messages.NotLoaded)]


def test_a_new_group_takes_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBackend, "exchanged_bytes", lambda self: 7, raising=False)
    monkeypatch.setattr(worker, "Group", FakeGroup)
    made.clear()
    parent = Parent()
    parent.say(messages.Start("edit", RunConfig(output=Path("out"), model="fake"), layout=PAIR, most=2))
    parent.say(batch("a", "b", "c", at_once=True))
    done = [parent.hear(messages.BatchDone) for _ in range(2)]
    parent.close()
    assert [(one.images, one.exchanged) for one in done] == [(2, 7), (1, 7)]
    assert (parent.left, made[0].ended > 0) == ([0], True)


def test_a_fleet_plans_smaller_batches_after_a_group_had_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    fleet = Fleet((Place(number=0),), RunConfig(output=Path("out"), model="fake"))
    try:
        assert fleet.auto_batch_size((256, 256)) == 4
        for size, most in ((4, 2), (9, 2), (1, 1)):
            assert fleet.heard(fleet.members[0], messages.TooLarge(size))
            assert fleet.auto_batch_size((256, 256)) == fleet._start.most == most
        assert fleet.notes[0] == "worker 0 had no room for 4 items at once; batches have 2 at most"
    finally:
        fleet.close()


def test_a_fleet_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process of each group plans with its share of the memory."""
    counts: list[int] = []
    plain = fleets.config_of

    def config_of(config: RunConfig, place: Place, count: int) -> RunConfig:
        counts.append(count)
        return plain(config, place, count)

    info = FakeBackend(RunConfig(output=Path("out"), model="fake")).info
    told = messages.Loaded(fleets.replace(info, device="2 x cuda (NVIDIA H200)"), 1)
    monkeypatch.setattr(fleets, "config_of", config_of)
    monkeypatch.setattr(Fleet, "_first_loaded", lambda self: told)
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    fleet = Fleet(
        grouped(on_gpus(4), "guidance", RunConfig(output=Path("out"))), RunConfig(output=Path("out"), model="fake")
    )
    fleet.close()
    assert counts == [4]
    assert fleet.info.device == "2 groups of 2 x NVIDIA H200 (guidance 2)"
    assert [member.place.name for member in fleet.members] == ["worker 0 (GPU 0, 1)", "worker 1 (GPU 2, 3)"]
    assert fleet.members[1].place.environment({})["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_the_report_adds_up_what_was_exchanged() -> None:
    stats = FleetStats(2)
    for count in (None, 100, 250, 40):  # a new process counts from 0
        stats.workers[0].exchanged_at(count)
    first, second = stats.by_worker(1.0)
    assert (first.exchanged, second.exchanged) == (290, None)
    assert first.text().endswith("sent 0 MiB to the other ranks")
    assert "sent" not in second.text()
