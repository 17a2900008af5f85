"""Fixtures of the durability suite, and its figures at the end of the run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durability.harness import FIGURES, SOAK, Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing, for tests of some thousand runs.

    A killed process leaves the same there as on a disk.
    """
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="joyedit-") as folder:
        yield Path(folder)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was tried and survived."""
    if FIGURES:
        message = ", ".join(f"{name} {count}" for name, count in FIGURES.items())
        terminalreporter.write_line(f"durability (x{SOAK}): {message}")
