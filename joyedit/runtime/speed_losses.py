"""What a faster setting loses: figures that were measured with a model, shipped beside this file, and told with it.

`benchmarks/loss.py` measures them and writes the file. Where it has no row for a setting, nothing is told.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyedit.job.run_config import RunConfig
from joyedit.job.speed.bundles import speed_flags

FILE = Path(__file__).with_name("speed_losses.json")
EXACT = "exact"
_DEVICES = {"cpu": "CPU", "cuda": "GPU"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What `setting`, flags of `joyedit run`, lost with this model, over so many pairs and steps, against exact on the
    same `device`, "cpu" or "cuda".

    `points`: of 100 edits so many fewer happened; `decibels`: so much of the PSNR of what edits should leave alone. A
    negative number is a gain.
    """

    setting: str
    model: str
    device: str
    pairs: int
    steps: int
    points: float
    decibels: float

    @property
    def text(self) -> str:
        """For people."""
        how = f"{self.pairs} pairs, {self.steps} steps, on a {_DEVICES[self.device]}"
        return (
            f"edits that happen {_signed(-self.points)} points, unchanged regions {_signed(-self.decibels)} dB,"
            f" measured on {self.model} ({how}) and on no other model"
        )


def _signed(value: float) -> str:
    """`+0.3`, `-1.0`, and `0.0` without a sign."""
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def loss_of_run(config: RunConfig, steps: int | None) -> Loss | None:
    """What a run loses with its faster settings: a level, a part of one, a number format, or some of them together.

    None where nobody has measured exactly these.
    """
    flags = {"precision": config.precision} | speed_flags(config)
    given = [f"--{name.replace('_', '-')} {value}" for name, value in flags.items() if value not in (None, EXACT)]
    return loss_of(" ".join(given), steps) if given else None


def loss_of(setting: str, steps: int | None = None) -> Loss | None:
    """What this setting loses; with `steps`, in the measurement whose number of steps is nearest.

    Rows of the file stand in the order of their worth: of two that are as near, the first one is told.
    """
    table = _table(FILE)
    rows = table.get("settings", ())
    found = [row for row in rows if row["setting"] == setting]
    if not found:
        return None
    row = min(found, key=lambda row: abs(row["steps"] - (steps or row["steps"])))
    same = {"setting": EXACT, "steps": row["steps"], "device": row["device"]}
    exact = next((one for one in rows if same.items() <= one.items()), None)
    if exact is None:
        return None
    return Loss(
        setting=setting,
        model=str(table["model"]),
        device=str(row["device"]),
        pairs=int(row["pairs"]),
        steps=int(row["steps"]),
        points=round(exact["happened"] - row["happened"], 1),
        decibels=round(exact["unchanged"] - row["unchanged"], 1),
    )


@functools.cache
def _table(file: Path) -> Mapping[str, Any]:
    """The figures; empty where nobody has measured any."""
    with suppress(FileNotFoundError):
        read: dict[str, Any] = json.loads(file.read_bytes())
        return read
    return {}
