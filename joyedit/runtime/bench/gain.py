"""What a level of speed gains on the bench's model, beside what it loses where that was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from joyedit.job.spec import SpeedName
from joyedit.runtime.speed_losses import loss_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """`faster`: how many times less a whole edit took. `computed`: the share of the DiT's blocks that ran."""

    level: SpeedName
    steps: int
    faster: float
    computed: float

    def to_dict(self) -> dict[str, Any]:
        """For a program; `loss` is None where nobody measured it."""
        loss = loss_of(f"--speed {self.level}", self.steps)
        told = {"level": self.level, "gain": self.faster, "computed": self.computed}
        return told | {"loss": None if loss is None else asdict(loss)}

    def row(self) -> tuple[str, str]:
        """For a person."""
        loss = loss_of(f"--speed {self.level}", self.steps)
        told = f"gain: {self.faster:.2f} times faster, {self.computed:.0%} of the DiT's blocks computed"
        return f"--speed {self.level}", told + ("" if loss is None else f"; loss: {loss.text}")
