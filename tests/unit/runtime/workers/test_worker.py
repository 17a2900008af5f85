"""A worker in this process, on two pipes: what it hears, and what it says."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import CheckpointError, DeviceError, ItemError, ManifestError, Problem, UsageError
from joyedit.job.run_config import RunConfig
from joyedit.job.spec import EditItem, Origin, Sampling, SizedItem
from joyedit.runtime.fake import FakeBackend, FakePending
from joyedit.runtime.protocol import HostTimestamp, ReadyBatch
from joyedit.runtime.workers import messages
from joyedit.runtime.workers.faults import Fault, InWorkerError
from joyedit.runtime.workers.relay import DeviceLostError, Outbox, Relay, RelayClock
from joyedit.runtime.workers.wire import receive, send
from joyedit.runtime.workers.worker import serve

CONFIG = RunConfig(output=Path("out"), model="fake")


class Parent:
    """The other ends of the pipes."""

    def __init__(self) -> None:
        inbox, to_worker = os.pipe()
        from_worker, outbox = os.pipe()
        self.to_worker, self.from_worker = os.fdopen(to_worker, "wb"), os.fdopen(from_worker, "rb")
        self._files = os.fdopen(inbox, "rb"), os.fdopen(outbox, "wb")
        self.left: list[int] = []
        self._has_left = threading.Event()
        self._thread = threading.Thread(target=serve, args=(*self._files, self._leave))
        self._thread.start()

    def _leave(self, code: int) -> None:
        self.left.append(code)
        self._has_left.set()

    def say(self, message: object) -> None:
        send(self.to_worker, message)

    def hear(self, *kinds: type) -> Any:
        """The next message of these kinds; other ones are passed over."""
        while (message := receive(self.from_worker)) is not None:
            if isinstance(message, kinds):
                return message
        raise AssertionError("the worker said no more")

    def close(self) -> None:
        self.to_worker.close()
        rest = threading.Thread(target=self._hear_the_rest)
        rest.start()
        self._has_left.wait(60)
        self._thread.join(60)
        for file in reversed(self._files):
            file.close()
        rest.join(60)
        self.from_worker.close()

    def _hear_the_rest(self) -> None:
        while receive(self.from_worker) is not None:
            pass


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parent]:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    made = Parent()
    yield made
    made.close()
    assert made.left == [0]


def batch(*instructions: str, at_once: bool = False) -> messages.EditBatch:
    shown = Image.new("RGB", (256, 256), (9, 8, 7))
    sized = [
        SizedItem(
            item=EditItem(
                id=text, images=(Path("x.png"),), instruction=text, sampling=Sampling(steps=2), basesize=256, size=None,
                output="x.png", origin=Origin(file="test"), columns={"much": "text"}, other_ids=iter(()),
            ),
            target=(256, 256),
            references=((256, 256),),
        )
        for text in instructions
    ]  # fmt: skip
    return messages.EditBatch.of(ReadyBatch.of(sized, [(shown,)] * len(sized)), at_once=at_once)


def test_a_batch_comes_back_as_pictures_times_and_counts(parent: Parent) -> None:
    parent.say(messages.Start("edit", CONFIG))
    assert parent.hear(messages.Started).clock > 0
    loaded = parent.hear(messages.Loaded)
    assert loaded.info.layout == "fake"
    sent = batch("one", "two")
    parent.say(sent)
    made = [parent.hear(messages.Made) for _ in range(2)]
    assert [one.id for one in made] == ["one", "two"]
    assert set(made[0].seconds) == {"read", "encode", "denoise", "decode"}
    backend = FakeBackend(CONFIG)
    plain = backend.decode(backend.encode(sent.batch()))
    assert [one.pixels.picture().tobytes() for one in made] == [picture.tobytes() for picture in plain]


def test_items_of_a_batch_share_a_picture_on_the_way() -> None:
    sent = batch("one", "two")
    assert sent.items[0][1][0] is sent.items[1][1][0]
    again = sent.batch()
    assert again.items[0].pictures[0] is again.items[1].pictures[0]
    assert again.items[0].item.images == ()
    assert again.items[0].item.columns is None


def test_what_fails_comes_back_with_its_code(parent: Parent) -> None:
    parent.say(messages.Start("edit", CONFIG))
    parent.say(batch("FAIL-BATCH", "fine", "FAIL-NAN"))
    assert "go one by one" in parent.hear(messages.Log).text
    failed = parent.hear(messages.Failed)
    assert (failed.id, failed.fault.code) == ("FAIL-BATCH", "edit_failed")
    assert "RuntimeError" in failed.fault.trace
    broken = parent.hear(messages.Broken)
    assert (broken.id, broken.fault.code, broken.fault.trace) == ("FAIL-NAN", "not_finite", "")
    assert set(broken.seconds) == {"read", "encode", "denoise", "decode"}


def test_batches_wait_to_be_encoded_together_until_they_are_told_not_to(parent: Parent) -> None:
    parent.say(messages.Start("edit", RunConfig(output=Path("out"), model="fake", offload="none")))
    assert parent.hear(messages.Loaded).encode_ahead == 4
    parent.say(batch("a"))
    parent.say(batch("b"))
    parent.say(messages.Flush())
    assert [parent.hear(messages.Made).id for _ in range(2)] == ["a", "b"]
    parent.say(batch("c", at_once=True))
    assert parent.hear(messages.Made).id == "c"


def test_a_source_that_waits_gets_each_batch_at_once(parent: Parent) -> None:
    config = RunConfig(output=Path("out"), model="fake", offload="none")
    parent.say(messages.Start("edit", config, one_by_one=True))
    assert parent.hear(messages.Loaded).encode_ahead == 1
    parent.say(batch("a"))
    assert parent.hear(messages.Made).id == "a"


def test_told_to_stop_it_gives_back_what_it_has_not_begun(parent: Parent) -> None:
    parent.say(messages.Start("edit", RunConfig(output=Path("out"), model="fake", offload="none")))
    parent.say(batch("a", "b"))
    parent.say(messages.StopWork())
    assert sorted(parent.hear(messages.Returned).ids) == ["a", "b"]


def test_times_are_counted_when_a_batch_is_over_and_steps_now_and_then(parent: Parent) -> None:
    parent.say(messages.Start("edit", CONFIG))
    parent.say(batch("a", "b"))
    assert parent.hear(messages.AllThere).at > 0
    assert parent.hear(messages.Step).total == 2
    done = parent.hear(messages.BatchDone)
    assert (done.images, set(done.spans)) == (2, {"encode", "denoise", "decode"})
    assert set(done.stages) <= {"encode", "denoise", "decode"}


def test_questions_are_answered(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.say(messages.Start("edit", CONFIG))
    parent.hear(messages.Loaded)
    parent.say(messages.Ask(5, "batch size", (256, 256)))
    assert parent.hear(messages.Answer) == messages.Answer(5, 4, None)
    parent.say(messages.Ask(6, "matmul"))
    assert parent.hear(messages.Answer) == messages.Answer(6, None, None)

    def fail(self: FakeBackend, target: tuple[int, int]) -> int:
        raise DeviceError("no room")

    monkeypatch.setattr(FakeBackend, "auto_batch_size", fail)
    parent.say(messages.Ask(7, "batch size", (256, 256)))
    answer = parent.hear(messages.Answer)
    assert isinstance(answer.fault.of_run(), DeviceError)


def test_a_model_that_cannot_be_loaded(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", "checkpoint")
    parent.say(messages.Start("edit", CONFIG))
    error = parent.hear(messages.NotLoaded).fault.of_run()
    assert isinstance(error, CheckpointError)
    assert str(error) == "the fake checkpoint is not there"


def test_an_error_of_the_run_comes_while_it_edits(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", "late")
    parent.say(messages.Start("edit", CONFIG))
    parent.say(batch("a"))
    assert isinstance(parent.hear(messages.RunFault).fault.of_run(), CheckpointError)


def broken_device(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """From this stage of the first batch on, the device answers nothing."""
    lost = threading.Event()

    def fail(*given: object) -> None:
        lost.set()
        raise RuntimeError("CUDA error: unspecified launch failure")

    class Timestamp(HostTimestamp):
        def seconds(self) -> float:
            if lost.is_set():
                fail()
            return super().seconds()

    monkeypatch.setattr(FakeBackend, "timestamp", lambda self, stage: Timestamp())
    monkeypatch.setattr(FakePending if stage == "picture" else FakeBackend, stage, fail)


def test_a_worker_whose_device_is_lost_dies_and_blames_no_item(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_device(monkeypatch, "denoise")
    made = FakeBackend(CONFIG)
    relay = Relay(Outbox(io.BytesIO()), RelayClock(), set(), made)
    sized = batch("a").batch().items[0].sized
    relay.failed(sized, ItemError("too_long", "x"), "edit_failed")
    relay.failed(sized, RuntimeError("another fault"), "edit_failed")
    with pytest.raises(RuntimeError) as caught:
        made.denoise(made.encode(batch("a").batch()), lambda done, total: None)
    with pytest.raises(DeviceLostError, match="the device is lost: CUDA error"):
        relay.failed(sized, caught.value, "edit_failed")


def test_a_device_that_is_lost_before_the_pictures_came(
    parent: Parent, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken_device(monkeypatch, "picture")
    parent.say(messages.Start("edit", CONFIG))
    parent.say(batch("a"))
    while not parent.left:
        pass
    assert parent.left == [1]
    assert "the device is lost" in capfd.readouterr().err
    parent.left.clear()


def test_one_question_is_answered(parent: Parent) -> None:
    parent.say(messages.Start("describe", CONFIG))
    assert parent.hear(messages.Told).value.layout == "fake"


def test_torch_is_asked_how_many_gpus_there_are(parent: Parent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    parent.say(messages.Start("count"))
    assert parent.hear(messages.Told).value == 3


def test_a_parent_that_is_gone_at_once() -> None:
    inbox, to_worker = os.pipe()
    os.close(to_worker)
    with os.fdopen(inbox, "rb") as file, open(os.devnull, "wb") as nothing:
        serve(file, nothing)


def test_a_message_that_ends_in_the_middle_is_the_end(tmp_path: Path) -> None:
    path = tmp_path / "messages"
    with path.open("wb") as file:
        send(file, "whole")
        send(file, "torn")
    path.write_bytes(path.read_bytes()[:-1])
    with path.open("rb") as file:
        assert receive(file) == "whole"
        assert receive(file) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CheckpointError("damaged"), CheckpointError),
        (ManifestError([Problem("bad")]), UsageError),
        (ValueError("odd"), InWorkerError),
    ],
)
def test_errors_of_the_run_keep_their_kind(error: Exception, kind: type[Exception]) -> None:
    again = Fault.of(error).of_run()
    assert type(again) is kind
    assert str(error) in str(again)


def test_errors_of_items_keep_their_code_and_their_traceback() -> None:
    item = Fault.of(ItemError("too_long", "it is too long")).of_item()
    assert (item.code, str(item), item.__cause__) == ("too_long", "it is too long", None)
    other = Fault.of(RuntimeError("the device fell off"), "edit_failed").of_item()
    assert (other.code, str(other)) == ("edit_failed", "RuntimeError: the device fell off")
    assert isinstance(other.__cause__, InWorkerError)
