"""What is done otherwise on an Apple GPU. No such device is here: its parts of torch are played by stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from joyedit.errors import DeviceError
from joyedit.job.run_config import RunConfig
from joyedit.models import transfer
from joyedit.runtime.joyimage import backend, placing
from joyedit.runtime.joyimage.memory import available_bytes, empty_cache
from joyedit.runtime.joyimage.networks import DeviceChoice
from joyedit.runtime.joyimage.streams import Streams
from joyedit.weights import load as loading
from joyedit.weights.load import Component
from joyedit.weights.random import without_weights

MPS = torch.device("mps")
CALLS = ("synchronize", "empty_cache")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of torch.mps, in order."""
    calls: list[str] = []
    for name in CALLS:
        monkeypatch.setattr(torch.mps, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 36 * 10**9)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 6 * 10**9)
    return calls


class Recorded:
    """Stands for a tensor: writes down what it is turned into."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []

    def to(self, *what: Any) -> Recorded:
        self.steps.append(what)
        return self


def test_weights_take_their_dtype_before_they_go_there() -> None:
    for device, steps in (
        (MPS, [(torch.bfloat16,), (MPS,)]),
        (torch.device("cpu"), [(torch.device("cpu"), torch.bfloat16)]),
    ):
        tensor: Any = Recorded()
        transfer.to_device_as(tensor, device, torch.bfloat16)
        assert tensor.steps == steps


def test_files_are_read_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may hold float64, which this device lacks."""
    asked = []

    def read(device: torch.device, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        asked.append(device)
        assert names == ["weight", "bias"]
        yield "weight", torch.ones(2, 3, dtype=torch.float64)
        yield "bias", torch.ones(2, dtype=torch.float16)

    monkeypatch.setattr(loading, "to_device_as", lambda tensor, device, dtype: tensor.to(dtype))
    module = torch.nn.Linear(3, 2, device="meta")
    files: Any = SimpleNamespace(read=read, where="here", shapes=lambda: {"weight": (2, 3), "bias": (2,)})
    component = Component(name="net", module=module, files=files, rename=lambda name: name, fit=lambda tensor: tensor)
    loading.load(component, MPS, lambda name: torch.float32)
    assert asked == [torch.device("cpu")]
    assert module.weight.dtype == torch.float32
    assert module.weight.device.type == "cpu"


def test_times_and_pictures_wait_for_the_device(called: list[str]) -> None:
    streams = Streams(MPS)
    assert streams.timestamp("denoise").reached()
    streams.synchronize()
    assert called == ["synchronize"] * 2
    there = torch.ones(3)
    (copy,), copied = streams.to_host([there])
    assert copied.reached()
    assert torch.equal(copy, there)


def test_memory(called: list[str]) -> None:
    assert available_bytes(MPS) == 30 * 10**9
    empty_cache(MPS)
    empty_cache(torch.device("cpu"))
    assert called == ["empty_cache"]


@pytest.mark.usefixtures("called")
def test_all_weights_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(output=Path("out"), device="mps")
    wanted = DeviceChoice(device=MPS, dtype="bf16")
    dit, vae, encoder = without_weights("tiny", {"image_token_id": 5, "video_token_id": 6})
    networks = placing.Unplaced(dit, encoder, vae)
    placement, budget = placing.plan(networks, wanted, config)
    assert placement.is_resident
    assert budget == 30 * 10**9
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 6 * 10**9)
    with pytest.raises(DeviceError, match="in bf16, and 0 MB of memory are available"):
        placing.plan(networks, wanted, config)


def test_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "processor_name", lambda: "Apple M4")
    assert backend._device_name(MPS) == "mps (Apple M4)"
    monkeypatch.setattr(backend, "processor_name", lambda: "")
    assert backend._device_name(MPS) == "mps (Apple GPU)"
