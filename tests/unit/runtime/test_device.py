"""`auto` is decided and told; a wish that cannot be met is refused with the way out."""

from __future__ import annotations

import pytest
import torch

from joyedit.errors import DeviceError
from joyedit.runtime import device
from joyedit.runtime.device import choose_attention, choose_device, choose_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


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


def test_attention_on_the_cpu_is_sdpa() -> None:
    assert choose_attention("auto", CPU, "fp32") == ("sdpa", "FlashAttention needs a CUDA device")
    with pytest.raises(
        DeviceError, match="--attention flash: FlashAttention needs a CUDA device; use --attention sdpa"
    ):
        choose_attention("flash", CPU, "fp32")


def test_flash_needs_bf16_and_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_attention("auto", CUDA, "fp32") == ("sdpa", "FlashAttention needs bf16")
    monkeypatch.setattr(device, "has_kernel", lambda: True)
    assert choose_attention("auto", CUDA, "bf16")[0] == "flash"
    assert choose_attention("flash", CUDA, "bf16") == ("flash", "")
    assert choose_attention("sdpa", CUDA, "bf16") == ("sdpa", "")
    monkeypatch.setattr(device, "has_kernel", lambda: False)
    backend, why = choose_attention("auto", CUDA, "bf16")
    assert backend == "sdpa"
    assert "joyedit[flash]" in why
