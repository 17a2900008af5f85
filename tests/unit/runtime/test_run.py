"""The data flow on the fake backend: every item ends in one record, whatever happens around it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import DeviceError, ManifestError, OutputError, Problem, UsageError
from joyedit.job.results import output_folder as output_module
from joyedit.job.results.records import read_journal
from joyedit.job.run_config import RunConfig
from joyedit.job.source.matrix import Matrix
from joyedit.job.source.passed_over import PassedOver
from joyedit.job.spec import EditItem, FailedItem, ItemResult, Origin, Sampling, Settings
from joyedit.runtime.fake import FakeBackend, FakeLatents
from joyedit.runtime.pipeline import read as reading
from joyedit.runtime.pipeline import write as writing
from joyedit.runtime.pipeline.progress import NoProgress
from joyedit.runtime.protocol import ReadyBatch
from joyedit.runtime.run import RunOutcome, run
from support.pictures import read_metadata


class Summary:
    def __init__(self, items: int | None) -> None:
        self.items = items
        self.passed = PassedOver()
        self.settings = Settings(steps=2)
        self.lines = None
        self.lora_sets = ((),)
        self.matrix = Matrix()


class Items:
    """A source of given items."""

    name = "items"
    kind = "jsonl"
    comes_once = False

    def __init__(self, *items: EditItem | FailedItem, fault: Exception | None = None) -> None:
        self.given = items
        self.fault = fault
        self.checked = 0

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
        self.checked += 1
        return Summary(len(self.given))

    def items(self) -> Iterator[EditItem | FailedItem]:
        yield from self.given
        if self.fault is not None:
            raise self.fault


class Told(NoProgress):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lines: list[str] = []

    def loading(self, config: RunConfig) -> None:
        self.events.append("loading")

    def started(self, info: object, summary: object) -> None:
        self.events.append("started")

    def step(self, done: int, total: int) -> None:
        self.events.append(f"step {done}/{total}")

    def result(self, result: ItemResult, line: str) -> None:
        self.lines.append(line)

    def stopping(self, reason: str) -> None:
        self.events.append(f"stopping: {reason}")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    Image.new("RGB", (60, 60), (200, 100, 50)).save(path)
    return path


def item(name: str, *images: Path, instruction: str = "blue", output: str | None = None) -> EditItem:
    return EditItem(
        id=name,
        images=images,
        instruction=instruction,
        sampling=Sampling(steps=2, seed=7),
        basesize=256,
        size=None,
        output=output or f"{name}.png",
        origin=Origin(file="m.jsonl", line=1),
    )


class Harness:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend: FakeBackend | None = None
        self.told = Told()

    def __call__(
        self, source: Any, backend: Callable[[RunConfig], FakeBackend] = FakeBackend, **config: Any
    ) -> RunOutcome:
        def load(given: RunConfig) -> FakeBackend:
            assert not self.folder.exists()
            self.backend = backend(given)
            return self.backend

        return run(
            source,
            RunConfig(output=self.folder, model="fake", **config),
            load_backend=load,
            progress=self.told,
        )

    def records(self) -> dict[str, dict[str, Any]]:
        records = list(read_journal(self.folder / "results.jsonl"))
        by_id = {record["id"]: record for record in records}
        assert len(by_id) == len(records)
        return by_id

    def report(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return message

    def pictures(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*.png"))


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "out")


def test_all_done(harness: Harness, picture: Path) -> None:
    outcome = harness(Items(*(item(f"i{n}", picture) for n in range(6))), batch_size=4)
    assert (outcome.exit_code, outcome.error) == (0, None)
    assert harness.pictures() == [f"i{n}.png" for n in range(6)]
    records = harness.records()
    record = records["i0"]
    assert record["status"] == "ok"
    assert record["output"] == "i0.png"
    assert record["bucket"] == [256, 256]
    assert record["inputs"] == [str(picture)]
    assert record["settings"] == {
        "steps": 2,
        "guidance_scale": 4.0,
        "seed": 7,
        "negative_prompt": "",
        "basesize": 256,
        "width": None,
        "height": None,
        "size": "bucket",
        "fit": "crop",
        "schedule": "original",
        "model": "fake",
        "dtype": "fp32",
        "attention": "sdpa",
        "joyedit": record["settings"]["joyedit"],
    }
    assert set(record["seconds"]) == {"read", "encode", "denoise", "decode", "write"}
    assert record["source"] == {"file": "m.jsonl", "line": 1}
    report = harness.report()
    assert (report["state"], report["exit_code"]) == ("complete", 0)
    assert (report["items"], report["ok"], report["failed"], report["batches"]) == (6, 6, 0, 2)
    assert report["warm_up"]["images"] == 4
    assert report["steady"]["images"] == 2
    assert set(report["stages"]) == {"load", "read", "encode", "denoise", "decode", "write"}
    assert harness.told.events[:4] == ["loading", "started", "step 1/2", "step 2/2"]
    assert sorted(json.loads(line)["id"] for line in harness.told.lines) == sorted(records)
    assert harness.backend is not None
    assert harness.backend.calls["close"] == 1


def test_a_picture_says_how_it_was_made(harness: Harness, picture: Path) -> None:
    harness(Items(item("a", picture, instruction="把天空变成夜晚"), item("b", picture, output="deep/b.webp")))
    metadata = read_metadata(harness.folder / "a.png")
    assert metadata["instruction"] == "把天空变成夜晚"
    assert metadata["software"].startswith("joyedit ")
    wanted = {"negative_prompt": "", "seed": "7", "steps": "2", "guidance_scale": "4.0", "model": "fake"}
    assert {key: metadata[key] for key in wanted} == wanted
    with Image.open(harness.folder / "deep" / "b.webp") as image:
        assert image.format == "WEBP"
    assert read_metadata(harness.folder / "deep" / "b.webp")["instruction"] == "blue"


def test_a_local_checkpoint_leaves_no_path_in_the_picture(harness: Harness, picture: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "private" / "joy"
    checkpoint.mkdir(parents=True)

    class Local(FakeBackend):
        def __init__(self, config: RunConfig) -> None:
            super().__init__(RunConfig(output=config.output, model=str(checkpoint)))

    harness(Items(item("a", picture)), backend=Local)
    assert read_metadata(harness.folder / "a.png")["model"] == "joy"
    assert harness.records()["a"]["settings"]["model"] == str(checkpoint)


def test_a_picture_that_cannot_be_read_fails_alone(harness: Harness, picture: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    Image.effect_noise((60, 60), 50).save(torn)
    torn.write_bytes(torn.read_bytes()[:1500])  # the header is whole: it is planned, and fails in reading
    outcome = harness(Items(item("a", picture), item("x", torn), item("b", picture)), batch_size=3)
    assert outcome.exit_code == 3
    assert harness.pictures() == ["a.png", "b.png"]
    record = harness.records()["x"]
    assert record["error"]["code"] == "truncated_picture"
    assert (record["output"], record["bucket"]) == (None, [256, 256])
    assert harness.backend is not None
    assert harness.backend.batches == [("a", "b")]
    assert harness.report()["failed_by_code"] == {"truncated_picture": 1}


def test_a_picture_without_a_header_and_a_bad_line_are_records_too(
    harness: Harness, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    line = FailedItem(
        id="line 3",
        images=(),
        instruction="",
        origin=Origin(file="-", line=3),
        code="bad_line",
        message="no JSON",
    )
    outcome = harness(Items(line, item("x", tmp_path / "empty.png"), item("a", picture)))
    assert outcome.exit_code == 3
    records = harness.records()
    assert records["line 3"]["error"] == {"code": "bad_line", "message": "no JSON"}
    assert records["x"]["error"]["code"] == "empty_picture"
    assert records["a"]["status"] == "ok"


def test_a_batch_of_unreadable_pictures_never_reaches_the_networks(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    def fail(path: Path, *more: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "load_picture", fail)
    outcome = harness(Items(item("a", picture), item("b", picture)), batch_size=2)
    assert outcome.exit_code == 3
    assert harness.backend is not None
    assert harness.backend.calls["encode"] == 0
    assert harness.records()["a"]["error"] == {"code": "unreadable_picture", "message": "MemoryError"}


def test_a_failing_batch_goes_through_again_one_by_one(harness: Harness, picture: Path) -> None:
    bad = item("bad", picture, instruction="FAIL-BATCH now")
    outcome = harness(Items(item("a", picture), bad, item("b", picture)), batch_size=3)
    assert outcome.exit_code == 3
    assert harness.pictures() == ["a.png", "b.png"]
    assert harness.records()["bad"]["error"]["code"] == "edit_failed"
    assert harness.records()["bad"]["error"]["message"].startswith("RuntimeError: the fake device failed")
    assert harness.backend is not None
    assert harness.backend.batches == [("a", "bad", "b"), ("a",), ("bad",), ("b",)]
    log = (harness.folder / "joyedit.log").read_text()
    assert "batch 0 failed; its 3 items go one by one" in log
    assert log.count("Traceback (most recent call last)") == 2
    report = harness.report()
    assert (report["items"], report["ok"], report["failed"]) == (3, 2, 1)


def test_the_seconds_of_the_records_add_up_to_those_of_the_stages(harness: Harness, picture: Path) -> None:
    class Slow(FakeBackend):
        def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
            time.sleep(0.03)
            return super().denoise(encoded, on_step)

    harness(Items(*(item(str(n), picture) for n in range(7))), backend=Slow, batch_size=4)
    records = harness.records().values()
    for stage in ("read", "encode", "denoise", "decode", "write"):
        message = sum(record["seconds"][stage] for record in records)
        assert message == pytest.approx(harness.report()["stages"][stage], abs=1e-4), stage
    assert harness.report()["stages"]["denoise"] >= 0.06


def test_an_item_alone_is_not_tried_twice(harness: Harness, picture: Path) -> None:
    harness(Items(item("bad", picture, instruction="FAIL-BATCH")))
    assert harness.backend is not None
    assert harness.backend.calls["encode"] == 1


def test_an_error_with_a_code_of_its_own_keeps_it(harness: Harness, picture: Path) -> None:
    outcome = harness(Items(item("a", picture, instruction="FAIL-ENCODE"), item("b", picture)), batch_size=2)
    assert outcome.exit_code == 3
    error = harness.records()["a"]["error"]
    assert error == {"code": "instruction_too_long", "message": "the instruction is too long"}


def test_a_backend_that_loses_a_picture_is_found_out(harness: Harness, picture: Path) -> None:
    class Losing(FakeBackend):
        def decode(self, latents: FakeLatents) -> list[Image.Image]:
            return super().decode(latents)[1:]

    outcome = harness(Items(item("a", picture)), backend=Losing)
    assert outcome.exit_code == 3
    assert "0 pictures came out of a batch of 1" in harness.records()["a"]["error"]["message"]


def test_a_device_that_is_gone_stops_the_run(harness: Harness, picture: Path) -> None:
    class Gone(FakeBackend):
        def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
            if self.calls["encode"] == 2:
                raise DeviceError("the device is gone")
            return super().denoise(encoded, on_step)

    outcome = harness(Items(*(item(str(n), picture) for n in range(5))), backend=Gone, batch_size=1)
    assert outcome.exit_code == 1
    assert str(outcome.error) == "the device is gone"
    assert list(harness.records()) == ["0"]
    assert harness.report()["state"] == "stopped"


def test_an_output_name_that_the_disk_refuses_fails_alone(harness: Harness, picture: Path) -> None:
    outcome = harness(Items(item("a", picture, output="n" * 300 + ".png"), item("b", picture)))
    assert outcome.exit_code == 3
    assert harness.records()["a"]["error"]["code"] == "output_name"
    assert set(harness.records()["a"]["seconds"]) == {"read", "encode", "denoise", "decode", "write"}


def test_a_picture_that_cannot_be_encoded_fails_alone(
    harness: Harness, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = writing.save_picture

    def fail(
        image: Image.Image, file: Any, form: Any, quality: Any, settings: dict[str, str], *more: Any, **named: Any
    ) -> Any:
        if settings["instruction"] == "huge":
            raise ValueError("too wide for this format")
        return save(image, file, form, quality, settings, *more, **named)

    monkeypatch.setattr(writing, "save_picture", fail)
    outcome = harness(Items(item("a", picture, instruction="huge"), item("b", picture)))
    assert outcome.exit_code == 3
    assert harness.records()["a"]["error"]["code"] == "write_failed"
    assert harness.pictures() == ["b.png"]


def test_a_full_disk_stops_the_run_and_keeps_what_was_done(
    harness: Harness, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = output_module.OutputFolder.write

    def full(self: Any, relative: str, fill: Any, **more: Any) -> Path:
        if relative == "40.png" or (relative == "report.json" and (self.path / "0.png").exists()):
            raise OutputError("no space left")
        return write(self, relative, fill, **more)

    monkeypatch.setattr(output_module.OutputFolder, "write", full)
    outcome = harness(Items(*(item(str(n), picture) for n in range(200))), batch_size=1)
    assert outcome.exit_code == 1
    assert str(outcome.error) == "no space left"
    records = harness.records()
    assert {str(n) for n in range(40 - writing.PENDING)} <= set(records)
    assert "40" not in records
    assert len(records) <= 40 + writing.PENDING
    assert all(record["status"] == "ok" for record in records.values())
    assert harness.report()["state"] == "running"
    assert sorted(f"{name}.png" for name in records) == harness.pictures()


def test_an_interruption_writes_what_is_done_and_the_report(harness: Harness, picture: Path) -> None:
    items = [item(str(n), picture, instruction="INTERRUPT" if n == 4 else "blue") for n in range(10)]
    outcome = harness(Items(*items), batch_size=2)
    assert (outcome.exit_code, outcome.error) == (130, None)
    assert harness.pictures() == ["0.png", "1.png", "2.png", "3.png"]
    assert set(harness.records()) == {"0", "1", "2", "3"}
    assert harness.report()["state"] == "interrupted"
    assert "stopping: interrupted" in harness.told.events


def test_a_source_that_breaks_on_the_way_stops_the_run(harness: Harness, picture: Path) -> None:
    fault = ManifestError([Problem(file="m.jsonl", line=9, message="changed while it was read")])
    outcome = harness(Items(item("a", picture), fault=fault), batch_size=1)
    assert outcome.exit_code == 1
    assert outcome.error is fault
    assert harness.pictures() == ["a.png"]


def test_nothing_is_loaded_or_written_for_a_source_that_is_refused(harness: Harness) -> None:
    class Refused(Items):
        def check(self) -> Any:
            raise ManifestError([Problem(file="m.jsonl", line=1, message="bad")])

    with pytest.raises(ManifestError):
        harness(Refused())
    assert harness.backend is None
    assert not harness.folder.exists()


def test_nothing_is_read_for_an_output_that_is_a_file(harness: Harness) -> None:
    harness.folder.write_text("a file")
    source = Items()
    with pytest.raises(UsageError, match="cannot be a folder"):
        harness(source)
    assert source.checked == 0


def test_nothing_is_written_when_the_model_does_not_load(harness: Harness, picture: Path) -> None:
    def refuse(config: RunConfig) -> FakeBackend:
        raise DeviceError("no CUDA device here")

    with pytest.raises(DeviceError):
        harness(Items(item("a", picture)), backend=refuse)
    assert not harness.folder.exists()


def test_no_items_at_all_is_a_complete_run(harness: Harness) -> None:
    assert harness(Items()).exit_code == 0
    report = harness.report()
    assert (report["items"], report["images_per_second"], report["warm_up"]) == (0, None, None)
    assert harness.records() == {}


def test_a_record_comes_only_after_its_picture(harness: Harness, picture: Path) -> None:
    missing: list[str] = []

    class Looking(Told):
        def result(self, result: ItemResult, line: str) -> None:
            if result.output is None or not (harness.folder / result.output).is_file():
                missing.append(result.id)

    harness.told = Looking()
    harness(Items(*(item(str(n), picture) for n in range(20))))
    assert missing == []


def copies(picture: Path, count: int) -> list[Path]:
    paths = [picture.with_name(f"copy{number}.png") for number in range(count)]
    for path in paths:
        path.write_bytes(picture.read_bytes())
    return paths


def test_pictures_are_read_ahead_while_the_device_works_and_not_without_bound(
    harness: Harness, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, lock, seen = reading.load_picture, threading.Lock(), Counter[str]()
    high, late = 0, 0

    def counted(path: Path, *more: Any) -> Any:
        with lock:
            seen["read"] += 1
        return load(path, *more)

    class Slow(FakeBackend):
        def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
            nonlocal high, late
            seen["edited"] += len(encoded.batch.items)
            deadline = time.monotonic() + 5
            while seen["read"] < min(seen["edited"] + 2, 40):
                time.sleep(0.001)  # the next batch is read while this one is with the device
                if time.monotonic() > deadline:
                    late += 1
                    break
            high = max(high, seen["read"] - seen["edited"])
            return super().denoise(encoded, on_step)

    monkeypatch.setattr(reading, "load_picture", counted)
    items = [item(str(number), path) for number, path in enumerate(copies(picture, 40))]
    harness(Items(*items), backend=Slow, batch_size=2)
    assert late == 0
    assert 2 <= high <= 2 * (reading.DEPTH + 2)


def test_a_picture_that_items_share_is_read_once(
    harness: Harness, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, read = reading.load_picture, []

    def counted(path: Path, *more: Any) -> Any:
        read.append(path)
        return load(path, *more)

    shared: list[bool] = []

    class Looking(FakeBackend):
        def encode(self, batch: ReadyBatch) -> FakeLatents:
            shared.append(len({id(one) for ready in batch.items for one in ready.pictures}) == 1)
            return super().encode(batch)

    monkeypatch.setattr(reading, "load_picture", counted)
    harness(Items(item("a", picture), item("b", picture), item("c", picture)), backend=Looking, batch_size=2)
    assert len(read) == 1
    assert shared == [True, True]
    assert set(harness.records()) == {"a", "b", "c"}


def test_finished_pictures_do_not_pile_up_in_front_of_a_slow_disk(
    harness: Harness, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, done, high, edited = output_module.OutputFolder.write, Counter[str](), 0, 0

    def slow(self: Any, relative: str, fill: Any, **more: Any) -> Path:
        time.sleep(0.004)
        done["written"] += 1
        return write(self, relative, fill, **more)

    class Counting(FakeBackend):
        def encode(self, batch: ReadyBatch) -> FakeLatents:
            nonlocal high, edited
            high = max(high, edited - done["written"])
            edited += len(batch.items)
            return super().encode(batch)

    monkeypatch.setattr(output_module.OutputFolder, "write", slow)
    outcome = harness(Items(*(item(str(n), picture) for n in range(60))), backend=Counting, batch_size=1)
    assert high <= writing.PENDING + 1
    assert outcome.report.waited["write"] > 0


class Ordered(FakeBackend):
    """Remembers in which order its stages were called."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.order = ""

    def encode(self, batch: ReadyBatch) -> FakeLatents:
        self.order += "e"
        return super().encode(batch)

    def denoise(self, encoded: FakeLatents, on_step: Callable[[int, int], None]) -> FakeLatents:
        self.order += "d"
        return super().denoise(encoded, on_step)


@pytest.mark.parametrize(("offload", "order"), [("auto", "ed" * 6), ("encoder", "eeeeddddeedd")])
def test_with_offload_a_window_is_encoded_before_it_is_denoised(
    harness: Harness, picture: Path, offload: str, order: str
) -> None:
    outcome = harness(Items(*(item(f"{n}", picture) for n in range(6))), Ordered, batch_size=1, offload=offload)
    assert outcome.exit_code == 0
    assert isinstance(harness.backend, Ordered)
    assert harness.backend.order == order
    assert len(harness.records()) == 6


def test_with_offload_faults_stay_with_their_items(
    harness: Harness, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOYEDIT_FAKE_ROOM", "2")
    texts = ["blue", "FAIL-ENCODE", "blue", "FAIL-BATCH", "FAIL-OOM", "FAIL-NAN", "blue", "blue", "blue", "blue"]
    items = [item(f"{n}", picture, instruction=text) for n, text in enumerate(texts)]
    outcome = harness(Items(*items), batch_size=4, offload="encoder")
    assert outcome.exit_code == 3
    codes = {name: (record["error"] or {}).get("code") for name, record in harness.records().items()}
    expected = {"1": "instruction_too_long", "3": "edit_failed", "4": "out_of_memory", "5": "not_finite"}
    assert codes == {f"{n}": expected.get(f"{n}") for n in range(10)}


@pytest.mark.parametrize("place", range(5))
def test_with_offload_an_interruption_leaves_the_rest_to_a_later_run(
    harness: Harness, picture: Path, place: int
) -> None:
    items = [item(f"{n}", picture, instruction="SIGNAL" if n == place else "blue") for n in range(5)]
    outcome = harness(Items(*items), batch_size=1, offload="encoder")
    if place == 4:  # nothing was left
        assert outcome.exit_code == 0
    else:
        assert outcome.exit_code == 130
        assert outcome.report.left == 5 - (place + 1)
    assert set(harness.records()) == {f"{n}" for n in range(place + 1)}


def test_with_offload_standard_input_is_answered_item_by_item(harness: Harness, picture: Path) -> None:
    class Typed(Items):
        kind = "stdin"
        comes_once = True

    harness(Typed(*(item(f"{n}", picture) for n in range(3))), Ordered, batch_size=1, offload="encoder")
    assert isinstance(harness.backend, Ordered)
    assert harness.backend.order == "ededed"
