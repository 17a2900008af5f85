"""`auto` is decided and told; a wish that cannot be met is refused with the way out."""

from __future__ import annotations

import pytest
import torch

from joyedit.errors import DeviceError
from joyedit.runtime.tuning.device import choose_device, choose_dtype

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
