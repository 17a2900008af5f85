"""Triton's interpreter as GPUs round to E4M3: the interpreter itself loses the carry of a rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture
def rounded_as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Conversions of fp32 to E4M3 are torch's."""
    import triton.language as tl
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(given: Any, kind: Any, wanted: Any, mode: Any) -> Any:
        if wanted != tl.float8e4nv or kind != tl.float32:
            return theirs(given, kind, wanted, mode)
        wide = torch.from_numpy(np.ascontiguousarray(given).view(np.float32))
        return wide.to(torch.float8_e4m3fn).view(torch.uint8).numpy().reshape(given.shape)

    monkeypatch.setattr(interpreter, "_convert_float", convert)
    return
