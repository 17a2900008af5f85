"""What the tests of the Python interface share: the fake model, and a caller of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import joyedit


@pytest.fixture
def fake_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., joyedit.Outcome]:
    """`joyedit.run` with the fake model, into `out` of the test's folder."""
    monkeypatch.setenv("JOYEDIT_FAKE", "1")

    def run(source: Any, **options: Any) -> joyedit.Outcome:
        given = {"model": "fake", "output": tmp_path / "out", "steps": 1, "basesize": 256, "progress": False}
        return joyedit.run(source, **(given | options))

    return run
