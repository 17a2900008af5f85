"""`auto` is decided and told; a wish that cannot be met is refused with the way out."""

from __future__ import annotations

import pytest
import torch

from joyedit.errors import DeviceError
from joyedit.job.pictures import machine_memory
from joyedit.runtime.tuning import device
from joyedit.runtime.tuning.device import choose_device, choose_dtype

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


def test_auto_follows_what_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_device("auto") == CUDA
    assert choose_device("cpu") == CPU


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="--device cuda: torch sees no CUDA device here; use --device cpu"):
        choose_device("cuda")


def test_dtypes() -> None:
    assert choose_dtype("auto", CPU) == "fp32"
    assert choose_dtype("auto", CUDA) == "bf16"
    assert choose_dtype("fp32", CUDA) == "fp32"


def test_an_apple_gpu_is_taken_only_if_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == CPU
    assert choose_device("mps") == MPS
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="--device mps: torch sees no Apple GPU here"):
        choose_device("mps")


def test_dtypes_of_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_bf16", lambda device: True)
    assert [choose_dtype(wish, MPS) for wish in ("auto", "bf16", "fp32")] == ["bf16", "bf16", "fp32"]
    monkeypatch.setattr(device, "has_bf16", lambda device: False)
    assert [choose_dtype(wish, MPS) for wish in ("auto", "fp32")] == ["fp32", "fp32"]
    with pytest.raises(DeviceError, match="--dtype bf16: this macOS has no bf16 on its GPU"):
        choose_dtype("bf16", MPS)


def test_bf16_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.has_bf16(CPU)

    def refuses(*more: object, **options: object) -> None:
        raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(torch, "ones", refuses)
    assert not device.has_bf16(MPS)


@pytest.mark.parametrize(
    ("units", "total", "expected"),
    [("AMX", 100, "bf16"), ("AMX", 110, "fp32"), ("", 100, "fp32"), ("AMX", None, "fp32")],
)
def test_bf16_on_a_cpu_needs_units_and_a_lack_of_memory(
    units: str, total: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "bf16_units", lambda: units)
    monkeypatch.setattr(machine_memory, "total_bytes", lambda: None if total is None else total * 10**9)
    assert choose_dtype("auto", CPU, lambda: 100 * 10**9) == expected
    assert choose_dtype("auto", CPU) == "fp32"
    assert choose_dtype("fp32", CPU, lambda: 100 * 10**9) == "fp32"
