"""`joyedit bench --gpus`: worker processes on the CPU, of the fake and of tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from joyedit.cli.main import main
from joyedit.errors import DeviceError
from joyedit.job.run_config import RunConfig
from joyedit.runtime.bench import scaling
from joyedit.runtime.bench.batch import BenchConfig
from joyedit.runtime.bench.scaling import counts_of, measure_scaling
from joyedit.runtime.workers.grouping import RANDOM_HEADS, with_places
from joyedit.weights.random import configs


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("JOYEDIT_FAKE", "1")
    return RunConfig(output=tmp_path, model="fake", device="cpu", parallel="data")


def edits(**options: Any) -> BenchConfig:
    return BenchConfig(size="tiny", basesize=256, steps=3, **options)


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (6, [1, 2, 4, 6])]
)
def test_how_many_are_measured(most: int, expected: list[int]) -> None:
    assert counts_of(most) == expected


def test_each_with_its_own_items(fake: RunConfig) -> None:
    run, places = with_places(fake, "3")
    heard: list[str] = []
    report = measure_scaling(edits(batch_size=2, edits=2), run, places, heard.append)
    assert heard == ["1 of 3", "2 of 3: 2 workers (data)", "3 of 3: 3 workers (data)"]
    assert [row.gpus for row in report.scaling] == [row.workers for row in report.scaling] == [1, 2, 3]
    assert [row.images for row in report.scaling] == [4, 8, 12]
    assert all(row.apart == 0 and row.exchanged is None and row.idle is not None for row in report.scaling)
    plain = json.loads(json.dumps(report.to_dict()))["scaling"]
    for raw in plain:
        assert raw["images_per_second"] == pytest.approx(raw["images"] / raw["seconds"])
        assert raw["seconds_an_image"] * raw["images_per_second"] == pytest.approx(raw["workers"])
        assert raw["efficiency"] == pytest.approx(
            raw["images_per_second"] / plain[0]["images_per_second"] / raw["gpus"]
        )
    labels = [label for label, _ in report.rows()]
    assert labels == ["device", "edits", "1 process", "2 processes, data", "3 processes, data"]
    assert "pictures identical" in report.rows()[-1][1]


def test_pictures_that_differ_are_told(fake: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_apart", lambda one, other: 0 if one is other else 7)
    run, places = with_places(fake, "2")
    report = measure_scaling(edits(), run, places)
    assert [row.apart for row in report.scaling] == [0, 7]
    assert "pictures at most 7 levels apart" in report.rows()[-1][1]


@pytest.mark.parametrize(("fault", "words"), [("kill:1", "died"), ("device:1", "left out")])
def test_a_worker_that_cannot_be_used(fault: str, words: str, fake: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures with fewer workers than asked for would say nothing."""
    monkeypatch.setenv("JOYEDIT_FAKE_LOAD", fault)
    run, places = with_places(fake, "2")
    with pytest.raises(DeviceError, match=rf"worker 1 {words}|worker 1 is {words}"):
        measure_scaling(edits(), run, places)


def test_heads_of_random_weights() -> None:
    assert {size: configs(size)[0].num_heads for size in RANDOM_HEADS} == RANDOM_HEADS


def test_a_picture_over_two_processes(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--size", "tiny", "--device", "cpu", "--steps", "2", "--gpus", "2", "--parallel", "guidance", "--json"]
    with pytest.raises(SystemExit) as caught:
        main(["bench", *flags])
    told = capsys.readouterr()
    assert caught.value.code == 0, told.err
    report = json.loads(told.out)
    one, both = report["scaling"]
    assert (one["layout"], one["workers"], one["exchanged"]) == ("one", 1, None)
    assert (both["layout"], both["workers"], both["gpus"]) == ("guidance 2", 1, 2)
    assert both["exchanged"] > 0
    assert both["apart"] == 0
    assert "2 processes, guidance 2: " in told.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--parallel", "guidance"], "--parallel guidance is for several GPUs"),
        (["--parallel", "guidance", "--gpus", "3"], "takes pairs of GPUs, and 3 are given"),
        (["--parallel", "sequence", "--gpus", "3"], "divides 2 attention heads, and 3 GPUs are given"),
        (["--gpus", "none"], "--gpus takes all, a number of GPUs"),
    ],
)
def test_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--size", "tiny", "--device", "cpu", *flags])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
