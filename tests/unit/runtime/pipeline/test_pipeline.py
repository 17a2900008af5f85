"""A device that runs behind: what overlaps, what is bounded, and whose fault is whose."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.job.results.records import read_journal
from joyedit.job.run_config import RunConfig
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.passed_over import PassedOver
from joyedit.job.spec import EditItem, Origin, Sampling, Settings
from joyedit.runtime.fake import FakeBackend, FakeLatents, FakePending
from joyedit.runtime.pipeline.edit import RUNNING_BATCHES
from joyedit.runtime.protocol import DeviceStage, OutOfMemory, ReadyBatch
from joyedit.runtime.run import RunOutcome, run

STEP = 0.15


class Later:
    """A timestamp that the device's thread sets."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.at = 0.0

    def set(self) -> None:
        self.at = time.perf_counter()
        self.event.set()

    def reached(self) -> bool:
        return self.event.is_set()

    def seconds(self) -> float:
        assert self.event.wait(20)
        return self.at


class LaterPictures:
    """Pictures that are there when the device has come so far."""

    def __init__(self, pending: FakePending, timestamp: Later, fault: Exception | None = None) -> None:
        self.pending = pending
        self.timestamp = timestamp
        self.fault = fault

    def __len__(self) -> int:
        return len(self.pending)

    def is_finite(self, place: int) -> bool:
        self.timestamp.seconds()
        if self.fault is not None:
            raise self.fault
        return self.pending.is_finite(place)

    def picture(self, place: int) -> Image.Image:
        return self.pending.picture(place)


class Behind(FakeBackend):
    """The fake with a thread for a device: each batch takes it `STEP` seconds after it was queued."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.work: queue.Queue[Callable[[], None]] = queue.Queue()
        self.queued = 0
        self.done = 0
        self.high = 0
        self.encoded_ahead = 0
        self.faults: dict[int, Exception] = {}
        threading.Thread(target=self.device, daemon=True).start()

    def device(self) -> None:
        while True:
            self.work.get()()

    def encode(self, batch: ReadyBatch) -> FakeLatents:
        if self.queued > self.done:
            self.encoded_ahead += 1
        return super().encode(batch)

    def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
        latents = super().denoise(encoded, on_step)
        self.queued += 1
        self.high = max(self.high, self.queued - self.done)
        self.work.put(self.batch)
        return latents

    def batch(self) -> None:
        time.sleep(STEP)
        self.done += 1

    def timestamp(self, stage: DeviceStage) -> Later:  # type: ignore[override]
        timestamp = Later()
        if stage == "encode":
            timestamp.set()
        else:
            self.work.put(timestamp.set)
        return timestamp

    def decode_later(self, latents: FakeLatents) -> LaterPictures:  # type: ignore[override]
        return LaterPictures(super().decode_later(latents), self.timestamp("decode"), self.faults.get(self.queued))


class Items:
    """Items of one picture, a source."""

    name = "items"
    kind = "jsonl"
    comes_once = False

    def __init__(self, folder: Path, *instructions: str) -> None:
        path = folder / "in.png"
        Image.new("RGB", (60, 60), (200, 100, 50)).save(path)
        self.given = [
            EditItem(
                id=str(n), images=(path,), instruction=text, sampling=Sampling(steps=2), basesize=256, size=None,
                output=f"{n}.png", origin=Origin(file="m.jsonl", line=n + 1),
            )
            for n, text in enumerate(instructions)
        ]  # fmt: skip

    def on_item(self, item: object) -> None:
        """Nobody listens."""

    def asked(self) -> dict[str, Any]:
        return {}

    def shared(self) -> dict[str, Any]:
        return {}

    def referred(self) -> tuple[str, ...]:
        return ()

    def shard_counts(self) -> None:
        return None

    def counted_missing(self) -> int:
        return 0

    def check(self) -> Any:
        class Summary:
            items = len(self.given)
            passed = PassedOver()
            settings = Settings()
            lines = None
            lora_sets = ((),)
            matrix = Matrix()

        return Summary

    def items(self) -> Iterator[EditItem]:
        yield from self.given


def edit(
    folder: Path, *instructions: str, make: Callable[[RunConfig], Behind] = Behind
) -> tuple[RunOutcome, Behind, dict[str, dict[str, Any]]]:
    backends: list[Behind] = []

    def load(config: RunConfig) -> Behind:
        backends.append(make(config))
        return backends[0]

    config = RunConfig(output=folder / "out", model="fake", batch_size=1)
    outcome = run(Items(folder, *instructions), config, load_backend=load)
    return outcome, backends[0], {record["id"]: record for record in read_journal(folder / "out" / "results.jsonl")}


def test_the_next_batch_is_encoded_while_the_device_works(tmp_path: Path) -> None:
    outcome, backend, records = edit(tmp_path, *(["blue"] * 10))
    assert outcome.exit_code == 0
    assert [record["status"] for record in records.values()] == ["ok"] * 10
    assert backend.encoded_ahead >= 8
    assert 2 <= backend.high <= RUNNING_BATCHES
    report = outcome.report
    assert report.batches == 10
    assert report.stages["denoise"] == pytest.approx(10 * STEP, rel=0.5)
    assert sum(record["seconds"]["denoise"] for record in records.values()) == pytest.approx(
        report.stages["denoise"], abs=1e-4
    )
    assert report.device_idle is not None
    assert report.device_idle.seconds == pytest.approx(report.device_idle.of_seconds - 10 * STEP, abs=5 * STEP)


def test_latents_that_are_not_finite_fail_alone(tmp_path: Path) -> None:
    outcome, _, records = edit(tmp_path, "blue", "FAIL-NAN", "blue", "blue")
    assert outcome.exit_code == 3
    assert records["1"]["error"]["code"] == "not_finite"
    assert set(records["1"]["seconds"]) == {"read", "encode", "denoise", "decode"}
    assert [records[name]["status"] for name in "023"] == ["ok"] * 3


def test_an_interruption_keeps_what_is_in_flight(tmp_path: Path) -> None:
    outcome, _, records = edit(tmp_path, "blue", "blue", "INTERRUPT", "blue")
    assert outcome.exit_code == 130
    assert {name: record["status"] for name, record in records.items()} == {"0": "ok", "1": "ok"}
    assert outcome.report.batches == 2


def test_a_fault_that_shows_late_is_that_of_its_items(tmp_path: Path) -> None:
    def make(config: RunConfig) -> Behind:
        backend = Behind(config)
        backend.faults[2] = RuntimeError("an illegal memory access")
        return backend

    outcome, _, records = edit(tmp_path, "blue", "blue", "blue", make=make)
    assert outcome.exit_code == 3
    assert records["1"]["error"] == {"code": "edit_failed", "message": "RuntimeError: an illegal memory access"}
    assert [records[name]["status"] for name in "02"] == ["ok"] * 2


def test_memory_that_the_batch_before_holds_is_waited_for(tmp_path: Path) -> None:
    class Crowded(Behind):
        """Room for one batch at a time."""

        refused = 0

        def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
            if self.queued > self.done:
                self.refused += 1
                raise OutOfMemory("no room beside the batch before")
            return super().denoise(encoded, on_step)

    outcome, backend, records = edit(tmp_path, *(["blue"] * 4), make=Crowded)
    assert outcome.exit_code == 0
    assert len(records) == 4
    assert isinstance(backend, Crowded)
    assert backend.refused == 3
