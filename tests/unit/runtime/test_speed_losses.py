"""What is told of the loss of a faster setting: only what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joyedit.job.run_config import RunConfig
from joyedit.runtime import speed_losses
from joyedit.runtime.speed_losses import loss_of, loss_of_run

TABLE = {
    "model": "nano",
    "settings": [
        {"setting": "exact", "steps": 40, "device": "cpu", "pairs": 200, "happened": 97.5, "unchanged": 36.0},
        {"setting": "exact", "steps": 12, "device": "cpu", "pairs": 200, "happened": 98.0, "unchanged": 36.1},
        {"setting": "--speed high", "steps": 40, "device": "cpu", "pairs": 200, "happened": 97.0, "unchanged": 36.0},
        {"setting": "--speed high", "steps": 12, "device": "cpu", "pairs": 200, "happened": 98.5, "unchanged": 35.4},
        {"setting": "--speed max", "steps": 20, "device": "cpu", "pairs": 200, "happened": 90.0, "unchanged": 30.0},
    ],
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "losses.json"
    monkeypatch.setattr(speed_losses, "FILE", file)
    return file


def test_the_nearest_number_of_steps_is_told(table: Path) -> None:
    table.write_text(json.dumps(TABLE))
    high = loss_of("--speed high", 30)
    assert high is not None
    assert (high.steps, high.points, high.decibels) == (40, 0.5, 0.0)
    assert high.text == (
        "edits that happen -0.5 points, unchanged regions 0.0 dB, measured on nano (200 pairs, 40 steps, on a"
        " CPU) and on no other model"
    )
    low = loss_of("--speed high", 12)
    assert low is not None
    assert (low.points, low.decibels) == (-0.5, 0.7)
    assert "edits that happen +0.5 points, unchanged regions -0.7 dB" in low.text
    assert loss_of("--speed high") is not None


def test_nothing_is_told_of_what_was_not_measured(table: Path) -> None:
    assert loss_of("--speed high", 40) is None  # no table
    speed_losses._table.cache_clear()
    table.write_text(json.dumps(TABLE))
    assert loss_of("--speed max") is None  # nothing exact beside it
    assert loss_of("--reuse 0.1") is None


def test_settings_together_have_a_loss_where_it_was_measured(table: Path) -> None:
    speed_losses._table.cache_clear()
    table.write_text(json.dumps(TABLE))
    assert loss_of_run(RunConfig(output=Path(), speed="high"), 40) == loss_of("--speed high", 40)
    assert loss_of_run(RunConfig(output=Path(), speed="high", reuse="0.3"), 40) is None
    assert loss_of_run(RunConfig(output=Path(), speed="high", precision="fp8"), 40) is None
    assert loss_of_run(RunConfig(output=Path()), 40) is None
    speed_losses._table.cache_clear()
    both = {"steps": 40, "device": "cuda", "pairs": 200, "unchanged": 35.0}
    more = [both | {"setting": "exact", "happened": 95.0}]
    more.append(both | {"setting": "--precision fp8 --speed high", "happened": 94.0})
    table.write_text(json.dumps(TABLE | {"settings": [*TABLE["settings"], *more]}))
    found = loss_of_run(RunConfig(output=Path(), speed="high", precision="fp8"), 40)
    assert found is not None
    assert (found.points, found.device) == (1.0, "cuda")  # against the exact run of the same device
    assert "on a GPU" in found.text


def test_parts_and_number_formats_have_losses_of_their_own(table: Path) -> None:
    speed_losses._table.cache_clear()
    names = ("exact", "--precision fp8", "--regions auto")
    rows = [
        {"setting": name, "steps": 12, "device": "cpu", "pairs": 200, "happened": 90.0, "unchanged": 35.0}
        for name in names
    ]
    table.write_text(json.dumps(TABLE | {"settings": rows}))
    for config in (RunConfig(output=Path(), precision="fp8"), RunConfig(output=Path(), regions="auto")):
        found = loss_of_run(config, 12)
        assert found is not None
        assert (found.points, found.decibels) == (0.0, 0.0)
    assert loss_of_run(RunConfig(output=Path(), regions="0.5"), 12) is None
    assert loss_of_run(RunConfig(output=Path(), regions="auto", precision="fp8"), 12) is None
