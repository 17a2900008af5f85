"""Fixtures of the durability suite, and its figures at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from durability.harness import FIGURES, SOAK, Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    server = Forks()
    yield server
    server.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was tried and survived."""
    if FIGURES:
        told = ", ".join(f"{name} {count}" for name, count in FIGURES.items())
        terminalreporter.write_line(f"durability (x{SOAK}): {told}")
