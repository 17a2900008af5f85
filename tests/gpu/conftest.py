"""What every test on a CUDA device has: a cache folder of the tests, and no work of the test before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("JOYEDIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    yield
    torch.cuda.synchronize()
