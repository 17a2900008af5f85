"""What became of a call in one rank, as it is told to another. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from joyedit.errors import CheckpointError, DeviceError, ItemError, JoyeditError, UsageError, first_line
from joyedit.runtime.protocol import OutOfMemory

_KINDS: tuple[type[Exception], ...] = (OutOfMemory, CheckpointError, DeviceError, UsageError, JoyeditError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a call ended: `kind` is the name of the error's class, empty where it went well; `code` that of an item.

    `value` is what the call gave that other ranks need to know.
    """

    kind: str = ""
    message: str = ""
    code: str = ""
    value: Any = None

    @classmethod
    def of(cls, error: BaseException) -> Outcome:
        """What is told of an error."""
        if isinstance(error, ItemError):
            return cls(kind="ItemError", message=str(error), code=error.code)
        for kind in _KINDS:
            if isinstance(error, kind):
                return cls(kind=kind.__name__, message=str(error))
        return cls(kind=type(error).__name__, message=first_line(error))

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the rank has no room for the batch."""
        return self.kind == OutOfMemory.__name__

    def error(self, rank: int) -> Exception | None:
        """The error as another rank raises it, None where there is none. Unknown kinds become RuntimeError."""
        if not self.kind:
            return None
        message = f"rank {rank}: {self.message}"
        if self.kind == "ItemError":
            return ItemError(self.code, self.message)
        for kind in _KINDS:
            if self.kind == kind.__name__:
                return kind(message)
        return RuntimeError(f"{message} ({self.kind})")


OK = Outcome()
