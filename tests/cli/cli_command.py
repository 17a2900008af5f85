"""How a command ended, and the surroundings of one that runs as a program of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """The lines of stderr, with rates and durations taken out."""
        message = re.sub(r", [\d.e+-]+ a second", ", RATE", self.err)
        message = re.sub(r", [^,\n]+ left", ", TIME left", message)
        return message.splitlines()


Command = Callable[..., Ended]


def program_environment() -> dict[str, str]:
    """The environment of a program that finds this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
