"""The published model is refused before its 50 GB are downloaded, where it could not be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import joyedit
from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.job.run_config import RunConfig
from joyedit.runtime import model
from joyedit.weights import hub
from joyedit.weights.defaults import HUB_EDIT

TOLD = (
    r"^the weights take 48\.9 GB in bf16, and 20.0 GB of memory are available; use a machine with more memory; "
    r"nothing was downloaded \((--)?model nano runs here, for drawn scenes\)$"
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was to be downloaded. Nothing is in the cache."""
    names: list[str] = []

    def resolve(name: str, *more: Any, **given: Any) -> Path:
        names.append(name)
        raise joyedit.CheckpointError("the network was asked")

    monkeypatch.setattr(model, "cached_snapshot", lambda name: None)
    monkeypatch.setattr(hub, "resolve", resolve)
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: 20 * 10**9)
    return names


def fetched(**given: Any) -> None:
    model.fetch_what_fits(RunConfig(output=Path("out"), device="cpu", dtype="bf16", **given), lambda *told: None)


def test_too_little_memory(asked: list[str]) -> None:
    with pytest.raises(DeviceError, match=TOLD):
        fetched(model=HUB_EDIT)
    with pytest.raises(DeviceError, match=TOLD):
        joyedit.load(HUB_EDIT, device="cpu", dtype="bf16")
    assert asked == []


def test_enough_memory(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "available_bytes", lambda: 60 * 10**9)
    with pytest.raises(joyedit.CheckpointError, match="the network was asked"):
        fetched(model=HUB_EDIT)
    assert asked == [HUB_EDIT]


def test_what_is_here_or_not_known_is_not_looked_at(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ({"model": "somebody/else"}, {"model": HUB_EDIT, "dit": "dit.safetensors"}):
        with pytest.raises(joyedit.CheckpointError, match="the network was asked"):
            fetched(**given)
    monkeypatch.setattr(model, "cached_snapshot", lambda name: Path("cache"))
    with pytest.raises(joyedit.CheckpointError, match="the network was asked"):
        fetched(model=HUB_EDIT)
    assert asked == ["somebody/else", HUB_EDIT, HUB_EDIT]
