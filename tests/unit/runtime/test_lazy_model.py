"""The model is loaded only when something is to be edited, and what is said of it before is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from joyedit.errors import DeviceError, ManifestError
from joyedit.job.results.records import read_journal
from joyedit.job.run_config import RunConfig
from joyedit.job.source.line_settings import LineSettings
from joyedit.job.source.loras import LoraSet
from joyedit.job.source.matrix import Axis, Matrix
from joyedit.job.source.schema import Line
from joyedit.job.source.source import SourceSummary
from joyedit.job.source.source_options import SourceOptions
from joyedit.job.source.sources import open_source
from joyedit.job.spec import ItemResult, Settings
from joyedit.runtime.fake import FakeBackend
from joyedit.runtime.lazy_model import with_outlook
from joyedit.runtime.model import describe_without_loading, model_identity
from joyedit.runtime.pipeline.progress import NoProgress
from joyedit.runtime.run import RunOutcome, run


class Told(NoProgress):
    """A progress that remembers the order of things."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def checking(self) -> None:
        self.events.append("checking")

    def loading(self, config: RunConfig) -> None:
        self.events.append("loading")

    def started(self, info: object, summary: Any) -> None:
        self.events.append(f"started with {summary.items}")

    def result(self, result: ItemResult, line: str) -> None:
        self.events.append(result.status)

    def skipped(self, decision: str, finished: object) -> None:
        self.events.append("skipped")

    def stopping(self, reason: str) -> None:
        self.events.append(reason)


class Place:
    """A folder with a manifest of five items, and runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded = 0
        self.expected: int | None = None
        self.told = Told()
        Image.new("RGB", (40, 40), "red").save(folder / "in.png")
        self.write(*({"image": "in.png", "instruction": f"edit {n}", "id": str(n)} for n in range(5)))

    def write(self, *lines: Any) -> None:
        (self.folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def line(self, number: int, **changes: Any) -> None:
        lines = [json.loads(line) for line in (self.folder / "m.jsonl").read_text().splitlines()]
        lines[number] |= changes
        self.write(*lines)

    def __call__(self, **config: Any) -> RunOutcome:
        def load(given: RunConfig) -> FakeBackend:
            self.loaded += 1
            self.expected = given.expected_items
            return FakeBackend(given)

        out = self.folder / "out"
        source = open_source(str(self.folder / "m.jsonl"), SourceOptions(output=out, look=not out.exists()))
        self.loaded, self.told = 0, Told()
        made = RunConfig(output=out, model="fake", **config)
        return run(source, made, load_backend=load, describe=describe_without_loading, progress=self.told)

    def records(self) -> list[tuple[str, str]]:
        return [(record["id"], record["status"]) for record in read_journal(self.folder / "out" / "results.jsonl")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    made = Place(tmp_path)
    assert made().exit_code == 0
    assert made.loaded == 1
    assert made.told.events[:2] == ["loading", "started with 5"]
    return made


@pytest.mark.parametrize("trust", [False, True])
def test_nothing_is_loaded_where_all_is_done(place: Place, trust: bool) -> None:
    before = place.records()
    outcome = place(trust_journal=trust)
    report = outcome.report
    assert (outcome.exit_code, report.state, place.loaded) == (0, "complete", 0)
    assert (report.items, report.skipped, report.left, report.batches) == (5, 5, 0, 0)
    assert (report.model, report.dtype, report.peak_memory["device"]) == ("fake", "fp32", None)
    assert place.told.events == ["checking", *["skipped"] * 5]
    assert place.records() == before
    assert json.loads((place.folder / "out" / "report.json").read_text())["ended"] == report.ended


def test_it_is_loaded_at_the_first_item_to_edit(place: Place) -> None:
    place.line(3, seed=5)
    outcome = place(trust_journal=True)
    assert (outcome.exit_code, outcome.report.skipped, place.loaded) == (0, 4, 1)
    events = place.told.events
    assert events[: events.index("loading")].count("skipped") >= 3
    assert events[events.index("loading") + 1] == "started with 5"
    assert place.expected in (1, 2)  # what is known to be done counts no more; the last one may be looked at later
    assert place.records()[5:] == [("3", "ok")]


@pytest.mark.parametrize("redo", ["all", "failed"])
def test_what_is_asked_for_counts(place: Place, redo: Any) -> None:
    assert place(redo=redo).exit_code == 0
    assert place.loaded == (1 if redo == "all" else 0)


def test_a_picture_that_is_gone_needs_no_model(place: Place) -> None:
    place.line(2, image="gone.png")
    outcome = place()
    assert (outcome.exit_code, outcome.report.failed_by_code, place.loaded) == (3, {"missing_picture": 1}, 0)
    assert place.records()[5:] == [("2", "failed")]
    failed = [json.loads(line) for line in (place.folder / "out" / "failed.jsonl").read_text().splitlines()]
    assert [line["id"] for line in failed] == ["2"]
    Image.new("RGB", (40, 40), "blue").save(place.folder / "gone.png")
    assert place(redo="failed").exit_code == 0
    assert place.loaded == 1


@pytest.mark.parametrize("lines", [[], [{"image": "in.png", "instruction": "edit 0", "id": "0"}, {"id": 7}]])
def test_a_faulty_manifest_is_refused_before_the_model_loads(place: Place, lines: list[Any]) -> None:
    place.write(*lines)
    before = place.records(), (place.folder / "out" / "report.json").read_bytes()
    with pytest.raises(ManifestError, match="must be text" if lines else "no items"):
        place()
    assert place.loaded == 0
    assert (place.records(), (place.folder / "out" / "report.json").read_bytes()) == before


def test_a_model_that_does_not_load_is_told_and_changes_nothing(place: Place) -> None:
    place.line(4, seed=5)
    before = place.records(), (place.folder / "out" / "report.json").read_bytes()

    def refuse(config: RunConfig) -> FakeBackend:
        raise DeviceError("no CUDA device here")

    out = place.folder / "out"
    source = open_source(str(place.folder / "m.jsonl"), SourceOptions(output=out))
    with pytest.raises(DeviceError):
        run(
            source,
            RunConfig(output=out, model="fake"),
            load_backend=refuse,
            describe=describe_without_loading,
        )
    assert (place.records(), (place.folder / "out" / "report.json").read_bytes()) == before
    assert not (out / ".joyedit.lock").exists()


def test_the_end_of_the_time_while_it_checks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from joyedit.job.results.resume import Resume

    def hang(resume: Resume, item: object) -> str:
        import time

        time.sleep(1)
        return "done"

    monkeypatch.setattr(Resume, "decide", hang)
    outcome = place(max_duration=0.2)
    assert (outcome.exit_code, outcome.report.state, place.loaded) == (10, "out_of_time", 0)
    assert "out_of_time" in place.told.events


def test_the_end_of_the_time_between_two_that_are_done(place: Place) -> None:
    outcome = place(max_duration=1e-9)
    assert (outcome.exit_code, outcome.report.state, place.loaded) == (10, "out_of_time", 0)
    assert place.told.events == ["checking", "out_of_time"]
    assert (place().exit_code, place.loaded) == (0, 0)


def test_the_outlook_of_a_matrix() -> None:
    """Whoever plans memory and time hears of all edits, with the mean of their steps and the largest of their sizes."""
    axes = (Axis(key="steps", values=(10, 30)), Axis(key="basesize", values=(512, 1024)), Axis(key="seed", count=2))
    settings = Settings(steps=99, basesize=256)
    summary = SourceSummary(items=80, settings=settings, matrix=Matrix(axes=axes))
    seen = with_outlook(RunConfig(output=Path("unused")), summary)
    assert seen.largest == 1024
    assert seen.expected_steps == pytest.approx(80 * 20 * (768 / 1024) ** 2)
    plain = with_outlook(RunConfig(output=Path("unused")), SourceSummary(items=80, settings=settings))
    assert (plain.largest, plain.expected_steps) == (256, 80 * 99 / 16)
    rest = with_outlook(RunConfig(output=Path("unused")), SourceSummary(items=80, settings=settings), done=77)
    assert (rest.expected_items, rest.expected_steps) == (3, 3 * 99 / 16)
    assert (
        with_outlook(RunConfig(output=Path("unused")), SourceSummary(items=2, settings=settings), 5).expected_items == 1
    )


def test_the_outlook_says_whether_guidance_is_off_for_all() -> None:
    def outlook(scale: float, *swept: float, own: float | None = None, items: int | None = 2) -> bool:
        lines = LineSettings(Settings(guidance_scale=scale), None, LoraSet())
        if own is not None:
            lines.add(Line(guidance_scale=own), "x", LoraSet())
        axes = (Axis(key="guidance_scale", values=swept),) if swept else ()
        summary = SourceSummary(
            items=items, settings=Settings(guidance_scale=scale), lines=lines, matrix=Matrix(axes=axes)
        )
        return with_outlook(RunConfig(output=Path("unused")), summary).expected_guidance

    assert (outlook(4.0), outlook(1.0), outlook(1.0, items=None)) == (True, False, True)
    assert (outlook(4.0, 0.0, 1.0), outlook(1.0, 1.0, 3.0)) == (False, True)
    assert (outlook(1.0, own=2.0), outlook(1.0, own=0.5)) == (True, False)


@pytest.fixture(params=["diffusers", "no scheduler", "original"])
def checkpoint(request: Any, tmp_path: Path) -> Path:
    import shutil

    fixture = "original_checkpoint" if request.param == "original" else "diffusers_checkpoint"
    folder = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "checkpoint"))
    if request.param == "no scheduler":
        shutil.rmtree(folder / "scheduler")
    return folder


@pytest.mark.parametrize("asked", [{}, {"dtype": "bf16", "schedule": "original", "attention": "sdpa"}])
def test_what_is_foreseen_is_what_is_loaded(checkpoint: Path, asked: dict[str, Any]) -> None:
    from joyedit.runtime.joyimage.loading import load_backend

    config = RunConfig(output=Path("unused"), model=str(checkpoint), device="cpu", **asked)
    seen, backend = describe_without_loading(config), load_backend(config)
    info = backend.info
    message = (info.model, info.dtype, info.schedule, model_identity(info, config))
    assert (seen.model, seen.dtype, seen.schedule, seen.identity) == message
    assert seen.attention == asked.get("attention", "auto")
    assert seen.layout == info.layout
    backend.close()


def test_bf16_where_fp32_exceeds_the_machine(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is foreseen as it is loaded, and told."""
    from joyedit.job.pictures import machine_memory
    from joyedit.runtime.joyimage import networks
    from joyedit.runtime.joyimage.loading import load_backend
    from joyedit.runtime.tuning import device

    monkeypatch.setattr(device, "bf16_units", lambda: "AMX")
    monkeypatch.setattr(networks, "bf16_units", lambda: "AMX")
    monkeypatch.setattr(machine_memory, "total_bytes", lambda: machine_memory.SPARE + 1000)
    config = RunConfig(output=Path("unused"), model=str(checkpoint), device="cpu")
    seen, backend = describe_without_loading(config), load_backend(config)
    assert (seen.dtype, backend.info.dtype) == ("bf16", "bf16")
    assert "bf16 (AMX): in fp32 the weights exceed the memory of this machine" in backend.info.notes
    backend.close()
