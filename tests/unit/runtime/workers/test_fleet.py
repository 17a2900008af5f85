"""Worker processes with the fake: started, asked, killed, started again, given up."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joyedit.errors import CheckpointError, DeviceError, JoyeditError
from joyedit.job.pictures import machine_memory
from joyedit.job.run_config import RunConfig
from joyedit.runtime.pipeline.threads import StoppedError
from joyedit.runtime.workers import fleet as fleets
from joyedit.runtime.workers import messages, process
from joyedit.runtime.workers.faults import InWorkerError
from joyedit.runtime.workers.fleet import Fleet, Member, config_of, of_several
from joyedit.runtime.workers.load import describer, fleet_loader
from joyedit.runtime.workers.one_question import ask_worker
from joyedit.runtime.workers.place import Place
from joyedit.runtime.workers.process import WorkerEndedError, WorkerProcess

CONFIG = RunConfig(output=Path("out"), model="fake", workers=2)
PLACES = (Place(number=0), Place(number=1))


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet(PLACES, CONFIG)
    yield made
    made.close()


def hear(fleet: Fleet, until: Callable[[], bool]) -> None:
    """Take messages, as the thread of an editor does."""
    while not until():
        event = fleet.events.get(timeout=60)
        if event is None:
            continue
        member = fleet.member(event[0])
        if isinstance(event[1], messages.Ended):
            fleet.ended(member, event[1])
        else:
            fleet.heard(member, event[1])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_both_workers_load_and_end(fleet: Fleet) -> None:
    hear(fleet, lambda: len(fleet.ready()) == 2)
    assert fleet.info.device == "cpu (2 workers)"
    assert fleet.encode_ahead == 1
    assert (fleet.peak_memory(), fleet.predicted_peak()) == (None, None)
    fleet.members[1].peak = 5
    assert fleet.peak_memory() == 5
    pids = [member.process.pid for member in fleet.members]
    assert len({os.getsid(pid) for pid in pids} | {os.getsid(0)}) == 3, "each has a session of its own"
    fleet.close()
    assert all(is_gone(pid) for pid in pids)


def test_a_worker_is_asked_for_the_batch_size_once(fleet: Fleet) -> None:
    assert fleet.auto_batch_size((256, 256)) == 4
    hear(fleet, lambda: len(fleet.ready()) == 2)
    for member in fleet.members:
        member.loaded = None
    assert fleet.auto_batch_size((256, 256)) == 4, "nobody needs to be asked again"
    assert fleet.matmul_tflops() is None


def test_few_items_are_shared_out_and_need_few_workers() -> None:
    three = (*PLACES, Place(number=2))
    few = Fleet(three, RunConfig(output=Path("out"), model="fake", workers=3, expected_items=2))
    try:
        assert len(few.members) == 2
        assert few.auto_batch_size((256, 256)) == 1
    finally:
        few.close()


def test_a_dead_worker_starts_again_and_what_it_was_asked_is_not_answered(fleet: Fleet) -> None:
    hear(fleet, lambda: len(fleet.ready()) == 2)
    member = fleet.members[1]
    os.kill(member.process.pid, signal.SIGSTOP)
    answer = member.process.ask("matmul")
    os.kill(member.process.pid, signal.SIGKILL)
    with pytest.raises(WorkerEndedError):
        answer.result(timeout=60)
    with pytest.raises(WorkerEndedError):
        member.process.ask("matmul").result(timeout=60)
    before = member.process
    hear(fleet, lambda: member.process is not before and member.is_ready)
    assert member.deaths == 1
    assert list(fleet.notes) == ["worker 1 died (killed by SIGKILL) and starts again"]
    assert len(fleet.ready()) == 2


def test_a_worker_that_dies_again_and_again_is_left_out(fleet: Fleet) -> None:
    hear(fleet, lambda: len(fleet.ready()) == 2)
    member = fleet.members[1]
    for _ in range(fleets.BARREN_DEATHS - 1):
        before = member.process
        before.kill()
        hear(fleet, lambda: member.process is not before and member.is_ready)  # noqa: B023
    member.process.kill()
    hear(fleet, lambda: member.is_given_up)
    assert "worker 1 is left out: it died 3 times without a finished item" in fleet.notes[-1]
    assert fleet.ready() == [fleet.members[0]]
    fleet.members[0].barren_deaths = fleets.BARREN_DEATHS
    fleet.members[0].process.kill()
    with pytest.raises(DeviceError, match="no worker process is left; worker 0: it died"):
        hear(fleet, lambda: False)
    with pytest.raises(DeviceError, match="no worker process is left"):
        fleet.auto_batch_size((512, 512))


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("checkpoint", CheckpointError, "^the fake checkpoint is not there$"),
        ("checkpoint:0", CheckpointError, "^the fake checkpoint is not there$"),
        ("device", DeviceError, "^the fake device is not there$"),
        ("bug", InWorkerError, "the fake has a bug"),
        ("kill", DeviceError, r"no worker process is left; worker \d: it died 2 times while it loaded"),
    ],
)
def test_errors_of_loading(monkeypatch: pytest.MonkeyPatch, fault: str, error: type[Exception], message: str) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", fault)
    if ":" in fault:  # the other one must not be ready before
        monkeypatch.setattr(Fleet, "_first_loaded", lambda self: hear(self, lambda: False))
    with pytest.raises(error, match=message):
        Fleet(PLACES, CONFIG)


@pytest.mark.parametrize(
    ("fault", "why"), [("device:1", "the fake device is not there"), ("kill:1", "it died 2 times while it loaded")]
)
def test_one_worker_that_cannot_load_is_left_out(monkeypatch: pytest.MonkeyPatch, fault: str, why: str) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", fault)
    fleet = Fleet(PLACES, CONFIG)
    try:
        hear(fleet, lambda: fleet.members[1].is_given_up and fleet.members[0].is_ready)
        assert f"worker 1 is left out: {why}" in fleet.notes[-1]
    finally:
        fleet.close()


def test_after_the_end_nobody_waits_for_an_answer(fleet: Fleet) -> None:
    hear(fleet, lambda: len(fleet.ready()) == 2)
    for member in fleet.members:
        member.loaded = None
    waiting = threading.Timer(0.05, fleet.close)
    waiting.start()
    with pytest.raises(StoppedError):
        fleet.auto_batch_size((512, 512))
    waiting.join()


def test_other_kernels_are_told(fleet: Fleet) -> None:
    hear(fleet, lambda: len(fleet.ready()) == 2)
    info = fleet.info
    fleet._compare(fleet.members[1], type(info)(**{n: getattr(info, n) for n in info.__slots__} | {"attention": "fa4"}))
    assert list(fleet.notes) == ["worker 1 works in fp32 with attention fa4"]


def test_a_process_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(JoyeditError, match="cannot start worker 0: No such file or directory"):
        Fleet(PLACES, CONFIG)


def alone(code: str, monkeypatch: pytest.MonkeyPatch) -> tuple[WorkerProcess, messages.Ended]:
    """A process that runs this code in place of a worker, and how it ended."""
    monkeypatch.setattr(process, "command", lambda module: [sys.executable, "-c", code])
    events: queue.SimpleQueue[tuple[WorkerProcess, object] | None] = queue.SimpleQueue()
    made = WorkerProcess(Place(number=0), messages.Start("count"), events)
    event = events.get(timeout=60)
    assert event is not None
    assert isinstance(event[1], messages.Ended)
    made.close()
    return made, event[1]


def test_what_a_worker_says_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ended = alone("import sys; print('oh\\x1b no', file=sys.stderr); sys.exit(7)", monkeypatch)
    assert ended.how == "exit code 7"
    assert list(made.printed) == ["oh\\x1b no"]


def test_a_worker_that_says_something_else_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = alone("import os, time; os.write(1, bytes(7) + b'\\x01' + b'x' * 8); os.close(1)", monkeypatch)
    assert is_gone(made.pid)
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    made, ended = alone("import os, time; os.write(1, b'\\x03' + bytes(7) + b'odd'); time.sleep(600)", monkeypatch)
    assert ended.how == "killed by SIGKILL"
    assert "its messages cannot be read" in made.printed[0]


def test_a_worker_is_gone_although_a_child_holds_its_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.05)
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, file=sys.stderr)"
    monkeypatch.setattr(process, "command", lambda module: [sys.executable, "-c", code])
    events: queue.SimpleQueue[tuple[WorkerProcess, object] | None] = queue.SimpleQueue()
    made = WorkerProcess(Place(number=0), messages.Start("count"), events)
    while events.empty():
        made.look()
    event = events.get()
    assert event is not None
    assert event[1] == messages.Ended("exit code 0")
    made.look()
    os.kill(int(made.printed[0]), signal.SIGKILL)
    made.close()
    assert events.empty(), "its end is told once"


def test_a_process_answers_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    info = describer(PLACES)(CONFIG)
    assert (info.layout, info.device) == ("fake", "cpu")
    assert ask_worker("describe", PLACES[0], CONFIG).identity == "fake fake"
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", "device")
    with pytest.raises(DeviceError, match="the fake device is not there"):
        ask_worker("describe", PLACES[0], CONFIG)
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", "kill")
    with pytest.raises(InWorkerError, match="a process that was to look at the model died"):
        ask_worker("describe", PLACES[0], CONFIG)


def test_nano_is_described_in_another_process() -> None:
    info = describer(PLACES)(RunConfig(output=Path("out"), model="nano", device="cpu"))
    assert (info.layout, info.dtype) == ("diffusers", "fp32")
    assert "2 x" in info.device or "2 workers" in info.device


def test_a_loader_makes_a_fleet() -> None:
    made = fleet_loader(PLACES, one_by_one=True)(CONFIG)
    assert isinstance(made, Fleet)
    made.close()


def test_clocks_are_compared() -> None:
    assert process._offset(10.0, 10.5, 11.0) == 0.0
    assert process._offset(10.0, 3.0, 11.0) == 7.5
    assert process._how(-250) == "killed by signal 250"


def test_devices_of_several() -> None:
    assert of_several("cuda (NVIDIA H200)", 2) == "cuda (2 x NVIDIA H200)"
    assert of_several("cpu", 3) == "cpu (3 workers)"
    assert of_several("cuda (NVIDIA H200)", 1) == "cuda (NVIDIA H200)"


def test_workers_share_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: 42_000_000_000)
    made = config_of(CONFIG, Place(number=0, devices=("0",)), 4)
    assert (made.host_memory, made.device, made.workers) == (12_000_000_000, "cuda", 1)
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: None)
    assert config_of(CONFIG, Place(number=0), 4).host_memory is None


def test_a_given_up_member_is_not_ready(fleet: Fleet) -> None:
    member: Member = fleet.members[0]
    member.is_given_up = True
    assert not member.is_ready
